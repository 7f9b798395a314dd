//! A process's standard streams on the host's side: where they lead and how the bytes get there.
//!
//! A stream is named as in containerd's shims: nothing at all, a FIFO's path, `file://`, `binary://`, and our own
//! `cri-log://`. [`destination`] reads the name, [`Endpoints`] opens what it means before the process is made, and
//! [`Pumps`] copies between it and the guest, one task per stream with a bounded buffer, so that a slow reader holds
//! the process back and never fills memory.
//!
//! While the process runs, clients join its streams ([`attach`]): [`taps`] copies output to them as well, and [`inlet`] is an input
//! that only they feed. [`carry`] is the same for a connection that has nothing but a [`client`].
//!
//! What the bytes mean, and who started the process, is not known here.

mod attach;
mod carry;
mod client;
mod cri_log;
mod destination;
mod endpoint;
mod fifo;
mod inlet;
mod logger;
mod pump;
mod taps;

pub(crate) use attach::AttachError;
pub(crate) use carry::carry;
pub(crate) use client::Client;
pub(crate) use endpoint::{Endpoints, OpenError, Owner, Request};
pub(crate) use fifo::Lifetime;
pub(crate) use pump::Pumps;
