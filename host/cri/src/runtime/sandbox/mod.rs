//! Pods.

mod remove;
mod resize;
mod run;
mod stop;
mod watch;

pub(super) use run::{name_of, run_sandbox};
pub(super) use watch::watch_sandbox;
