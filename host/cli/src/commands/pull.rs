//! `husk pull`

use crate::engine::Engine;
use crate::images;
use crate::output::{self, progress};

/// Fetch images from their registries
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print nothing but the ids
    #[arg(short, long)]
    quiet: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let store = engine.store()?;
    for name in &args.images {
        let image = images::pull(&store, name, progress::of_images(args.quiet)).await?;
        output::print(&image.id.to_string())?;
    }
    Ok(())
}
