//! `husk rmi`

use crate::engine::Engine;
use crate::error;
use crate::output;

/// Remove images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also when an image has several names
    #[arg(short, long)]
    force: bool,
    /// All images
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let store = engine.store()?;
    let names = if args.all { store.list()?.iter().map(|i| i.id.to_string()).collect() } else { args.images };
    let mut failed: Option<anyhow::Error> = None;
    for name in names {
        match store.remove(&name, args.force || args.all) {
            Ok(removed) => {
                for name in removed.untagged {
                    output::print(&format!("Untagged: {name}"))?;
                }
                if let Some(id) = removed.deleted {
                    output::print(&format!("Deleted: {id}"))?;
                }
            }
            Err(error) => {
                if let Some(earlier) = failed.replace(error.into()) {
                    eprintln!("{}", error::report(&earlier));
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
