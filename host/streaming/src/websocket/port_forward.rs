//! Port-forward over the channels of a WebSocket: two for each port, and one connection to each.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;

use super::Codec;
use super::channels::Builder;
use crate::runtime::{DataStream, PortForwardRequest, Runtime};

/// The most ports: channel 255 is no channel, and each port has two.
pub(crate) const MAX_PORTS: usize = 127;

/// Serves all ports of a call on a connection of its own.
pub(crate) async fn serve(
    socket: WebSocketStream<TcpStream>,
    runtime: Arc<dyn Runtime>,
    call: PortForwardRequest,
    codec: Codec,
) {
    let mut builder = Builder::new();
    let numbers = (0..u8::MAX).step_by(2);
    let ports: Vec<_> = numbers
        .zip(&call.ports)
        .take(MAX_PORTS)
        .map(|(channel, port)| (*port, builder.readable(channel), builder.writable(channel.saturating_add(1))))
        .collect();
    let channels = builder.start(socket, codec);
    let forwards = ports.into_iter().map(|(port, (incoming, data), error)| {
        let (runtime, sandbox) = (&runtime, call.sandbox.as_str());
        async move {
            // Each channel begins with its port.
            for handle in [&data, &error] {
                handle.send(Bytes::copy_from_slice(&port.to_le_bytes())).await;
            }
            let stream = DataStream::new(incoming, data.outgoing());
            if let Err(failure) = runtime.port_forward(sandbox, port, stream).await {
                let text = format!("error forwarding port {port} to pod {sandbox}: {failure}");
                let _ = error.outgoing().write_all(text.as_bytes()).await;
            }
        }
    });
    join_all(forwards).await;
    channels.close().await;
}
