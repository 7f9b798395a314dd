//! `husk ps`

use serde_json::json;

use crate::engine::Engine;
use crate::output::{self, Format, human, table};
use crate::pods::observe;
use crate::pods::record::{ContainerRecord, PodRecord, Status};

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Print nothing but the ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only of this pod
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let mut pods = observe::all(&engine).await?;
    if let Some(wanted) = &args.pod {
        let id = crate::pods::lookup::pod(&pods, wanted)?.id;
        pods.retain(|p| p.id == id);
    }
    let shown = pods.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)));
    let mut shown = shown.filter(|(_, c)| args.all || c.state.is_active());
    if args.format == Format::Json {
        return output::json(&shown.map(|(pod, c)| listed(pod, c)).collect::<Vec<_>>());
    }
    let id = |id: &str| if args.no_trunc { id.to_owned() } else { human::short_id(id) };
    if args.quiet {
        return shown.try_for_each(|(_, c)| output::print(&id(&c.id)));
    }
    let rows = shown.map(|(pod, c)| {
        let command = c.command.join(" ").replace('\n', " ");
        [
            id(&c.id),
            c.image.clone(),
            if args.no_trunc { command } else { human::shorten(&command, 20) },
            human::ago(c.created),
            status(c),
            ports(pod),
            c.name.clone(),
            pod.name.clone(),
        ]
    });
    let headings = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "POD"];
    output::print(&table::render(headings, rows))
}

/// As podman says it: `Up 5 minutes`, `Exited (0) 3 seconds ago`.
pub(super) fn status(container: &ContainerRecord) -> String {
    let state = &container.state;
    let code = state.exit_code.unwrap_or_default();
    let ready = match state.ready {
        Some(true) => " (ready)",
        Some(false) => " (not ready)",
        None => "",
    };
    match (state.status, state.started, state.finished) {
        (Status::Running, Some(started), _) => format!("Up {}{ready}", human::since(started)),
        (Status::Running, None, _) => format!("Up{ready}"),
        (Status::Paused, Some(started), _) => format!("Up {} (Paused)", human::since(started)),
        (Status::Paused, None, _) => "Up (Paused)".to_owned(),
        (Status::Restarting, ..) => format!("Restarting ({code})"),
        (Status::Exited, _, Some(finished)) => format!("Exited ({code}) {}", human::ago(finished)),
        (Status::Exited, ..) => format!("Exited ({code})"),
        (Status::Created, ..) => "Created".to_owned(),
    }
}

/// The pod's, for which container they are only its processes know.
fn ports(pod: &PodRecord) -> String {
    pod.network.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn listed(pod: &PodRecord, container: &ContainerRecord) -> serde_json::Value {
    json!({
        "Id": container.id,
        "Names": [container.name],
        "Image": container.image,
        "ImageID": container.image_id,
        "Command": container.command,
        "Created": container.created.as_second(),
        "CreatedAt": container.created,
        "State": container.state.status.as_str(),
        "Status": status(container),
        "Ready": container.is_ready(),
        "ExitCode": container.state.exit_code.unwrap_or_default(),
        "Exited": container.state.status == Status::Exited,
        "OOMKilled": container.state.oom_kills > 0,
        "StartedAt": container.state.started,
        "ExitedAt": container.state.finished,
        "Restarts": container.state.restarts,
        "Pid": container.state.pid.unwrap_or_default(),
        "Kind": container.kind,
        "Labels": container.labels,
        "Ports": pod.network.ports,
        "Pod": pod.id,
        "PodName": pod.name,
    })
}
