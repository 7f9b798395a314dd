//! `husk save`

use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use husk_image::Store;

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::output::progress;

/// Write images into an archive that husk, docker, podman and containerd load
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let store = engine.store()?;
    match &args.output {
        Some(path) => to_file(&store, &args, path).with_context(|| format!("cannot save to {}", path.display())),
        None if io::stdout().is_terminal() => Err(anyhow::anyhow!("an archive is nothing for a terminal"))
            .hint("use `husk save -o FILE`, or send standard output to a file"),
        None => write(&store, &args, io::stdout().lock()),
    }
}

/// The file is there whole or not at all.
fn to_file(store: &Store, args: &Args, path: &Path) -> anyhow::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As any file that is made: the umask decides who may read it.
    let mode = std::fs::Permissions::from_mode(0o666);
    let file = tempfile::Builder::new().prefix(".husk-save-").permissions(mode).tempfile_in(dir)?;
    let mut out = io::BufWriter::with_capacity(1 << 20, file.as_file());
    write(store, args, &mut out)?;
    out.flush()?;
    drop(out);
    file.persist(path)?;
    Ok(())
}

fn write(store: &Store, args: &Args, out: impl Write) -> anyhow::Result<()> {
    let progress = progress::of_images(args.quiet);
    Ok(store.save(&args.images, out, progress.as_ref())?)
}
