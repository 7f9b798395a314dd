//! `husk version`

use serde_json::json;

use crate::output::{self, Format};

/// Show husk's version
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: Args) -> anyhow::Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    match args.format {
        Format::Table => output::print(&format!("husk {version}"))?,
        Format::Json => output::json(&json!({ "Version": version }))?,
    }
    Ok(0)
}
