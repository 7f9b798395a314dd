//! `husk history`

use serde_json::json;

use crate::engine::Engine;
use crate::output::{self, Format, human, table};

/// Show how an image was made, and what each of its layers takes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whole commands
    #[arg(long)]
    no_trunc: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    image: String,
}

pub(super) fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let store = engine.store()?;
    let steps = store.history(&store.get(&args.image)?)?;
    if args.format == Format::Json {
        let list: Vec<_> = steps
            .iter()
            .map(|step| {
                json!({
                    "Created": step.created, "CreatedBy": step.created_by, "Comment": step.comment,
                    "Layer": step.layer.map(|(layer, _)| layer), "Size": step.layer.map_or(0, |(_, bytes)| bytes),
                })
            })
            .collect();
        return output::json(&list);
    }
    let rows = steps.into_iter().map(|step| {
        let created =
            step.created.and_then(|created| created.parse().ok()).map_or_else(|| "unknown".into(), human::ago);
        let by = step.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
        let by = if args.no_trunc { by } else { human::shorten(&by, 60) };
        let (layer, size) = step.layer.map_or_else(
            || ("<none>".to_owned(), human::size(0)),
            |(layer, bytes)| (human::short_id(&layer.to_string()), human::size(bytes)),
        );
        [layer, created, by, size, step.comment]
    });
    output::print(&table::render(["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"], rows))
}
