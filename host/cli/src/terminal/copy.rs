//! Copying between our standard streams and a container's FIFOs, on plain threads: whoever is slow blocks only his own
//! direction, and a read of standard input that never returns does not keep husk from ending.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use husk_client::FifoStreams;

/// Large enough that a FIFO (64 KiB) is filled and emptied in one call.
const BUFFER: usize = 64 << 10;

/// The threads that carry a process's streams.
#[derive(Debug)]
pub(crate) struct Copying {
    outputs: Vec<JoinHandle<()>>,
}

/// Starts copying all streams that there are.
///
/// # Errors
///
/// When a FIFO cannot be made blocking.
pub(crate) fn start(streams: FifoStreams) -> io::Result<Copying> {
    let FifoStreams { stdin, stdout, stderr } = streams;
    if let Some(fifo) = stdin {
        // Dropped at the end of our input, which ends the process's.
        let fifo = File::from(fifo.into_blocking_fd()?);
        thread::Builder::new().name("stdin".into()).spawn(move || copy(&mut io::stdin().lock(), fifo))?;
    }
    let mut outputs = Vec::with_capacity(2);
    if let Some(fifo) = stdout {
        outputs.push(output("stdout", fifo.into_blocking_fd()?, own(rustix::stdio::stdout())?)?);
    }
    if let Some(fifo) = stderr {
        outputs.push(output("stderr", fifo.into_blocking_fd()?, own(rustix::stdio::stderr())?)?);
    }
    Ok(Copying { outputs })
}

impl Copying {
    /// Waits until everything that the process wrote has been written out.
    pub(crate) async fn drained(self) {
        // The join itself blocks.
        let joined =
            tokio::task::spawn_blocking(move || self.outputs.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
    }
}

/// A duplicate without std's line buffer: a prompt without a newline must show at once.
fn own(fd: std::os::fd::BorrowedFd<'_>) -> io::Result<File> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?.into())
}

fn output(name: &str, from: OwnedFd, to: File) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(move || copy(&mut File::from(from), to))
}

/// Until the end of `from`. When `to` takes no more (its reader has gone), `from` is dropped, and whoever writes to it
/// learns the same.
fn copy(from: &mut dyn Read, mut to: File) {
    let mut buffer = vec![0u8; BUFFER];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let Some(bytes) = buffer.get(..count) else { return };
        if to.write_all(bytes).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_ends_with_its_source_and_with_its_sink() {
        let (from, mut feed) = io::pipe().unwrap();
        let (mut out, to) = io::pipe().unwrap();
        let copying = thread::spawn(move || copy(&mut { from }, File::from(OwnedFd::from(to))));
        feed.write_all(b"hello").unwrap();
        drop(feed);
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        copying.join().unwrap();
        assert_eq!(text, "hello");

        let (from, mut feed) = io::pipe().unwrap();
        let (out, to) = io::pipe().unwrap();
        drop(out);
        let copying = thread::spawn(move || copy(&mut { from }, File::from(OwnedFd::from(to))));
        feed.write_all(b"x").unwrap();
        copying.join().unwrap();
        assert!(feed.write_all(b"x").is_err(), "the source is told");
    }
}
