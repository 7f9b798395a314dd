//! `husk load`

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use husk_image::{ArchiveSource, Reference};

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::output::{self, progress};

/// Take images from an archive: an OCI layout as tar or directory, or what `docker save` writes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read this file or directory instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print nothing but the names
    #[arg(short, long)]
    quiet: bool,
    /// Name the image so, whatever the archive says
    #[arg(long, value_name = "IMAGE")]
    tag: Option<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let tag: Option<Reference> = args.tag.as_deref().map(str::parse).transpose()?;
    let (source, name) = match args.input {
        Some(path) => (ArchiveSource::Path(path.clone()), path.display().to_string()),
        None if std::io::stdin().is_terminal() => {
            return Err(anyhow::anyhow!("no archive: standard input is a terminal"))
                .hint("use `husk load -i FILE`, or pipe an archive into it");
        }
        None => (ArchiveSource::Reader(Box::new(std::io::stdin())), "standard input".to_owned()),
    };
    let loaded = engine.store()?.load(source, tag.as_ref(), progress::of_images(args.quiet)).await;
    for image in loaded.with_context(|| format!("cannot load {name}"))? {
        let id = image.id.to_string();
        for name in if image.names.is_empty() { std::slice::from_ref(&id) } else { &image.names } {
            output::print(&if args.quiet { name.clone() } else { format!("Loaded image: {name}") })?;
        }
    }
    Ok(())
}
