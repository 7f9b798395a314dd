//! The guest agent: PID 1 of every Husk microVM.
//!
//! It boots the guest (`boot`), then serves `husk.agent.v1` (`service`): devices, volumes and identity of the pod
//! (`pod`), its network interfaces (`net`), containers and their processes (`container`), their standard streams (`stdio`) and what happens to them
//! (`events`). Processes are made by a single-threaded helper (`zygote`), set themselves up (`launch`) and are
//! collected by `reaper`. Requests come from the host and are checked all the same; what comes from images and
//! containers is hostile.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")
)]

pub mod agent;
pub mod boot;
pub mod cgroup;
pub mod container;
pub mod error;
pub mod events;
pub mod fs;
pub mod launch;
pub mod log;
pub mod net;
pub mod paths;
pub mod pod;
pub mod reaper;
pub mod server;
pub mod service;
pub mod stdio;
pub mod sys;
pub mod zygote;
