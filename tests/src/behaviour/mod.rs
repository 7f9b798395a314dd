//! The file-system behaviour suite: the program of `fs-behaviour` run by runc and by Husk, and what it says compared.
//!
//! `image` is what both run, `runc` the reference, `differences` the table of what may differ.

#![allow(clippy::expect_used, reason = "a fixture fails its test by panicking")]

pub mod differences;
mod image;
mod runc;

pub use image::{PROGRAM, TREE, WORK, image};
pub use runc::{Disk, Runc};
