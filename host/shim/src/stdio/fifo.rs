//! Opening FIFOs that the other side has made.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::net::unix::pipe;

/// What the end of the other side means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// containerd opened the FIFO; it may restart and open it again. Only CloseIO ends standard input, and output waits
    /// for the next reader.
    Kept,
    /// A client opened it for itself. When it closes, standard input has ended and output is not wanted any more.
    Once,
}

/// The shim's end of standard input.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) receiver: pipe::Receiver,
    /// With [`Lifetime::Kept`], a writer that never writes: while it is open the FIFO does not end.
    pub(crate) keeper: Option<pipe::Sender>,
}

/// Opens for reading without waiting for a writer: reads wait for the first one.
pub(crate) fn open_input(path: &Path, lifetime: Lifetime) -> io::Result<Input> {
    let receiver = pipe::OpenOptions::new().open_receiver(path)?;
    let keeper = match lifetime {
        Lifetime::Kept => Some(pipe::OpenOptions::new().open_sender(path)?),
        Lifetime::Once => None,
    };
    Ok(Input { receiver, keeper })
}

/// Opens for writing without waiting for a reader.
pub(crate) fn open_output(path: &Path, lifetime: Lifetime) -> io::Result<pipe::Sender> {
    // Being a reader as well keeps writes from failing while there is no other.
    let both = || pipe::OpenOptions::new().read_write(true).open_sender(path);
    match lifetime {
        Lifetime::Kept => both(),
        Lifetime::Once => match pipe::OpenOptions::new().open_sender(path) {
            // Its reader has not come yet.
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => both(),
            opened => opened,
        },
    }
}

/// A client's FIFO that the client reads, for as long as it does.
#[derive(Debug)]
pub(crate) struct Outlet(pipe::Sender);

impl Outlet {
    /// Opens for writing; the client must have opened its end.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match pipe::OpenOptions::new().open_sender(path) {
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                Err(io::Error::new(error.kind(), "nobody has opened it for reading"))
            }
            opened => opened.map(Self),
        }
    }

    /// Writes all of `bytes`, however long the client takes; an error when it has closed its end.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Resolves when the client has closed its end.
    pub(crate) async fn left(&self) {
        // An error means that the runtime is ending.
        let _ = self.0.ready(Interest::ERROR).await;
    }
}
