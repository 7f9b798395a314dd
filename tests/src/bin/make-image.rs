//! Makes an OCI image layout from tars, for `images/build`.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use husk_tests::oci::{Compression, Defaults, Layout, archive};
use husk_tests::torture;

#[derive(Debug, Parser)]
#[command(about = "Make the images that Husk is tested with")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write an image layout.
    Layout(Image),
    /// Pack a layout into an OCI archive.
    Archive {
        /// The layout's directory.
        layout: PathBuf,
        /// The archive to write.
        out: PathBuf,
    },
    /// Write the layers that hold every oddity, DIR/additions.tar and DIR/changes.tar.
    Torture {
        /// Where to write them.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Image {
    /// Directory of the layout.
    #[arg(long)]
    out: PathBuf,
    /// The image's full name with its tag.
    #[arg(long)]
    name: String,
    /// An uncompressed tar, lowest layer first.
    #[arg(long = "layer", required = true)]
    layers: Vec<PathBuf>,
    /// How the layers are stored.
    #[arg(long, value_enum, default_value_t = Compression::Gzip)]
    compression: Compression,
    /// Put the image in an index, beside one of the same name for a foreign platform.
    #[arg(long)]
    multi_platform: bool,
    /// USER of the image.
    #[arg(long)]
    user: Option<String>,
    /// One ENV line, NAME=value.
    #[arg(long)]
    env: Vec<String>,
    /// ENTRYPOINT as a JSON array.
    #[arg(long, value_parser = words)]
    entrypoint: Option<Words>,
    /// CMD as a JSON array.
    #[arg(long, value_parser = words)]
    cmd: Option<Words>,
    /// WORKDIR of the image.
    #[arg(long)]
    working_dir: Option<String>,
    /// STOPSIGNAL of the image.
    #[arg(long)]
    stop_signal: Option<String>,
}

/// A command line; a type of its own because clap reads a bare `Vec` as a repeated flag.
#[derive(Debug, Clone)]
struct Words(Vec<String>);

fn words(json: &str) -> Result<Words, serde_json::Error> {
    serde_json::from_str(json).map(Words)
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Layout(image) => layout(image),
        Command::Archive { layout, out } => {
            archive(&layout, &out).with_context(|| format!("packing {} into {}", layout.display(), out.display()))
        }
        Command::Torture { dir } => {
            let create = |name: &str| -> Result<BufWriter<File>> {
                let path = dir.join(name);
                Ok(BufWriter::new(File::create(&path).with_context(|| format!("creating {}", path.display()))?))
            };
            torture::additions(create("additions.tar")?)?;
            torture::changes(create("changes.tar")?)?;
            Ok(())
        }
    }
}

fn layout(image: Image) -> Result<()> {
    let layout = Layout::create(&image.out).with_context(|| format!("creating {}", image.out.display()))?;
    let open = |path: &Path| -> Result<BufReader<File>> {
        Ok(BufReader::new(File::open(path).with_context(|| format!("opening the layer {}", path.display()))?))
    };
    let mut layers = Vec::new();
    for path in &image.layers {
        let blob = layout.layer(open(path)?, image.compression);
        layers.push(blob.with_context(|| format!("storing the layer {}", path.display()))?);
    }
    let defaults = Defaults {
        user: image.user,
        env: image.env,
        entrypoint: image.entrypoint.map(|w| w.0),
        cmd: image.cmd.map(|w| w.0),
        working_dir: image.working_dir,
        stop_signal: image.stop_signal,
    };
    let mut top = layout.image("amd64", &defaults, &layers)?;
    if image.multi_platform {
        // First in the list, so that a reader which takes the first entry runs the wrong one.
        let wrong = Defaults { cmd: Some(vec!["/wrong-platform".into()]), ..defaults };
        top = layout.index(&[layout.image("s390x", &wrong, &layers)?, top])?;
    }
    layout.finish(top, &image.name)?;
    Ok(())
}
