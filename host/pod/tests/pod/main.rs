//! The pod engine against a VMM and an agent that misbehave on request; no KVM is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;
mod forward;
mod hostile;
mod lifecycle;
mod resize;
mod start_failures;
