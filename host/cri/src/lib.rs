//! Kubernetes' Container Runtime Interface over pods of Husk.
//!
//! `huskd` is to a pod's shim what containerd is: it makes bundles, starts shims and asks them. Pods live without it; it
//! may be killed at any moment and takes up again what it finds, for everything it must remember is on disk
//! (`state`) or with the shims.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod api;
pub mod config;
pub mod daemon;
pub mod error;
pub mod images;
pub mod notify;
pub mod runtime;
pub mod spec;
pub mod state;
pub mod stats;
