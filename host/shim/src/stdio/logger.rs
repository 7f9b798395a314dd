//! Logging programs, as containerd's `binary://` defines them.
//!
//! The program reads the process's stdout from descriptor 3 and its stderr from 4, and closes descriptor 5 when it is
//! ready. Its environment names the container. (containerd `pkg/shim/publisher`, `core/runtime/v2/logging`.)

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::destination::Logger;
use super::endpoint::Owner;

/// How long a logger may take to become ready, and to end after its input has.
const PATIENCE: Duration = Duration::from_secs(12);

/// Why there is no logger.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggerError {
    #[error("logger {}: cannot be run: {source}", .binary.display())]
    Spawn { binary: PathBuf, source: io::Error },
    #[error("logger {}: not ready within {} s: it must close descriptor 5", .binary.display(), PATIENCE.as_secs())]
    NotReady { binary: PathBuf },
}

/// A running logger's inputs. It is ended when both have been dropped.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) stdout: LoggerInput,
    pub(crate) stderr: LoggerInput,
}

#[derive(Debug)]
pub(crate) struct LoggerInput {
    pub(crate) pipe: pipe::Sender,
    _guard: Arc<Guard>,
}

/// Tells the reaper, by being dropped, that nothing more will be written.
#[derive(Debug)]
struct Guard {
    _done: oneshot::Sender<()>,
}

pub(crate) async fn start(logger: &Logger, owner: &Owner) -> Result<Inputs, LoggerError> {
    let failed = |source| LoggerError::Spawn { binary: logger.binary.clone(), source };
    let (stdout, their_stdout) = outward().map_err(failed)?;
    let (stderr, their_stderr) = outward().map_err(failed)?;
    let (ready, their_ready) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let mut ready = pipe::Receiver::from_owned_fd(ready).map_err(failed)?;

    let mut command = Command::new(&logger.binary);
    command
        .args(&logger.args)
        .env("CONTAINER_ID", &owner.container)
        .env("CONTAINER_NAMESPACE", &owner.namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mapping = |parent_fd, child_fd| FdMapping { parent_fd, child_fd };
    command
        .as_std_mut()
        .fd_mappings(vec![mapping(their_stdout, 3), mapping(their_stderr, 4), mapping(their_ready, 5)])
        .map_err(|collision| failed(io::Error::other(collision)))?;
    let child = command.spawn().map_err(failed)?;
    // The logger's descriptors live in the command; ours must be closed for its end to be seen.
    drop(command);

    let (done, closed) = oneshot::channel();
    tokio::spawn(reap(child, closed));
    // A byte or the end, as containerd takes both. On failure the dropped inputs end the logger.
    match tokio::time::timeout(PATIENCE, ready.read(&mut [0])).await {
        Ok(_) => {}
        Err(_) => return Err(LoggerError::NotReady { binary: logger.binary.clone() }),
    }
    let guard = Arc::new(Guard { _done: done });
    Ok(Inputs {
        stdout: LoggerInput { pipe: stdout, _guard: Arc::clone(&guard) },
        stderr: LoggerInput { pipe: stderr, _guard: guard },
    })
}

fn outward() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((pipe::Sender::from_owned_fd(ours)?, theirs))
}

/// Waits for the logger; kills it when it outlives its input for too long.
async fn reap(mut child: Child, closed: oneshot::Receiver<()>) {
    tokio::select! {
        _ = child.wait() => return,
        _ = closed => {}
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        tracing::warn!("a logger does not end after its input has: killing it");
        // It may have ended just now.
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_logger_gets_both_streams_and_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let script = format!(
            "exec 5>&-; {{ echo $CONTAINER_NAMESPACE/$CONTAINER_ID $0; cat <&3; cat <&4; }} > {0}.tmp; mv {0}.tmp {0}",
            out.display()
        );
        let logger = Logger { binary: "/bin/sh".into(), args: vec!["-c".into(), script.into(), "arg".into()] };
        let owner = Owner { namespace: "k8s.io".into(), container: "web".into() };
        let Inputs { mut stdout, mut stderr } = start(&logger, &owner).await.unwrap();
        stdout.pipe.write_all(b"out\n").await.unwrap();
        stderr.pipe.write_all(b"err\n").await.unwrap();
        drop((stdout, stderr));
        while !out.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(std::fs::read_to_string(out).unwrap(), "k8s.io/web arg\nout\nerr\n");
    }

    #[tokio::test]
    async fn a_missing_logger_is_named() {
        let logger = Logger { binary: "/nonexistent/logger".into(), args: Vec::new() };
        let owner = Owner { namespace: "default".into(), container: "web".into() };
        let error = start(&logger, &owner).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/logger"), "{error}");
    }
}
