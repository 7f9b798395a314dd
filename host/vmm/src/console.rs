//! Where the guest's serial output goes: a file or pipe, up to a limit, never waiting for a reader.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Number of bytes that were not written.
#[derive(Clone, Debug, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The console log. Writing never fails and never blocks; what cannot be written is counted.
#[derive(Debug)]
pub struct ConsoleLog {
    output: OwnedFd,
    /// Bytes until the limit.
    room: u64,
    dropped: Dropped,
}

impl ConsoleLog {
    #[must_use]
    pub fn new(output: OwnedFd, limit: u64) -> Self {
        Self { output, room: limit, dropped: Dropped::default() }
    }

    /// A handle to the count that stays valid while the log is elsewhere.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }

    /// Whether a write would not block. The descriptor may be shared, so it is not ours to make non-blocking.
    fn is_writable(&self) -> bool {
        let mut fds = [PollFd::new(&self.output, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now)));
        let [fd] = &fds;
        ready.is_ok() && fd.revents().contains(PollFlags::OUT)
    }

    fn try_write(&mut self, bytes: &[u8]) -> usize {
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        // A pipe that polls writable takes at least a page without blocking; the UART writes byte by byte.
        let Some(wanted) = bytes.get(..bytes.len().min(room)).filter(|wanted| !wanted.is_empty()) else { return 0 };
        if !self.is_writable() {
            return 0;
        }
        rustix::io::retry_on_intr(|| rustix::io::write(&self.output, wanted)).unwrap_or(0)
    }
}

impl Write for ConsoleLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.try_write(bytes);
        self.room = self.room.saturating_sub(u64::try_from(written).unwrap_or(u64::MAX));
        self.dropped.add(bytes.len().saturating_sub(written));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn output_beyond_the_limit_is_dropped_and_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = ConsoleLog::new(writer.into(), 5);
        let dropped = log.dropped();
        log.write_all(b"abc").unwrap();
        log.write_all(b"defg").unwrap();
        log.write_all(b"h").unwrap();
        assert_eq!(dropped.count(), 3);
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde");
    }

    #[test]
    fn a_full_pipe_blocks_nobody() {
        let (_reader, writer) = io::pipe().unwrap();
        let mut log = ConsoleLog::new(writer.into(), u64::MAX);
        for _ in 0..(1 << 20) / 512 {
            log.write_all(&[b'x'; 512]).unwrap();
        }
        assert!(log.dropped().count() > 0);
    }

    #[test]
    fn a_closed_pipe_only_drops() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut log = ConsoleLog::new(writer.into(), 10);
        log.write_all(b"abc").unwrap();
        assert_eq!(log.dropped().count(), 3);
    }
}
