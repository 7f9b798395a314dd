//! Starting a detached supervisor, and what it tells its parent over a pipe until all containers have started.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::directory::PodDir;

/// One line of the pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Report {
    /// The pod is up and the containers are this supervisor's.
    Claimed,
    /// Worth telling, nothing to worry about.
    Notice { text: String },
    /// Every container has been started.
    Ready,
    /// It gave up. The pod's VM is gone; `keep` when its record and logs are worth looking at.
    Failed { text: String, hint: Option<String>, exit_code: u8, keep: bool },
}

/// The parent's end of the pipe.
#[derive(Debug)]
pub(crate) struct Reports {
    lines: Lines<BufReader<ChildStdout>>,
    /// Not killed when dropped: it outlives us.
    _child: Child,
}

/// Starts `husk supervise` in a session of its own. `containers` empty = all of the pod.
pub(crate) fn spawn(dir: &PodDir, pod: &str, containers: &[String]) -> anyhow::Result<Reports> {
    let log = File::options().append(true).create(true).mode(0o600).open(dir.supervisor_log());
    let log = log.context("cannot open the supervisor's log")?;
    let exe = std::env::current_exe().context("cannot find husk's own executable")?;
    let mut command = Command::new(exe);
    command.arg("supervise").arg(pod).args(containers).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().context("cannot start the pod's supervisor")?;
    let stdout = child.stdout.take().context("the pod's supervisor has no pipe")?;
    Ok(Reports { lines: BufReader::new(stdout).lines(), _child: child })
}

impl Reports {
    /// The next report; `None` when the supervisor has said its last word or died.
    pub(crate) async fn next(&mut self) -> Option<Report> {
        loop {
            let line = self.lines.next_line().await.ok().flatten()?;
            if let Ok(report) = serde_json::from_str(&line) {
                return Some(report);
            }
        }
    }

    /// Waits until the supervisor has taken over, or gave up.
    pub(crate) async fn claimed(&mut self) {
        while let Some(report) = self.next().await {
            if report == Report::Claimed {
                return;
            }
        }
    }
}

/// The supervisor's end of the pipe: its standard output.
#[derive(Debug)]
pub(crate) struct Reporter {
    out: std::sync::Mutex<Option<File>>,
}

impl Reporter {
    /// Takes standard output away from everybody else.
    pub(crate) fn from_stdout() -> std::io::Result<Self> {
        let out = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(Self { out: std::sync::Mutex::new(Some(out.into())) })
    }

    /// A parent that went away is no reason to stop.
    pub(crate) fn send(&self, report: &Report) {
        use std::io::Write as _;
        let Ok(mut out) = self.out.lock() else { return };
        let sent = out.as_mut().zip(serde_json::to_string(report).ok()).map(|(out, line)| writeln!(out, "{line}"));
        if matches!(sent, Some(Err(_))) {
            *out = None;
        }
    }

    /// Lets the parent go: it sees the end of the pipe.
    pub(crate) fn close(&self) {
        if let Ok(mut out) = self.out.lock() {
            *out = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_pipe() {
        for report in [
            Report::Ready,
            Report::Notice { text: "init container war ended".into() },
            Report::Failed { text: "x".into(), hint: Some("y".into()), exit_code: 127, keep: true },
        ] {
            let line = serde_json::to_string(&report).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
    }
}
