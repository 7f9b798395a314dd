//! `husk tag`

use husk_image::Reference;

use crate::engine::Engine;

/// Give an image a further name
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or id of the image
    image: String,
    /// The further name
    name: String,
}

pub(super) fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let store = engine.store()?;
    let reference: Reference = args.name.parse()?;
    let image = store.get(&args.image)?;
    store.tag(&image.id, &reference)?;
    Ok(())
}
