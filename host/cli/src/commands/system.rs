//! `husk system`

use std::collections::BTreeSet;

use serde_json::json;

use crate::engine::Engine;
use crate::output::{self, Format, human, table};
use crate::pods::{observe, volumes};

/// Look after the host's part
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show what images and volumes take on the disk
    Df {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

struct Row {
    kind: &'static str,
    total: usize,
    active: usize,
    bytes: u64,
}

pub(super) async fn run(engine: Engine, command: Command) -> anyhow::Result<()> {
    let Command::Df { format } = command;
    let store = engine.store()?;
    let pods = observe::all(&engine).await?;
    let used: BTreeSet<&String> = pods
        .iter()
        .flat_map(|pod| &pod.containers)
        .flat_map(|container| std::iter::once(&container.image_id).chain(&container.volume_images))
        .collect();
    let images = store.list()?;
    let volumes = volumes::list(&engine.paths)?;
    let rows = [
        Row {
            kind: "Images",
            total: images.len(),
            active: images.iter().filter(|image| used.contains(&image.id.to_string())).count(),
            bytes: store.usage()?.bytes,
        },
        Row {
            kind: "Volumes",
            total: volumes.len(),
            active: volumes.iter().filter(|volume| volumes::user(&pods, &volume.name).is_some()).count(),
            bytes: volumes.iter().map(|volume| volume.used).sum(),
        },
    ];
    if format == Format::Json {
        let list: Vec<_> = rows
            .iter()
            .map(|row| json!({"Type": row.kind, "TotalCount": row.total, "Active": row.active, "Size": row.bytes}))
            .collect();
        return output::json(&list);
    }
    let rows =
        rows.map(|row| [row.kind.to_owned(), row.total.to_string(), row.active.to_string(), human::size(row.bytes)]);
    output::print(&table::render(["TYPE", "TOTAL", "ACTIVE", "SIZE"], rows))
}
