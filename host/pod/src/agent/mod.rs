//! The guest agent as the host sees it: calls, events and standard streams over vsock.
//!
//! [`vsock`] speaks the hybrid protocol of the VMM's socket, [`client`] makes calls with deadlines, [`events`] follows
//! the event stream, [`stream`] attaches standard streams. The guest is hostile: whatever it sends is bounded, checked
//! against what was asked, and escaped before it is shown.

mod client;
mod events;
mod stream;
mod vsock;

pub(crate) use client::Agent;
pub(crate) use events::{GuestEvent, follow};
pub use stream::{ProcessStreams, StdioWanted, Stream, StreamError};
pub(crate) use stream::{Tokens, attach, claim, random_token, wait_for_client};
pub use vsock::ConnectError;

use std::sync::Arc;
use std::time::Duration;

use crate::vmm::VmEnded;

/// Why the guest agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Ended(#[from] Arc<VmEnded>),
    #[error("the guest agent did not answer to {call} within {after:?}; on a slow machine raise HUSK_TIMEOUT_SCALE")]
    Deadline { call: &'static str, after: Duration },
    /// The agent's own words, bounded and escaped.
    #[error("the guest agent refused {call}: {message} ({code:?})")]
    Refused { call: &'static str, code: tonic::Code, message: String },
    #[error(
        "the guest agent speaks version {theirs} of its protocol and this host {ours}; install both from one release"
    )]
    Version { ours: String, theirs: String },
    #[error("the guest agent's answer to {call} makes no sense: {why}")]
    Answer { call: &'static str, why: String },
}

impl AgentError {
    /// The refusal's code, when it is one.
    #[must_use]
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
