//! `start`: one daemon a pod, listening before its address is printed.

use std::env;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use husk_client::Dirs;
use husk_client::bootstrap::Answer;

use super::descriptors;
use super::log::LOG_FILE;
use super::params::{self, Params};
use crate::args::Args;
use crate::bundle::{Bundle, Role};

/// Starts the pod's daemon, or finds the one that runs, and prints its address.
pub(crate) fn start(args: &Args) -> anyhow::Result<()> {
    descriptors::close_on_exec().context("listing the open descriptors in /proc/self/fd")?;
    let stdin = params::read_stdin().context("reading standard input")?;
    let params = Params::new(args, &env::var("TTRPC_ADDRESS").unwrap_or_default(), &stdin);
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        None => env::current_dir().context("finding the bundle, which is the working directory")?,
    };
    let socket = socket(&params, &Bundle::load(&bundle)?)?;
    let Some(address) = socket.to_str() else {
        bail!("the path of the socket, {}, is not UTF-8: choose another HUSK_RUN", socket.display());
    };
    let answer = serde_json::to_string(&Answer::ttrpc(address))?;
    io::stdout().write_all(answer.as_bytes()).context("printing the address")?;
    Ok(())
}

/// The socket of the shim that serves this bundle, started if need be.
fn socket(params: &Params, bundle: &Bundle) -> anyhow::Result<PathBuf> {
    let dirs = Dirs::from_env();
    if let Role::Container { sandbox } = &bundle.role {
        // Every container of a pod has the pod's shim.
        let socket = dirs.task_socket(&params.namespace, sandbox)?;
        UnixStream::connect(&socket)
            .with_context(|| format!("container {}: the shim of its pod {sandbox} does not listen", params.id))?;
        return Ok(socket);
    }
    let socket = dirs.task_socket(&params.namespace, &params.id)?;
    if UnixStream::connect(&socket).is_ok() {
        // An earlier start whose answer was lost.
        return Ok(socket);
    }
    let state = dirs.shim_state(&params.namespace, &params.id)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .with_context(|| format!("making the shim's directory {}", state.display()))?;
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing the dead socket {}", socket.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&socket).with_context(|| {
        format!("binding {}: a socket's path has at most 107 bytes, see HUSK_RUN", socket.display())
    })?;
    spawn(params, &bundle.directory, &state, listener)?;
    Ok(socket)
}

/// Runs this program again as the daemon, with the socket as its standard input.
fn spawn(params: &Params, bundle: &Path, state: &Path, listener: UnixListener) -> anyhow::Result<()> {
    let log = state.join(LOG_FILE);
    let stderr = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)
        .with_context(|| format!("opening the log {}", log.display()))?;
    let program = env::current_exe().context("finding the running program")?;
    let mut command = Command::new(&program);
    command.arg("-namespace").arg(&params.namespace).arg("-id").arg(&params.id).arg("-bundle").arg(bundle);
    if params.debug {
        command.arg("-debug");
    }
    command
        .arg("serve")
        .env("TTRPC_ADDRESS", &params.events)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr));
    // It is left behind on purpose: init becomes its parent.
    command.spawn().with_context(|| format!("running {}", program.display()))?;
    Ok(())
}
