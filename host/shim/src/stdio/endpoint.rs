//! Opening what the names of standard streams mean, before the process is made.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::OFlags;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::cri_log::{CriLog, Splitter};
use super::destination::{Destination, InvalidDestination};
use super::fifo::{self, Input, Lifetime};
use super::logger::{self, Inputs, LoggerError, LoggerInput};

/// Whose streams they are, for loggers.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) namespace: String,
    pub(crate) container: String,
}

/// Streams as a request names them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Invalid(#[from] InvalidDestination),
    #[error("{stream} {}: {source}", .path.display())]
    Io { stream: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Logger(#[from] LoggerError),
    #[error("stdin {}: only a FIFO can be read", .path.display())]
    NotReadable { path: PathBuf },
    #[error("{stream} {name:?}: it must be the path of a FIFO whose other end you hold open")]
    NotAFifo { stream: &'static str, name: String },
    #[error("stderr {name:?}: a terminal has none, its output is all stdout; leave it empty")]
    TerminalStderr { name: String },
}

/// The host's ends of a process's streams; `None` is `/dev/null`.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    pub(crate) stdin: Option<Source>,
    pub(crate) stdout: Option<Sink>,
    pub(crate) stderr: Option<Sink>,
}

/// Where standard input comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Fifo(Input),
    /// Whoever attaches.
    Attached,
}

/// Where one output stream's bytes go.
#[derive(Debug)]
pub(crate) enum Sink {
    Fifo(pipe::Sender),
    File(Arc<File>),
    CriLog {
        log: Arc<CriLog>,
        splitter: Splitter,
    },
    Logger(LoggerInput),
    /// Nobody wants them any more; the process must not notice.
    Discard,
}

impl Endpoints {
    pub(crate) async fn open(request: &Request, owner: &Owner, lifetime: Lifetime) -> Result<Self, OpenError> {
        let stdin = Destination::parse("stdin", &request.stdin)?;
        let stdout = Destination::parse("stdout", &request.stdout)?;
        let stderr = Destination::parse("stderr", &request.stderr)?;
        if request.terminal && stderr.is_some() {
            return Err(OpenError::TerminalStderr { name: request.stderr.clone() });
        }
        let stdin = match stdin {
            None => None,
            Some(Destination::Fifo(path)) => {
                let input = fifo::open_input(&path, lifetime).map_err(|source| io_error("stdin", path, source))?;
                Some(Source::Fifo(input))
            }
            Some(Destination::Attached) => Some(Source::Attached),
            Some(Destination::File(path) | Destination::CriLog(path)) => return Err(OpenError::NotReadable { path }),
            Some(Destination::Logger(logger)) => return Err(OpenError::NotReadable { path: logger.binary }),
        };
        // One logger or log serves both streams when both name it.
        if stdout == stderr {
            match stdout {
                Some(Destination::Logger(logger)) => {
                    let Inputs { stdout, stderr } = logger::start(&logger, owner).await?;
                    return Ok(Self { stdin, stdout: Some(Sink::Logger(stdout)), stderr: Some(Sink::Logger(stderr)) });
                }
                Some(Destination::CriLog(path)) => {
                    let log = open_log("stdout", &path)?;
                    let stdout = Sink::cri_log(Arc::clone(&log), "stdout");
                    return Ok(Self { stdin, stdout: Some(stdout), stderr: Some(Sink::cri_log(log, "stderr")) });
                }
                _ => {}
            }
        }
        let stdout = open_sink("stdout", stdout, owner, lifetime).await?;
        let stderr = open_sink("stderr", stderr, owner, lifetime).await?;
        Ok(Self { stdin, stdout, stderr })
    }

    /// The log files among them, for reopening.
    pub(crate) fn logs(&self) -> Vec<Arc<CriLog>> {
        let log = |sink: &Option<Sink>| match sink {
            Some(Sink::CriLog { log, .. }) => Some(Arc::clone(log)),
            _ => None,
        };
        let (stdout, stderr) = (log(&self.stdout), log(&self.stderr));
        let one = matches!((&stdout, &stderr), (Some(stdout), Some(stderr)) if Arc::ptr_eq(stdout, stderr));
        stdout.into_iter().chain(stderr.filter(|_| !one)).collect()
    }
}

async fn open_sink(
    stream: &'static str,
    destination: Option<Destination>,
    owner: &Owner,
    lifetime: Lifetime,
) -> Result<Option<Sink>, OpenError> {
    Ok(match destination {
        None => None,
        Some(Destination::Fifo(path)) => {
            let pipe = fifo::open_output(&path, lifetime).map_err(|source| io_error(stream, path, source))?;
            Some(Sink::Fifo(pipe))
        }
        Some(Destination::File(path)) => {
            let file = open_file(&path).map_err(|source| io_error(stream, path, source))?;
            Some(Sink::File(Arc::new(file)))
        }
        Some(Destination::CriLog(path)) => Some(Sink::cri_log(open_log(stream, &path)?, stream)),
        Some(Destination::Logger(logger)) => {
            let Inputs { stdout, stderr } = logger::start(&logger, owner).await?;
            Some(Sink::Logger(if stream == "stderr" { stderr } else { stdout }))
        }
        Some(Destination::Attached) => Some(Sink::Discard),
    })
}

pub(super) fn io_error(stream: &'static str, path: PathBuf, source: io::Error) -> OpenError {
    OpenError::Io { stream, path, source }
}

fn open_log(stream: &'static str, path: &Path) -> Result<Arc<CriLog>, OpenError> {
    CriLog::open(path).map(Arc::new).map_err(|source| io_error(stream, path.to_owned(), source))
}

fn open_file(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Not blocking: a FIFO here would otherwise hold the shim until it has a reader.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    OpenOptions::new().create(true).append(true).mode(0o644).custom_flags(flags).open(path)
}

impl Sink {
    fn cri_log(log: Arc<CriLog>, stream: &'static str) -> Self {
        Self::CriLog { log, splitter: Splitter::new(stream) }
    }

    /// Writes all of `bytes`, however long the other side takes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Fifo(pipe) => pipe.write_all(bytes).await,
            Self::Logger(input) => input.pipe.write_all(bytes).await,
            Self::File(file) => {
                let (file, bytes) = (Arc::clone(file), bytes.to_vec());
                blocking(move || (&*file).write_all(&bytes)).await
            }
            Self::CriLog { log, splitter } => {
                let mut lines = Vec::new();
                splitter.push(bytes, SystemTime::now(), &mut lines);
                append(log, lines).await
            }
            Self::Discard => Ok(()),
        }
    }

    /// The stream has ended.
    pub(crate) async fn finish(mut self) -> io::Result<()> {
        if let Self::CriLog { log, splitter } = &mut self {
            let mut lines = Vec::new();
            splitter.finish(SystemTime::now(), &mut lines);
            append(log, lines).await?;
        }
        Ok(())
    }
}

async fn append(log: &Arc<CriLog>, lines: Vec<u8>) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let log = Arc::clone(log);
    blocking(move || log.append(&lines)).await
}

/// Files may be on disks that make a writer wait.
async fn blocking(write: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}
