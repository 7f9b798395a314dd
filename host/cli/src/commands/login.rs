//! `husk login`

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use husk_image::credentials::{AuthFile, Credentials, Keychain, Secret};
use husk_image::{PullOptions, login};

use crate::error::Advise as _;
use crate::output;

/// Longest password that is read.
const MAX_PASSWORD: u64 = 64 << 10;

/// Save a name and a password for a registry
///
/// They are kept where Docker keeps them: in $REGISTRY_AUTH_FILE, else $DOCKER_CONFIG/config.json, else
/// ~/.docker/config.json.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the user [default: ask]
    #[arg(short, long)]
    username: Option<String>,
    /// Password or access token, which others may read in the list of processes [default: ask]
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Host name of the registry, with its port
    #[arg(default_value = "docker.io")]
    registry: String,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let path = auth_file()?;
    let mut file = AuthFile::read(&path)?;
    if let Some(helper) = file.helper(&args.registry) {
        return Err(anyhow::anyhow!("{} leaves {} to docker-credential-{helper}", path.display(), args.registry))
            .hint("give the password to that program, or remove it from the file");
    }
    let user = match args.username.clone() {
        Some(user) => user,
        None => ask("Username: ", "--username")?,
    };
    ensure!(!user.is_empty() && !user.contains(':'), "a user's name is not empty and has no colon");
    let password = Secret::from(password(&args)?);
    let credentials = Credentials::Password { user: user.clone(), password: password.clone() };
    login::check(&args.registry, &credentials, &PullOptions::default().registry_config).await?;
    file.set(&args.registry, &user, &password);
    file.write()?;
    output::print("Login Succeeded!")
}

/// Where credentials are kept.
pub(super) fn auth_file() -> anyhow::Result<PathBuf> {
    let path = Keychain::of_user().path().map(ToOwned::to_owned);
    path.context("there is no place for credentials").hint("set HOME, or REGISTRY_AUTH_FILE to the path of a file")
}

fn password(args: &Args) -> anyhow::Result<String> {
    if args.password_stdin {
        let mut text = String::new();
        std::io::stdin().take(MAX_PASSWORD).read_to_string(&mut text).context("cannot read the password")?;
        let text = text.trim_end_matches(['\r', '\n']);
        ensure!(!text.is_empty(), "--password-stdin: standard input is empty");
        return Ok(text.to_owned());
    }
    match &args.password {
        Some(password) => Ok(password.clone()),
        None if std::io::stdin().is_terminal() => {
            rpassword::prompt_password("Password: ").context("cannot read the password")
        }
        None => bail!("there is no terminal to ask for the password: give --password-stdin"),
    }
}

fn ask(question: &str, flag: &str) -> anyhow::Result<String> {
    ensure!(std::io::stdin().is_terminal(), "there is no terminal to ask for the user's name: give {flag}");
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
