//! `husk pod ls`

use serde_json::json;

use crate::engine::Engine;
use crate::output::{self, Format, human, table};
use crate::pods::observe;
use crate::pods::record::PodRecord;

/// List pods
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print nothing but the ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let pods = observe::all(&engine).await?;
    if args.format == Format::Json {
        return output::json(&pods.iter().map(listed).collect::<Vec<_>>());
    }
    let id = |id: &str| if args.no_trunc { id.to_owned() } else { human::short_id(id) };
    if args.quiet {
        return pods.iter().try_for_each(|pod| output::print(&id(&pod.id)));
    }
    let rows = pods.iter().map(|pod| {
        let running = pod.containers.iter().filter(|c| c.state.has_processes()).count();
        let memory = pod.boot.as_ref().map_or_else(|| "-".to_owned(), |b| format!("{} MiB", b.memory_mib));
        [
            id(&pod.id),
            pod.name.clone(),
            format!("{:?}", pod.phase),
            human::ago(pod.created),
            format!("{running}/{}", pod.containers.len()),
            memory,
        ]
    });
    output::print(&table::render(["POD ID", "NAME", "STATUS", "CREATED", "RUNNING", "VM MEMORY"], rows))
}

fn listed(pod: &PodRecord) -> serde_json::Value {
    let containers: Vec<_> = pod
        .containers
        .iter()
        .map(|c| json!({ "Id": c.id, "Names": c.name, "Status": c.state.status.as_str(), "RestartCount": c.state.restarts }))
        .collect();
    json!({
        "Id": pod.id,
        "Name": pod.name,
        "Namespace": pod.namespace,
        "Status": pod.phase,
        "Created": pod.created,
        "Labels": pod.labels,
        "Containers": containers,
    })
}
