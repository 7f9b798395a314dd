//! One run of one container: created, started, awaited, its end collected.

use husk_client::{ATTACH, CreateTask, Exit, RootfsImage, Shim, Stdio, TaskError};
use jiff::Timestamp;
use thiserror::Error;

use super::directory::PodDir;
use super::record::ContainerRecord;
use crate::error::exit;

/// Exit code of a container whose VM went away under it, as after SIGKILL.
pub(crate) const KILLED: u32 = 137;

/// Why a container does not run.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("container {name} cannot be started: {cause}")]
    NotFound { name: String, cause: String },
    #[error("container {name} cannot be started: {cause}")]
    CannotExecute { name: String, cause: String },
    #[error("container {name} cannot be {step}: {cause}")]
    Refused { name: String, step: &'static str, cause: TaskError },
}

impl StartError {
    /// As podman numbers them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => exit::NOT_FOUND,
            Self::CannotExecute { .. } => exit::CANNOT_EXECUTE,
            Self::Refused { .. } => exit::HUSK,
        }
    }
}

/// How a container's run ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) code: u32,
    pub(crate) oom_kills: u64,
    pub(crate) at: Timestamp,
    /// When it was not the container itself that ended.
    pub(crate) message: Option<String>,
}

/// Creates the container's task; its first process waits for [`start`].
pub(crate) async fn create(
    shim: &Shim,
    dir: &PodDir,
    container: &ContainerRecord,
    stdio: Stdio,
) -> Result<(), StartError> {
    let task = CreateTask {
        id: container.id.clone(),
        bundle: dir.bundle(&container.id),
        rootfs: vec![RootfsImage { path: container.rootfs.clone(), devices: container.rootfs_devices.clone() }],
        stdio,
    };
    shim.create(task).await.map(drop).map_err(|cause| start_error(container, "created", cause))
}

/// Lets the container run and answers its pid. A container that cannot be started is deleted again.
pub(crate) async fn start(shim: &Shim, container: &ContainerRecord) -> Result<u32, StartError> {
    match shim.start(&container.id).await {
        Ok(pid) => Ok(pid),
        Err(cause) => {
            // It never ran; when even this fails the pod's end removes it.
            let _ = shim.delete(&container.id, None).await;
            Err(start_error(container, "started", cause))
        }
    }
}

fn start_error(container: &ContainerRecord, step: &'static str, cause: TaskError) -> StartError {
    let name = container.name.clone();
    match exec_failure(&cause.to_string()) {
        Some((ExecFailure::NotFound, cause)) => StartError::NotFound { name, cause },
        Some((ExecFailure::CannotExecute, cause)) => StartError::CannotExecute { name, cause },
        None => StartError::Refused { name, step, cause },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecFailure {
    NotFound,
    CannotExecute,
}

/// Whether a refusal is about the command itself: the guest agent then says `exec "COMMAND": REASON`, which is
/// answered without what those between put around it.
pub(crate) fn exec_failure(text: &str) -> Option<(ExecFailure, String)> {
    let failure = text.find("exec \"").and_then(|at| text.get(at..))?;
    let cause = failure.trim_end_matches(" (FailedPrecondition)").to_owned();
    let has = |reasons: &[&str]| reasons.iter().any(|reason| failure.contains(&format!("\": {reason}")));
    if has(&["not found"]) {
        Some((ExecFailure::NotFound, cause))
    } else if has(&["permission denied", "exec format error", "is a directory", "not a directory"]) {
        Some((ExecFailure::CannotExecute, cause))
    } else {
        None
    }
}

/// Waits for the end of the container and learns what it died of.
pub(crate) async fn wait(shim: &Shim, id: &str) -> Ended {
    match shim.wait(id, None).await {
        Ok(Exit { code, at }) => {
            let at = Timestamp::try_from(at).ok().filter(|at| at.as_second() > 0).unwrap_or_else(Timestamp::now);
            let inspect = shim.inspect().await.ok();
            let own = inspect.as_ref().and_then(|i| i.containers.iter().find(|c| c.id == id));
            let message =
                inspect.as_ref().and_then(|i| i.vm_ended.clone()).map(|why| format!("the pod's VM ended: {why}"));
            Ended { code, oom_kills: own.map_or(0, |c| c.oom_kills), at, message }
        }
        Err(cause) => Ended { code: KILLED, oom_kills: 0, at: Timestamp::now(), message: Some(cause.to_string()) },
    }
}

/// Streams of a container that nobody holds: its output goes to its log; its input, if wanted, stays open for whoever
/// attaches.
pub(crate) fn detached_streams(dir: &PodDir, container: &ContainerRecord) -> Stdio {
    let log = format!("cri-log://{}", dir.log(&container.short_name).display());
    Stdio {
        stdin: container.stdin.then(|| ATTACH.to_owned()),
        stdout: Some(log.clone()),
        stderr: (!container.terminal).then_some(log),
        terminal: container.terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_execve_is_told_from_other_refusals() {
        for (text, expected) in [
            (r#"container c: exec "nope": not found in PATH (/bin)"#, Some(ExecFailure::NotFound)),
            (r#"exec "/x": not found (the file, or the interpreter that it names)"#, Some(ExecFailure::NotFound)),
            (r#"exec "/etc": permission denied"#, Some(ExecFailure::CannotExecute)),
            (r#"exec "/x": exec format error (a binary of another architecture"#, Some(ExecFailure::CannotExecute)),
            (r#"exec "a": not running"#, None),
            ("volume not found", None),
        ] {
            assert_eq!(exec_failure(text).map(|(failure, _)| failure), expected, "{text}");
        }
        let (_, cause) = exec_failure(r#"task c: refused: exec "x": permission denied (FailedPrecondition)"#).unwrap();
        assert_eq!(cause, r#"exec "x": permission denied"#);
    }
}
