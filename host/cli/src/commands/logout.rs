//! `husk logout`

use husk_image::credentials::AuthFile;

use super::login::auth_file;
use crate::error::Advise as _;
use crate::output;

/// Forget the name and the password for a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those for every registry
    #[arg(short, long, conflicts_with = "registry")]
    all: bool,
    /// Host name of the registry, with its port [default: docker.io]
    registry: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut file = AuthFile::read(&auth_file()?)?;
    let registries = match &args.registry {
        Some(registry) => vec![registry.clone()],
        None if args.all => file.registries(),
        None => vec!["docker.io".to_owned()],
    };
    for registry in &registries {
        if let Some(helper) = file.helper(registry) {
            return Err(anyhow::anyhow!("the password for {registry} is with docker-credential-{helper}"))
                .hint("have that program erase it");
        }
        if !file.remove(registry) && !args.all {
            return Err(anyhow::anyhow!("not logged in to {registry}"))
                .hint(format!("there are: {}", file.registries().join(", ")));
        }
    }
    file.write()?;
    for registry in &registries {
        output::print(&format!("Removed login credentials for {registry}"))?;
    }
    Ok(())
}
