//! The binary's own actions: starting the pod's daemon, being it, cleaning up after it, and answering questions.
//!
//! What the daemon then serves lives in `task`.

mod delete;
mod descriptors;
mod info;
mod log;
mod params;
mod serve;
mod start;

pub(crate) use delete::delete;
pub(crate) use info::{info, version};
pub(crate) use serve::serve;
pub(crate) use start::start;
