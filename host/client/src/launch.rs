//! Running the shim's binary the way containerd does.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::bootstrap::Answer;
use crate::dirs::Dirs;
use crate::error::LaunchError;
use crate::shim::Shim;

/// Name of the shim's binary, which containerd derives from the runtime type `io.containerd.husk.v2`.
const BINARY: &str = "containerd-shim-husk-v2";
/// `start` only makes directories and a socket; `delete` ends a VM and removes files. Both bounded by far less.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// How shims are started.
#[derive(Clone, Debug)]
pub struct ShimLauncher {
    /// The shim's binary.
    pub binary: PathBuf,
    /// containerd's word for a set of ids that do not collide with another set.
    pub namespace: String,
    /// Handed down as `HUSK_RUN` and `HUSK_ROOT`.
    pub dirs: Dirs,
    /// Further environment of the shim.
    pub env: Vec<(OsString, OsString)>,
    /// Makes the shim's log verbose.
    pub debug: bool,
}

impl ShimLauncher {
    /// Finds the binary: `HUSK_SHIM`, beside the running executable, or in `PATH`.
    pub fn find(namespace: &str, dirs: Dirs) -> Result<Self, LaunchError> {
        Ok(Self { binary: find_binary()?, namespace: namespace.into(), dirs, env: Vec::new(), debug: false })
    }

    /// Starts the shim of a pod, which then waits for the sandbox's Create, and connects to it.
    ///
    /// `bundle` is the sandbox's bundle: its `config.json` tells whether this is a pod of several containers.
    pub async fn launch(&self, pod: &str, bundle: &Path) -> Result<Shim, LaunchError> {
        // Refused here, before a process is started for it.
        self.dirs.task_socket(&self.namespace, pod)?;
        let stdout = self.run(pod, bundle, "start").await?;
        let text = String::from_utf8_lossy(&stdout);
        let answer: Option<Answer> = serde_json::from_str(text.trim()).ok();
        let Some(socket) = answer.as_ref().and_then(Answer::socket) else {
            return Err(LaunchError::Answer { pod: pod.into(), answer: text.trim().into() });
        };
        Ok(Shim::connect_to(pod, socket.into()).await?)
    }

    /// Cleans up what a shim that died left behind: its VM, cgroup, sockets, scratch disk. Idempotent.
    pub async fn delete_dead(&self, pod: &str, bundle: &Path) -> Result<(), LaunchError> {
        self.dirs.task_socket(&self.namespace, pod)?;
        // The answer is containerd's DeleteResponse, which says nothing that is not known.
        self.run(pod, bundle, "delete").await.map(drop)
    }

    async fn run(&self, pod: &str, bundle: &Path, action: &str) -> Result<Vec<u8>, LaunchError> {
        let mut command = Command::new(&self.binary);
        command.arg("-namespace").arg(&self.namespace).arg("-id").arg(pod).arg("-bundle").arg(bundle);
        if self.debug {
            command.arg("-debug");
        }
        // `delete` must work when the bundle has been removed already.
        command.arg(action).current_dir(if bundle.is_dir() { bundle } else { Path::new("/") });
        command.env("HUSK_RUN", &self.dirs.run).env("HUSK_ROOT", &self.dirs.root);
        // Without containerd's addresses nobody wants events; a caller's own must not leak in.
        command.env_remove("TTRPC_ADDRESS").env_remove("GRPC_ADDRESS");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = match tokio::time::timeout(TIME_LIMIT, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(source)) => return Err(LaunchError::Spawn { binary: self.binary.clone(), source }),
            Err(_) => return Err(LaunchError::TimedOut { pod: pod.into(), seconds: TIME_LIMIT.as_secs() }),
        };
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LaunchError::Failed { pod: pod.into(), status: output.status, message })
    }
}

fn find_binary() -> Result<PathBuf, LaunchError> {
    if let Some(path) = env::var_os("HUSK_SHIM").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let beside = env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_path_buf))
        .unwrap_or_else(|| PathBuf::from("/usr/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(beside.clone())
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(BINARY))
        .find(|candidate| candidate.is_file())
        .ok_or(LaunchError::NotFound { beside })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn launcher(directory: &Path, script: &str) -> ShimLauncher {
        let binary = directory.join(BINARY);
        // Written under another name first, so that no running thread's fork holds it open for writing at exec.
        std::fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        ShimLauncher {
            binary,
            namespace: "default".into(),
            dirs: Dirs { run: directory.join("run"), root: directory.join("root") },
            env: Vec::new(),
            debug: false,
        }
    }

    #[tokio::test]
    async fn a_shim_that_fails_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let launcher = launcher(directory.path(), "echo 'no kernel' >&2; exit 1");
        match launcher.launch("web", directory.path()).await {
            Err(LaunchError::Failed { message, .. }) => assert_eq!(message, "no kernel"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_address_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let launcher = launcher(directory.path(), "echo unix:///tmp/x");
        assert!(matches!(launcher.launch("web", directory.path()).await, Err(LaunchError::Answer { .. })));
    }

    #[tokio::test]
    async fn a_pod_id_with_a_slash_never_reaches_the_shim() {
        let directory = tempfile::tempdir().unwrap();
        let launcher = launcher(directory.path(), "exit 3");
        assert!(matches!(launcher.launch("../web", directory.path()).await, Err(LaunchError::Id(_))));
    }

    #[tokio::test]
    async fn an_answer_whose_socket_is_dead_is_a_connect_error() {
        let directory = tempfile::tempdir().unwrap();
        let launcher =
            launcher(directory.path(), r#"echo '{"version":3,"address":"unix:///nonexistent/s","protocol":"ttrpc"}'"#);
        assert!(matches!(launcher.launch("web", directory.path()).await, Err(LaunchError::Connect(_))));
    }
}
