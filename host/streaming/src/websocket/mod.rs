//! WebSocket: the channels of a call in messages, or a SPDY connection in them.
//!
//! `channels` runs a connection whose messages begin with their channel's number; `remotecommand` and `port_forward`
//! say what the channels are; `tunnel` makes a connection of bytes out of messages.

mod channels;
pub(crate) mod port_forward;
pub(crate) mod remotecommand;
pub(crate) mod tunnel;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The longest message, in bytes. Clients send at most 32 KiB in one.
const MAX_MESSAGE: usize = 1024 * 1024;
/// How many bytes of messages are gathered before they are written.
const WRITE_BUFFER: usize = 64 * 1024;

/// How a channel's bytes stand in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// The channel's number in a byte, then the bytes.
    Binary,
    /// As `Binary`; channel 255 closes the channel whose number follows.
    BinaryWithClose,
    /// The channel's number as a digit, then the bytes in base64, in a text message.
    Base64,
}

/// A WebSocket that the client was told it has. `before` are bytes that came with its request.
pub(crate) async fn accept(stream: TcpStream, before: Bytes) -> WebSocketStream<TcpStream> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .write_buffer_size(WRITE_BUFFER);
    WebSocketStream::from_partially_read(stream, before.to_vec(), Role::Server, Some(config)).await
}
