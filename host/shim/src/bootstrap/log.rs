//! Where the daemon's log goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

/// The log in the shim's state directory; also what a panic prints to.
pub(super) const LOG_FILE: &str = "shim.log";
/// The FIFO in the bundle from which containerd copies into its own log.
const FIFO: &str = "log";

/// Begins logging: to containerd, if it listens, else to standard error, which is [`LOG_FILE`].
pub(super) fn init(bundle: Option<&Path>, debug: bool) {
    let ours = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // Libraries speak of every frame that they send.
    let filter = Targets::new().with_default(LevelFilter::WARN).with_targets([
        ("containerd_shim_husk_v2", ours),
        ("husk_client", ours),
        ("husk_pod", ours),
    ]);
    let fifo = bundle.and_then(|bundle| open_fifo(&bundle.join(FIFO))).map(|fifo| Fifo(Mutex::new(fifo)));
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).log_internal_errors(false);
    match fifo {
        Some(fifo) => tracing_subscriber::registry().with(lines.with_writer(fifo).with_filter(filter)).init(),
        None => tracing_subscriber::registry().with(lines.with_writer(io::stderr).with_filter(filter)).init(),
    }
}

fn open_fifo(path: &Path) -> Option<File> {
    if !path.symlink_metadata().ok()?.file_type().is_fifo() {
        return None;
    }
    // Both ends, so that a containerd that restarts neither ends nor blocks us.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).ok()
}

/// A FIFO that nobody reads fills up, and further lines are dropped.
#[derive(Debug)]
struct Fifo(Mutex<File>);

impl<'a> MakeWriter<'a> for Fifo {
    type Writer = FifoLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        FifoLine(self)
    }
}

#[derive(Debug)]
struct FifoLine<'a>(&'a Fifo);

impl Write for FifoLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match file.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
