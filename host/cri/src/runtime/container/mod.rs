//! Containers.

mod create;
mod remove;
mod start;
mod stop;
mod update;
mod watch;

pub(super) use create::{create_container, name_of};
pub(super) use stop::signal_names;
pub(super) use watch::{Ended, watch_container};

use std::sync::Arc;

use husk_client::Shim;

use super::Engine;
use crate::error::Error;
use crate::state::Sandbox;

impl Engine {
    /// The pod's shim.
    ///
    /// # Errors
    ///
    /// [`Error::FailedPrecondition`] when the pod does not run.
    pub(super) fn shim(&self, sandbox: &Arc<Sandbox>) -> Result<Shim, Error> {
        let shim = sandbox.shim().filter(|_| sandbox.is_ready());
        shim.ok_or_else(|| Error::FailedPrecondition(format!("pod {} is not running", sandbox.id)))
    }
}
