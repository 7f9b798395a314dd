//! The CRI streaming server: exec, attach and port-forward, as kubelet, kubectl and crictl call them.
//!
//! A CRI client asks over gRPC for a URL and then speaks to it over HTTP, upgraded to SPDY/3.1 or WebSocket. [`Server`]
//! makes the URLs and serves them; a [`Runtime`] does what they ask for. The crate knows neither CRI's types nor pods:
//! a container is an id, a process some streams.
//!
//! `http` finds the call that a request is for and the protocol that its client speaks (`token`, `negotiation`).
//! `remotecommand` is exec and attach whatever carries them; `spdy` and `websocket` carry them, and port-forward, whose
//! connections [`relay`] carries on. `stream` is the bytes of one stream, with bounds in both directions: a process
//! that writes waits for its client, a client that writes waits for its process.
//!
//! Any process of the host can connect, so whatever comes from a client is taken for hostile until its token has been
//! seen, and is bounded and checked behind that too.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod http;
mod idle;
mod negotiation;
mod relay;
mod remotecommand;
mod runtime;
mod server;
mod spdy;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod token;
mod websocket;

pub use relay::relay;
pub use runtime::{
    AttachRequest, DataStream, ExecRequest, PortForwardRequest, ProcessStreams, Runtime, StreamError, TerminalSize,
};
pub use server::Server;
pub use token::Exhausted;
