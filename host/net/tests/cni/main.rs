//! Namespaces, taps and real CNI plugins, each test in a small world of its own: a network and a mount namespace that
//! the test's thread makes, so that nothing of the machine's is touched. Needs root, iproute2, iptables and Debian's
//! containernetworking-plugins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bridge;
mod fixture;
mod guest;
mod links;
mod namespaces;
mod world;
