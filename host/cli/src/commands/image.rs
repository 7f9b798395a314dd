//! `husk image`: all that concerns images, under one word.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use husk_image::{Image, ImageId, PruneOptions, Store};
use serde_json::{Value, json};

use super::{history, images, load, pull, rmi, save, tag};
use crate::engine::Engine;
use crate::output::{self, human};
use crate::pods::observe;

/// Look after images
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "list")]
    Ls(images::Args),
    Pull(pull::Args),
    Load(load::Args),
    Save(save::Args),
    Tag(tag::Args),
    Rm(rmi::Args),
    History(history::Args),
    /// Show everything about images, as JSON
    Inspect {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Read all of images and see that they are what they were when they came
    Check {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    Prune(PruneArgs),
    /// Keep images from being pruned
    Pin {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Let images be pruned again
    Unpin {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

/// Remove images that nobody needs: those without a name; of containers and pinned ones none
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Also those with a name
    #[arg(short, long)]
    all: bool,
    /// Only those that came here so long ago or earlier, e.g. 24h or 30d
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Only as many, the oldest first, as bring the store down to this size, e.g. 10g
    #[arg(long, value_name = "SIZE", value_parser = super::run::flags::bytes)]
    keep_storage: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = match text.strip_suffix('d').map(str::parse::<i64>) {
        Some(Ok(days)) => jiff::SignedDuration::from_hours(days.checked_mul(24).ok_or("it is too long")?),
        _ => text.parse().map_err(|_| "expected an age such as 90m, 24h or 30d".to_owned())?,
    };
    Duration::try_from(span).map_err(|_| "an age is not negative".to_owned())
}

pub(super) async fn run(engine: Engine, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls(args) => images::run(engine, args),
        Command::Pull(args) => pull::run(engine, args).await,
        Command::Load(args) => load::run(engine, args).await,
        Command::Save(args) => save::run(engine, args),
        Command::Tag(args) => tag::run(engine, args),
        Command::Rm(args) => rmi::run(engine, args),
        Command::History(args) => history::run(engine, args),
        Command::Inspect { images } => inspect(&engine.store()?, &images),
        Command::Check { images } => check(&engine.store()?, &images),
        Command::Prune(args) => prune(&engine, &args).await,
        Command::Pin { images } => pin(&engine.store()?, &images, true),
        Command::Unpin { images } => pin(&engine.store()?, &images, false),
    }
}

fn pin(store: &Store, images: &[String], pinned: bool) -> anyhow::Result<()> {
    for name in images {
        let image = store.get(name)?;
        store.pin(&image.id, pinned)?;
        output::print(&image.id.to_string())?;
    }
    Ok(())
}

fn check(store: &Store, images: &[String]) -> anyhow::Result<()> {
    for name in images {
        let image = store.get(name)?;
        store.check(&image, output::progress::of_images(false).as_ref())?;
        output::print(&format!("{name}: as it came"))?;
    }
    Ok(())
}

fn inspect(store: &Store, images: &[String]) -> anyhow::Result<()> {
    let summaries = store.list()?;
    let mut shown = Vec::with_capacity(images.len());
    for name in images {
        let image = store.get(name)?;
        let summary = summaries.iter().find(|summary| summary.id == image.id);
        let size = summary.map_or(0, |summary| summary.size);
        shown.push(of_image(&image, size, summary.is_some_and(|summary| summary.pinned)));
    }
    output::json(&shown)
}

/// In the shape of `docker image inspect`, where both have a thing.
fn of_image(image: &Image, size: u64, pinned: bool) -> Value {
    let (digests, tags): (Vec<&String>, Vec<&String>) = image.names.iter().partition(|name| name.contains('@'));
    let config = &image.config;
    json!({
        "Id": image.id.to_string(),
        "Digest": image.digest,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": config.created(),
        "Author": config.author(),
        "Architecture": config.architecture().to_string(),
        "Os": config.os().to_string(),
        "Size": size,
        "Pinned": pinned,
        "Config": config.config(),
        "RootFS": {"Type": "layers", "Layers": config.rootfs().diff_ids()},
        "Disk": std::iter::once(&image.erofs_path).chain(&image.data_paths).collect::<Vec<_>>(),
    })
}

async fn prune(engine: &Engine, args: &PruneArgs) -> anyhow::Result<()> {
    let store = engine.store()?;
    let pods = observe::all(engine).await?;
    let containers = pods.iter().flat_map(|pod| &pod.containers);
    let used = containers.flat_map(|container| std::iter::once(&container.image_id).chain(&container.volume_images));
    let used: BTreeSet<ImageId> = used.filter_map(|id| Some(store.running(id).ok()?.id)).collect();
    let what = if args.all { "all images that no container has" } else { "all images without a name" };
    if !args.force && !agrees(&format!("This removes {what}."))? {
        return Ok(());
    }
    let options = PruneOptions { named: args.all, older_than: args.older_than, keep_bytes: args.keep_storage, used };
    let pruned = store.prune(&options)?;
    for (id, names) in &pruned.images {
        names.iter().try_for_each(|name| output::print(&format!("Untagged: {name}")))?;
        output::print(&format!("Deleted: {id}"))?;
    }
    output::print(&format!("Total reclaimed space: {}", human::size(pruned.bytes)))
}

/// Asks; whoever does not answer does not agree.
fn agrees(what: &str) -> anyhow::Result<bool> {
    let mut err = std::io::stderr().lock();
    write!(err, "{what} Go on? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_people_write_them() {
        for (text, seconds) in [("90m", 5400), ("24h", 86400), ("1h30m", 5400), ("30d", 30 * 86400), ("10s", 10)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "x", "-1h", "9999999999999999999d", "10"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}
