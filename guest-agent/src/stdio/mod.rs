//! Standard streams of processes: which token stands for which pipe or terminal, and who is attached.
//!
//! A process writes into a pipe (never a socket) or a pty, whose other end waits here until a connection with the
//! stream's token attaches; `connection` then moves the bytes. Output outlives its process: it stays readable until it
//! has been read to its end, or until the container is removed. It ends when every process holding the stream has
//! closed it, grandchildren included. A connection that is lost leaves the stream behind, and it may be attached anew.

pub mod connection;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use husk_agent_api::v1;
use rustix::fs::{Gid, Uid};
use rustix::pipe::PipeFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::watch;

use crate::error::{Context, Error, Result};
use crate::sys::watch as watch_fd;

/// Most streams that may exist at once.
const MAX_STREAMS: usize = 4096;

/// Our end of a pipe or pty.
pub type End = Arc<AsyncFd<OwnedFd>>;

/// What a stream carries, seen from the host.
#[derive(Debug, Clone)]
pub enum Direction {
    /// From the process.
    Output(End),
    /// To the process. A terminal has no end of file of its own: closing it does nothing.
    Input {
        /// Where to write.
        end: End,
        /// Whether it is a pty.
        terminal: bool,
    },
    /// Both ways, with whoever connects to a socket of the guest.
    Socket(Arc<UnixListener>),
    /// Both ways, with who listens on a port; taken by the one connection that gets it.
    Port(Arc<Mutex<Option<TcpStream>>>),
}

/// What an attached connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    Open,
    /// Write what has arrived, then close.
    Close,
}

#[derive(Debug)]
struct Entry {
    container: String,
    direction: Direction,
    attached: bool,
    /// Dropped with the entry, which tells an attached connection that the stream is gone.
    wish: watch::Sender<Wish>,
}

impl Entry {
    fn new(owner: &str, direction: Direction) -> Self {
        Self { container: owner.to_owned(), direction, attached: false, wish: watch::Sender::new(Wish::Open) }
    }
}

/// The streams of all processes, by token.
#[derive(Debug, Default)]
pub struct Streams {
    table: Mutex<HashMap<u64, Entry>>,
}

/// An exclusive hold on a stream, for one connection.
#[derive(Debug)]
pub struct Attachment {
    streams: Arc<Streams>,
    token: u64,
    direction: Direction,
    wish: watch::Receiver<Wish>,
}

impl Streams {
    /// An empty table.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the tokens of a request are unequal, unused, and that there is room for them.
    pub fn check(&self, stdio: &v1::Stdio) -> Result<()> {
        let table = self.table();
        let tokens: Vec<u64> =
            [stdio.stdin, stdio.stdout, stdio.stderr].into_iter().filter(|token| *token != 0).collect();
        for (at, token) in tokens.iter().enumerate() {
            if table.contains_key(token) || tokens.iter().skip(at.saturating_add(1)).any(|other| other == token) {
                return Err(Error::invalid("process.stdio: a token is used twice"));
            }
        }
        if table.len().saturating_add(tokens.len()) > MAX_STREAMS {
            return Err(Error::Exhausted(format!(
                "{MAX_STREAMS} streams exist; attach to those of ended processes, or remove their containers"
            )));
        }
        Ok(())
    }

    /// Adds a socket; false when the token is taken already, or there are too many streams.
    pub fn add_socket(&self, owner: &str, token: u64, listener: UnixListener) -> bool {
        self.add_checked(owner, token, Direction::Socket(Arc::new(listener)))
    }

    /// The same for a connection to a port.
    pub fn add_port(&self, owner: &str, token: u64, connection: TcpStream) -> bool {
        self.add_checked(owner, token, Direction::Port(Arc::new(Mutex::new(Some(connection)))))
    }

    fn add_checked(&self, owner: &str, token: u64, direction: Direction) -> bool {
        let mut table = self.table();
        let room = token != 0 && !table.contains_key(&token) && table.len() < MAX_STREAMS;
        if room {
            table.insert(token, Entry::new(owner, direction));
        }
        room
    }

    /// Adds a stream. Token 0 stands for none.
    pub fn add(&self, container: &str, token: u64, direction: Direction) {
        if token != 0 {
            self.table().insert(token, Entry::new(container, direction));
        }
    }

    /// Takes hold of an unattached stream.
    pub fn attach(self: &Arc<Self>, token: u64) -> Option<Attachment> {
        let mut table = self.table();
        let entry = table.get_mut(&token).filter(|entry| !entry.attached)?;
        entry.attached = true;
        let (direction, wish) = (entry.direction.clone(), entry.wish.subscribe());
        drop(table);
        Some(Attachment { streams: Arc::clone(self), token, direction, wish })
    }

    /// Ends an input: what has arrived is still written. Nothing for an unknown token or a terminal.
    pub fn close_input(&self, token: u64) {
        let mut table = self.table();
        match table.get(&token) {
            Some(Entry { direction: Direction::Input { terminal: false, .. }, attached: true, wish, .. }) => {
                wish.send_replace(Wish::Close);
            }
            Some(Entry { direction: Direction::Input { terminal: false, .. }, .. }) => {
                table.remove(&token);
            }
            _ => {}
        }
    }

    /// Closes a connection to a port, attached or, with `unclaimed`, only if it is not. Other streams are left alone.
    pub fn remove_port(&self, token: u64, unclaimed: bool) {
        let mut table = self.table();
        if let Some(Entry { direction: Direction::Port(_), attached, .. }) = table.get(&token)
            && !(unclaimed && *attached)
        {
            table.remove(&token);
        }
    }

    /// Forgets a stream.
    pub fn remove(&self, token: u64) {
        self.table().remove(&token);
    }

    /// Forgets all streams of a container.
    pub fn remove_container(&self, container: &str) {
        self.table().retain(|_, entry| entry.container != container);
    }
}

impl Attachment {
    /// The stream is done with.
    fn finish(self) {
        self.streams.remove(self.token);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(entry) = self.streams.table().get_mut(&self.token) {
            entry.attached = false;
        }
    }
}

/// The process's ends of its streams; what is absent becomes /dev/null.
#[derive(Debug, Default)]
pub struct ProcessEnds {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// Pipes for the streams of `stdio`: the process's ends, and ours by token. They belong to the process's user, so that
/// it may open /dev/stdout anew.
pub fn pipes(stdio: &v1::Stdio, uid: u32, gid: u32) -> Result<(ProcessEnds, Vec<(u64, Direction)>)> {
    let mut ends = ProcessEnds::default();
    let mut ours = Vec::new();
    let pipe = || -> Result<(OwnedFd, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).on("pipe2", "standard stream")?;
        rustix::fs::fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .on("fchown", "standard stream")?;
        Ok((read, write))
    };
    if stdio.stdin != 0 {
        let (read, write) = pipe()?;
        ends.stdin = Some(read);
        let end = Arc::new(watch_fd(write, Interest::WRITABLE).on("epoll_ctl", "standard input")?);
        ours.push((stdio.stdin, Direction::Input { end, terminal: false }));
    }
    for (token, end) in [(stdio.stdout, &mut ends.stdout), (stdio.stderr, &mut ends.stderr)] {
        if token != 0 {
            let (read, write) = pipe()?;
            *end = Some(write);
            let read = Arc::new(watch_fd(read, Interest::READABLE).on("epoll_ctl", "standard output")?);
            ours.push((token, Direction::Output(read)));
        }
    }
    Ok((ends, ours))
}

/// The streams of a terminal, by token, from the master of its pty.
pub fn terminal(stdio: &v1::Stdio, master: OwnedFd) -> Result<(End, Vec<(u64, Direction)>)> {
    // What the launching process sent must be a terminal; anything else could block or confuse us.
    rustix::termios::tcgetwinsize(master.as_fd()).on("ioctl TIOCGWINSZ", "terminal")?;
    let end = Arc::new(watch_fd(master, Interest::READABLE | Interest::WRITABLE).on("epoll_ctl", "terminal")?);
    let ours = vec![
        (stdio.stdin, Direction::Input { end: Arc::clone(&end), terminal: true }),
        (stdio.stdout, Direction::Output(Arc::clone(&end))),
    ];
    Ok((end, ours))
}
