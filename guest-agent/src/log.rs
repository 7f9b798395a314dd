//! A logger of a few lines: whole lines to the console, or to the kernel's log when there is no console.
//!
//! The virtual machine monitor keeps the console in a bounded log. Nothing of a container's environment or arguments
//! is ever written here.

use std::fmt::{Arguments, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;

/// Longest line that is written; the rest is cut off. `/dev/kmsg` takes about this much in one record.
const MAX_LINE: usize = 900;

/// How much a line matters: the priorities of syslog(3), which `/dev/kmsg` understands.
#[derive(Debug, Clone, Copy)]
pub enum Level {
    /// The guest, or a part of it, will not work.
    Error = 3,
    /// Something was refused or had to be given up.
    Warning = 4,
    /// One of the few milestones.
    Info = 6,
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Console(File),
    /// Takes a priority in front of a line.
    Kmsg(File),
    Nowhere,
}

static SINK: OnceLock<Sink> = OnceLock::new();

fn open() -> Sink {
    let open = |path| File::options().write(true).open(path);
    match (open("/dev/console"), open("/dev/kmsg")) {
        (Ok(console), _) => Sink::Console(console),
        (Err(_), Ok(kmsg)) => Sink::Kmsg(kmsg),
        (Err(_), Err(_)) => Sink::Nowhere,
    }
}

/// Writes one line. Failures to write are ignored: there is nowhere to tell them.
pub fn write(level: Level, arguments: Arguments<'_>) {
    let sink = SINK.get_or_init(open);
    let mut line = String::with_capacity(128);
    if matches!(sink, Sink::Kmsg(_)) {
        let _ = write!(line, "<{}>", level as u8);
    }
    let _ = write!(line, "husk-agent: {arguments}");
    let mut end = line.len().min(MAX_LINE);
    while !line.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    line.truncate(end);
    let mut line = line.replace(['\n', '\r'], " ");
    line.push('\n');
    if let Sink::Console(file) | Sink::Kmsg(file) = sink {
        let mut file: &File = file;
        let _ = file.write_all(line.as_bytes());
    }
}

/// Logs a milestone.
#[macro_export]
macro_rules! info {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($argument)*)) };
}

/// Logs what was refused or given up.
#[macro_export]
macro_rules! warning {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Warning, format_args!($($argument)*)) };
}

/// Logs what will not work.
#[macro_export]
macro_rules! error {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($argument)*)) };
}
