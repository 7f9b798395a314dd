//! Running a plugin: specification 1.1, section 2.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr};

/// Of a plugin's standard output, in bytes; real results have a few hundred.
pub(crate) const MAX_OUTPUT: usize = 1 << 20;

/// Of a plugin's standard error, in bytes: the end of it is kept for the error.
const MAX_STDERR: usize = 1024;

/// How long an exited plugin's last words are waited for: they are in the pipe already, unless a child of it holds that
/// open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Version,
    Status,
}

/// A plugin that did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("CNI plugin {plugin} of network {network}: {command} failed: {failure}")]
pub struct PluginError {
    pub plugin: String,
    pub network: String,
    pub command: Command,
    #[source]
    pub failure: PluginFailure,
}

#[derive(Debug, thiserror::Error)]
pub enum PluginFailure {
    #[error("it is not in {dirs}; install it (Debian: containernetworking-plugins) or name its directory")]
    NotFound { dirs: String },
    #[error("{} cannot be started: {source}; is it a program of this machine?", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("it says: {message} (code {code}{})", mend(*code))]
    Refused { code: u64, message: String },
    #[error("it ended with {status} and no CNI error; it wrote {text:?}")]
    Exited { status: ExitStatus, text: String },
    #[error("it did not end within {deadline:?} and was killed; it wrote {text:?}")]
    Hung { deadline: Duration, text: String },
    #[error("it wrote more than {limit} bytes and was killed")]
    TooMuch { limit: usize },
    #[error("its answer {text:?} is not JSON of the specified form: {source}")]
    Garbage { text: String, source: serde_json::Error },
    #[error("cannot talk to it: {0}")]
    Io(#[source] io::Error),
}

/// Section 5 of the specification, "Error".
fn mend(code: u64) -> &'static str {
    match code {
        1 => ": change the network's cniVersion",
        2 | 7 => ": correct the network's configuration",
        11 => ": try again later",
        50 | 51 => ": the network takes no new containers now",
        _ => "",
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Version => "VERSION",
            Self::Status => "STATUS",
        })
    }
}

/// Where plugins are and how long they may take.
#[derive(Clone, Debug)]
pub(crate) struct Plugins {
    pub(crate) dirs: Vec<PathBuf>,
    pub(crate) deadline: Duration,
}

/// One run of a plugin.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) network: &'a str,
    pub(crate) plugin: &'a str,
    pub(crate) command: Command,
    /// `CNI_CONTAINERID` and its like.
    pub(crate) env: &'a [(&'static str, OsString)],
    pub(crate) stdin: &'a [u8],
}

impl Plugins {
    /// What the plugin wrote to its standard output. A plugin that is not done when the future is dropped is killed.
    pub(crate) async fn run(&self, run: Run<'_>) -> Result<Vec<u8>, PluginError> {
        self.answer(&run).await.map_err(|failure| PluginError {
            plugin: run.plugin.to_owned(),
            network: run.network.to_owned(),
            command: run.command,
            failure,
        })
    }

    async fn answer(&self, run: &Run<'_>) -> Result<Vec<u8>, PluginFailure> {
        let path = self.find(run.plugin)?;
        let mut child = self.spawn(&path, run).map_err(|source| PluginFailure::Start { path, source })?;
        // Declared after the child, thus dropped before it: until then the group's id cannot be another's.
        let group = Group::of(&child);
        let mut words = LastWords { stderr: child.stderr.take(), text: Vec::new() };
        let ended = tokio::select! {
            ended = tokio::time::timeout(self.deadline, talk(&mut child, run.stdin)) => ended,
            never = words.listen_on() => match never {},
        };
        let (status, output) = match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(PluginFailure::Hung { deadline: self.deadline, text: printable(&words.text) }),
        };
        group.ended();
        if status.success() {
            return Ok(output);
        }
        if let Some(refusal) = refusal(&output) {
            return Err(refusal);
        }
        let _ = tokio::time::timeout(LAST_WORDS, words.listen()).await;
        let text = if words.text.is_empty() { &output } else { &words.text };
        Err(PluginFailure::Exited { status, text: printable(text) })
    }

    pub(crate) fn find(&self, plugin: &str) -> Result<PathBuf, PluginFailure> {
        let candidate = self.dirs.iter().map(|dir| dir.join(plugin)).find(|path| path.is_file());
        candidate.ok_or_else(|| PluginFailure::NotFound { dirs: self.path().to_string_lossy().replace(':', ", ") })
    }

    /// `CNI_PATH`: plugins start others, such as those for address management.
    fn path(&self) -> OsString {
        self.dirs.iter().map(|dir| dir.as_os_str()).collect::<Vec<_>>().join(OsStr::new(":"))
    }

    fn spawn(&self, path: &Path, run: &Run<'_>) -> io::Result<Child> {
        // The environment is inherited besides: plugins want PATH, and an administrator's own variables.
        tokio::process::Command::new(path)
            .env("CNI_COMMAND", run.command.to_string())
            .env("CNI_PATH", self.path())
            .envs(run.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// The plugin's process group, killed when this is dropped: a shell script's children hold its pipes open.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Writes and reads at once, lest both sides wait for the other; reaps the process only after that.
async fn talk(child: &mut Child, input: &[u8]) -> Result<(ExitStatus, Vec<u8>), PluginFailure> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async move {
        let Some(mut stdin) = stdin else { return Ok(()) };
        match stdin.write_all(input).await {
            // A plugin need not read what it does not want to know.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(PluginFailure::Io),
        }
    };
    let read = async move {
        let Some(stdout) = stdout else { return Ok(Vec::new()) };
        read_bounded(stdout).await
    };
    let ((), output) = tokio::try_join!(write, read)?;
    Ok((child.wait().await.map_err(PluginFailure::Io)?, output))
}

async fn read_bounded(stdout: impl AsyncRead + Unpin) -> Result<Vec<u8>, PluginFailure> {
    let mut output = Vec::new();
    let limit = u64::try_from(MAX_OUTPUT).unwrap_or(u64::MAX);
    stdout.take(limit.saturating_add(1)).read_to_end(&mut output).await.map_err(PluginFailure::Io)?;
    if output.len() > MAX_OUTPUT {
        return Err(PluginFailure::TooMuch { limit: MAX_OUTPUT });
    }
    Ok(output)
}

/// The end of what a plugin writes to its standard error.
struct LastWords {
    stderr: Option<ChildStderr>,
    text: Vec<u8>,
}

impl LastWords {
    /// Until its end.
    async fn listen(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        while let Ok(1..) = stderr.read_buf(&mut self.text).await {
            let surplus = self.text.len().saturating_sub(MAX_STDERR);
            self.text.drain(..surplus);
        }
        self.stderr = None;
    }

    /// As long as somebody polls, so that the plugin never waits for a reader.
    async fn listen_on(&mut self) -> std::convert::Infallible {
        self.listen().await;
        std::future::pending().await
    }
}

/// Section 5 of the specification, "Error".
#[derive(Deserialize)]
struct ErrorAnswer {
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

fn refusal(output: &[u8]) -> Option<PluginFailure> {
    let ErrorAnswer { code, msg, details } = serde_json::from_slice(output).ok()?;
    let message = if details.is_empty() { msg } else { format!("{msg}: {details}") };
    Some(PluginFailure::Refused { code, message: printable(message.as_bytes()) })
}

/// A plugin's words for a message: bounded, on one line, without control characters.
pub(crate) fn printable(text: &[u8]) -> String {
    const MAX: usize = 1024;
    let text = String::from_utf8_lossy(text);
    let words = text.split(|c: char| c.is_control() || c == ' ').filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(MAX).collect();
    if short.len() < line.len() {
        short.push_str("...");
    }
    short
}
