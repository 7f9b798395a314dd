//! A connection of bytes in the binary messages of a WebSocket.

use std::io;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

/// The two directions of a connection. Where messages begin and end says nothing.
pub(crate) fn split(
    socket: WebSocketStream<TcpStream>,
) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static) {
    let (sink, stream) = socket.split();
    let bytes =
        stream.take_while(|message| future::ready(!matches!(message, Ok(Message::Close(_))))).filter_map(|message| {
            future::ready(match message {
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                Ok(Message::Text(_)) => Some(Err(io::Error::other("a text message in a tunnel of bytes"))),
                Ok(_) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            })
        });
    let messages =
        sink.with(|bytes: Bytes| future::ready(Ok::<_, Error>(Message::Binary(bytes)))).sink_map_err(io::Error::other);
    (StreamReader::new(bytes), SinkWriter::new(CopyToBytes::new(messages)))
}
