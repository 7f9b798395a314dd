//! `husk images`

use husk_image::ImageSummary;
use jiff::Timestamp;
use serde_json::json;

use crate::engine::Engine;
use crate::output::{self, Format, human, table};

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print nothing but the ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let images = engine.store()?.list()?;
    let id = |image: &ImageSummary| {
        let id = image.id.to_string();
        if args.no_trunc { id } else { human::short_id(&id) }
    };
    if args.format == Format::Json {
        let list: Vec<_> = images
            .iter()
            .map(|i| {
                json!({
                    "Id": i.id.to_string(), "Names": i.names, "Digest": i.digest, "Size": i.size, "Created": i.created,
                })
            })
            .collect();
        return output::json(&list);
    }
    if args.quiet {
        return images.iter().try_for_each(|image| output::print(&id(image)));
    }
    let rows = images.iter().flat_map(|image| {
        let names = if image.names.is_empty() { vec!["<none>".to_owned()] } else { image.names.clone() };
        let created = image.created.as_deref().and_then(|c| c.parse::<Timestamp>().ok());
        let created = created.filter(|c| c.as_second() > 0).map_or_else(|| "unknown".to_owned(), human::ago);
        names.into_iter().map(move |name| {
            let (repository, tag) = split(&name);
            [repository, tag, id(image), created.clone(), human::size(image.size)]
        })
    });
    output::print(&table::render(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], rows))
}

/// `docker.io/library/nginx:latest` → repository and tag; a port's colon is no tag's.
fn split(name: &str) -> (String, String) {
    let (path, digest) = name.split_once('@').map_or((name, None), |(path, digest)| (path, Some(digest)));
    match path.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((repository, tag)) => (repository.to_owned(), tag.to_owned()),
        None => (path.to_owned(), digest.map_or("<none>", |_| "<digest>").to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        for (name, repository, tag) in [
            ("docker.io/library/nginx:1", "docker.io/library/nginx", "1"),
            ("localhost:5000/app", "localhost:5000/app", "<none>"),
            ("localhost:5000/app:2", "localhost:5000/app", "2"),
            ("a/b@sha256:0", "a/b", "<digest>"),
        ] {
            assert_eq!(split(name), (repository.to_owned(), tag.to_owned()));
        }
    }
}
