//! The file-system behaviour suite: the program of `fs-behaviour` run by runc and by Husk, and what it says compared.
//!
//! `image` is what both run, `runc` the reference.

#![allow(clippy::expect_used, reason = "a fixture fails its test by panicking")]

mod image;
mod runc;

pub use image::{PROGRAM, TREE, WORK, image};
pub use runc::{Disk, Runc};
pub(crate) use runc::{capabilities, run};

/// The beginning of the names of the checks to run, to try some alone: `HUSK_FS_CHECKS`.
#[must_use]
pub fn chosen() -> Option<String> {
    std::env::var("HUSK_FS_CHECKS").ok()
}

/// The command line of a set.
#[must_use]
pub fn command(set: &str, directory: &str) -> Vec<String> {
    let words = [PROGRAM, set, directory].map(str::to_owned);
    words.into_iter().chain(chosen().filter(|_| set == "writable")).collect()
}
