//! `husk volume`

use serde_json::json;

use crate::engine::Engine;
use crate::output::{self, Format, human, table};
use crate::pods::{observe, volumes};

/// Look after named volumes, which outlive pods
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a volume; `husk run -v NAME:/path` makes one too
    Create {
        /// What it can hold at most, e.g. 500m or 20g
        #[arg(long, value_parser = super::run::flags::bytes, default_value_t = volumes::DEFAULT_BYTES)]
        size: u64,
        name: String,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Print nothing but the names
        #[arg(short, long)]
        quiet: bool,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove volumes with their data
    Rm {
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
}

pub(super) async fn run(engine: Engine, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create { size, name } => output::print(&volumes::create(&engine.paths, &name, size)?.name),
        Command::Ls { quiet, format } => list(&engine, quiet, format),
        Command::Rm { names } => {
            let pods = observe::all(&engine).await?;
            super::for_each(&names, |name| {
                let removed = volumes::remove(&engine.paths, &pods, &name);
                async move {
                    removed?;
                    output::print(&name)
                }
            })
            .await
        }
    }
}

fn list(engine: &Engine, quiet: bool, format: Format) -> anyhow::Result<()> {
    let volumes = volumes::list(&engine.paths)?;
    if format == Format::Json {
        let list: Vec<_> = volumes
            .iter()
            .map(|v| {
                json!({
                    "Name": v.name, "Mountpoint": v.path, "Size": v.size, "Used": v.used, "CreatedAt": v.created,
                })
            })
            .collect();
        return output::json(&list);
    }
    if quiet {
        return volumes.iter().try_for_each(|v| output::print(&v.name));
    }
    let rows =
        volumes.iter().map(|v| [v.name.clone(), human::size(v.size), human::size(v.used), human::ago(v.created)]);
    output::print(&table::render(["VOLUME NAME", "SIZE", "USED", "CREATED"], rows))
}
