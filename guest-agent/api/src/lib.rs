//! `husk.agent.v1`: what the host may ask of the guest agent, as both sides see it.
//!
//! The calls and messages are generated from `proto/agent.proto`, which documents them; feature `client` adds the
//! caller's half and feature `server` the agent's. This crate adds only what a `.proto` cannot say: the vsock ports,
//! the version and the rule for ids.

/// Messages, and the client or server code that the features ask for.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("husk.agent.v1");
}

/// vsock port of the gRPC service in the guest.
pub const RPC_PORT: u32 = 1024;
/// vsock port of the standard streams in the guest; see the head of `agent.proto` for its handshake.
pub const STDIO_PORT: u32 = 1025;
/// Answer to a stream's token when the stream exists and nobody has attached to it.
pub const STDIO_ATTACHED: u8 = 0;
/// Answer to a token that names no unattached stream.
pub const STDIO_UNKNOWN: u8 = 1;
/// The protocol that this source speaks.
pub const VERSION: v1::Version = v1::Version { major: 2, minor: 1 };

/// Longest container, exec or volume id, in bytes: containerd's own limit.
pub const MAX_ID: usize = 76;

/// Whether `id` may name a container, an exec or a volume: 1 to [`MAX_ID`] bytes of `[A-Za-z0-9._-]` beginning with an
/// alphanumeric, so that it is safe as a path component and as a cgroup name.
#[must_use]
pub fn is_valid_id(id: &str) -> bool {
    id.len() <= MAX_ID
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_path_components() {
        for good in ["a", "7f", "web-1.x_y", &"a".repeat(MAX_ID)] {
            assert!(is_valid_id(good), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a\0", "ä", &"a".repeat(MAX_ID + 1)] {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }
}
