//! Named pipes between a caller and the shim, one per standard stream.
//!
//! A FIFO has two traps. Opening one end blocks until the other is opened, and a reader without any writer sees the end
//! of the file at once. So this end first opens each FIFO for reading *and* writing, which never blocks and keeps it
//! alive, and gives that up only when the shim has opened its own end, that is, once Create (for an exec Start, or Attach,
//! or Forward) has been answered.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::net::unix::pipe;

use crate::types::Stdio;

/// Which streams a caller wants to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    /// Ignored with a terminal.
    pub stderr: bool,
    pub terminal: bool,
}

/// FIFOs of one process, before its shim has opened them. Dropping removes them.
#[derive(Debug)]
pub struct Fifos {
    terminal: bool,
    stdin: Option<Fifo>,
    stdout: Option<Fifo>,
    stderr: Option<Fifo>,
}

/// The caller's ends. Dropping `stdin` ends the process's standard input; `stdout` and `stderr` end when the process,
/// and all that inherited its streams, have.
#[derive(Debug)]
pub struct FifoStreams {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
}

#[derive(Debug)]
struct Fifo {
    path: PathBuf,
    name: String,
    /// Both ends, so that neither side ever sees a FIFO without its other end.
    _keeper: fs::File,
}

impl Fifos {
    /// Makes the wanted FIFOs in `directory`, which exists, as `<prefix>-stdin` and so on.
    pub fn create(directory: &Path, prefix: &str, wanted: Wanted) -> io::Result<Self> {
        let make = |yes: bool, stream: &str| {
            yes.then(|| Fifo::create(directory.join(format!("{prefix}-{stream}")))).transpose()
        };
        Ok(Self {
            terminal: wanted.terminal,
            stdin: make(wanted.stdin, "stdin")?,
            stdout: make(wanted.stdout, "stdout")?,
            stderr: make(wanted.stderr && !wanted.terminal, "stderr")?,
        })
    }

    /// What to tell the shim.
    #[must_use]
    pub fn stdio(&self) -> Stdio {
        let name = |fifo: &Option<Fifo>| fifo.as_ref().map(|fifo| fifo.name.clone());
        Stdio {
            stdin: name(&self.stdin),
            stdout: name(&self.stdout),
            stderr: name(&self.stderr),
            terminal: self.terminal,
        }
    }

    /// The caller's ends, once the shim has answered Create (of a task), Start (of an exec), Attach or Forward. The names
    /// are removed: both sides have what they need.
    ///
    /// Must be called in a tokio runtime.
    pub fn into_streams(self) -> io::Result<FifoStreams> {
        let stdin = self.stdin.as_ref().map(|fifo| pipe::OpenOptions::new().open_sender(&fifo.path)).transpose()?;
        let receiver = |fifo: &Option<Fifo>| {
            fifo.as_ref().map(|fifo| pipe::OpenOptions::new().open_receiver(&fifo.path)).transpose()
        };
        Ok(FifoStreams { stdin, stdout: receiver(&self.stdout)?, stderr: receiver(&self.stderr)? })
    }
}

impl Fifo {
    fn create(path: PathBuf) -> io::Result<Self> {
        let name = path
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not UTF-8", path.display())))?;
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|errno| io::Error::new(io::Error::from(errno).kind(), format!("making FIFO {name}: {errno}")))?;
        match fs::File::options().read(true).write(true).open(&path) {
            Ok(keeper) => Ok(Self { path, name, _keeper: keeper }),
            Err(error) => {
                // Nobody else knows of it; the error that matters is the first.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        // Gone already when the directory was removed.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, terminal: false };

    #[tokio::test]
    async fn bytes_and_ends_pass_both_ways() {
        let directory = tempfile::tempdir().unwrap();
        let fifos = Fifos::create(directory.path(), "web", ALL).unwrap();
        let stdio = fifos.stdio();
        let mut theirs_in = pipe::OpenOptions::new().open_receiver(stdio.stdin.unwrap()).unwrap();
        let mut theirs_out = pipe::OpenOptions::new().open_sender(stdio.stdout.unwrap()).unwrap();
        let FifoStreams { stdin, stdout, .. } = fifos.into_streams().unwrap();

        let mut stdin = stdin.unwrap();
        stdin.write_all(b"in").await.unwrap();
        drop(stdin);
        let mut read = Vec::new();
        theirs_in.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"in");

        theirs_out.write_all(b"out").await.unwrap();
        drop(theirs_out);
        let mut read = Vec::new();
        stdout.unwrap().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"out");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn fifos_that_nobody_opened_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        drop(Fifos::create(directory.path(), "web", ALL).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_terminal_has_no_stderr() {
        let directory = tempfile::tempdir().unwrap();
        let fifos = Fifos::create(directory.path(), "web", Wanted { terminal: true, ..ALL }).unwrap();
        assert_eq!(fifos.stdio().stderr, None);
        assert!(fifos.stdio().terminal);
    }
}
