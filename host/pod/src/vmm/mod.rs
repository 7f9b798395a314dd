//! The pod's VMM: a process of its own, spoken to over its control socket.
//!
//! [`control`] carries requests and replies, [`process`] starts and ends the process, [`ended`] says why it is gone.
//! What the VM is for is not known here.

mod control;
mod ended;
mod process;

pub use ended::{VmEndReason, VmEnded};
pub(crate) use process::{EndedWatch, SpawnWanted, Vmm, ended_now};

use std::sync::Arc;
use std::time::Duration;

use husk_vmm_control::{CallError, TransportError};

/// Why the VMM did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    #[error("cannot start the VMM {}: {source}; is it executable on this machine?", program.display())]
    Spawn { program: std::path::PathBuf, source: std::io::Error },
    #[error("cannot make the VMM's control socket: {0}")]
    Socket(#[source] std::io::Error),
    #[error(transparent)]
    Ended(#[from] Arc<VmEnded>),
    #[error("the VMM did not answer to {call} within {after:?}; on a slow machine raise HUSK_TIMEOUT_SCALE")]
    Deadline { call: &'static str, after: Duration },
    #[error(
        "the guest agent was not ready within {after:?}; on a slow machine raise HUSK_TIMEOUT_SCALE{}",
        last_lines(console)
    )]
    NotReady {
        after: Duration,
        /// At most 20 lines, made printable.
        console: Vec<String>,
    },
    #[error("the VMM refused {call}: {source}")]
    Refused { call: &'static str, source: CallError },
    #[error("the VMM could not be asked for {call}: {source}")]
    Transport { call: &'static str, source: TransportError },
    #[error("the VMM answered {call} with something else; host and VMM are not of one installation")]
    WrongReply { call: &'static str },
}

fn last_lines(lines: &[String]) -> String {
    if lines.is_empty() {
        return "; its console is empty".into();
    }
    lines.iter().fold("\nlast lines of the console:".into(), |text, line| text + "\n  " + line)
}
