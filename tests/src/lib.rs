//! What the whole-system suites share.
//!
//! `layer`, `oci` and `torture` make images: the good ones that `images/build` caches, and the bad ones that the
//! suites need. `behaviour` and `parity` run the same under runc and under Husk, and `differences` compares what they
//! saw. `fixture` runs Husk as a user does, against directories of its own, and looks for leaks afterwards.
//! The suites themselves are in `tests/`, one file per promise; the benchmark is the binary `bench`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod behaviour;
pub mod differences;
pub mod fixture;
pub mod layer;
pub mod oci;
pub mod parity;
pub mod torture;
