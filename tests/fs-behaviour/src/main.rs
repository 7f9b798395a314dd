//! `husk-fs-behaviour SET DIRECTORY`: runs every check of a set and prints `NAME<tab>WHAT WAS SEEN` for each.
//!
//! What is seen is told in words that do not vary between two runs on the same file system: errno names, modes, counts;
//! never times, inode numbers or the sizes of directories. So the output of two systems can be compared line by line.
//! Nothing here knows what is right: that is for the reader of two outputs to say.
//!
//! - `writable` works in DIRECTORY, as root. Each check has a process and an empty directory of its own.
//! - `read-only` looks at the tree in DIRECTORY that `tests/src/behaviour/image.rs` makes, and tries to change it.
//! - `list SET` prints the names alone.
//!
//! `filter` as a third argument keeps the checks whose names begin so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a check that panics is reported as such, and its process is its own"
)]

mod kit;
mod read_only;
mod sys;
mod text;
mod writable;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use kit::Check;

/// Seconds after which a check counts as hanging: many times what the slowest takes on an emulated machine.
const PATIENCE: u32 = 120;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        // What checks run of this program itself.
        ["identity"] => say(&kit::identity()),
        ["wait"] => io::copy(&mut io::stdin(), &mut io::sink()).map(drop),
        ["list", set] => checks(set, "").and_then(|checks| checks.iter().try_for_each(|(name, _)| say(name))),
        [set @ "read-only", directory] => checks(set, "").and_then(|checks| in_place(&checks, directory)),
        [set @ "writable", directory] => checks(set, "").and_then(|checks| apart(&checks, directory)),
        [set @ "writable", directory, filter] => checks(set, filter).and_then(|checks| apart(&checks, directory)),
        ["silence"] => Ok(()),
        // A script's interpreter is called with the script.
        ["identity", _] => say(&kit::identity()),
        _ => Err(io::Error::other("usage: husk-fs-behaviour writable|read-only DIRECTORY [PREFIX]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("husk-fs-behaviour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn checks(set: &str, prefix: &str) -> io::Result<Vec<Check>> {
    let all = match set {
        "writable" => writable::all(),
        "read-only" => read_only::all(),
        _ => return Err(io::Error::other(format!("no set is called {set}"))),
    };
    Ok(all.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect())
}

/// Each check in an empty directory of its own.
fn apart(checks: &[Check], directory: &str) -> io::Result<()> {
    std::env::set_current_dir(directory)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for (name, check) in checks {
        let own = name.replace('/', "-");
        fs::create_dir(&own)?;
        let seen = perform(&own, *check);
        sweep(Path::new(&own))?;
        say(&format!("{name}\t{seen}"))?;
    }
    Ok(())
}

fn in_place(checks: &[Check], directory: &str) -> io::Result<()> {
    checks.iter().try_for_each(|(name, check)| say(&format!("{name}\t{}", perform(directory, *check))))
}

fn perform(directory: &str, check: fn() -> kit::Seen) -> String {
    let body = || {
        std::env::set_current_dir(directory)?;
        check()
    };
    sys::in_child(PATIENCE, || match body() {
        Ok(seen) => seen,
        Err(error) => format!("broken: {}", text::name(&error)),
    })
}

/// Removes a check's directory. What some checks leave takes more than one attempt: a directory that shrinks while it is
/// read may show some entries late.
fn sweep(directory: &Path) -> io::Result<()> {
    for _ in 0..3 {
        if fs::remove_dir_all(directory).is_ok() {
            return Ok(());
        }
    }
    fs::remove_dir_all(directory)
}
