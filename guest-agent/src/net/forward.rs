//! Connections from the host to ports of the pod.
//!
//! The agent shares the pod's network namespace, so a listener on the loopback interface alone is reached as well. It
//! makes the connection and keeps it among the streams, until the host comes for it with its token.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;

use crate::error::{Error, Result};
use crate::stdio::Streams;

/// How long a listener may take to take a connection: the kernel does it for one whose queue has room.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection waits for the host.
const UNCLAIMED: Duration = Duration::from_secs(10);

/// Connects to a port, 1 to 65535, for the host's next connection with this token.
pub async fn open(streams: &Arc<Streams>, port: u32, token: u64) -> Result<()> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Error::invalid("port: not within 1 to 65535"))?;
    if token == 0 {
        return Err(Error::invalid("token: missing"));
    }
    let connection = connect(port).await?;
    if !streams.add_port(&format!("port {port}"), token, connection) {
        return Err(Error::Exhausted("token: used already, or too many streams exist".to_owned()));
    }
    let streams = Arc::clone(streams);
    tokio::spawn(async move {
        tokio::time::sleep(UNCLAIMED).await;
        streams.remove_port(token, true);
    });
    Ok(())
}

async fn connect(port: u16) -> Result<TcpStream> {
    let mut problem = None;
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let address = SocketAddr::new(address, port);
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            // Where nobody listens on a port of the range for clients, TCP can connect a socket to itself.
            Ok(Ok(connection)) if connection.local_addr().is_ok_and(|own| own == address) => {}
            Ok(Ok(connection)) => {
                // What the host sends is passed on as it comes.
                let _ = connection.set_nodelay(true);
                return Ok(connection);
            }
            Ok(Err(error)) if is_nobody(&error) => {}
            Ok(Err(error)) => problem = Some(format!("connect {address}: {error}")),
            Err(_) => problem = Some(format!("{address} does not take a connection within {CONNECT:?}")),
        }
    }
    match problem {
        Some(problem) => Err(Error::precondition(problem)),
        None => Err(Error::NotFound(format!("nobody listens on 127.0.0.1:{port} or [::1]:{port}"))),
    }
}

/// Nobody listens there, or there is no such address: a kernel may be without IPv6.
fn is_nobody(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused
        || matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::NETUNREACH))
}

#[cfg(test)]
mod tests {
    use husk_agent_api::{STDIO_ATTACHED, STDIO_UNKNOWN};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixStream};

    use super::*;
    use crate::stdio::connection::serve;

    async fn claim(streams: &Arc<Streams>, token: u64) -> (UnixStream, u8) {
        let (mut host, guest) = UnixStream::pair().unwrap();
        tokio::spawn(serve(Arc::clone(streams), guest));
        host.write_u64_le(token).await.unwrap();
        let answer = host.read_u8().await.unwrap();
        (host, answer)
    }

    async fn listener() -> (TcpListener, u32) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port.into())
    }

    #[tokio::test]
    async fn bytes_and_ends_pass_both_ways() {
        let (listener, port) = listener().await;
        let streams = Streams::new();
        open(&streams, port, 7).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let (mut host, answer) = claim(&streams, 7).await;
        assert_eq!(answer, STDIO_ATTACHED);
        host.write_all(b"question").await.unwrap();
        host.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answered = String::new();
        host.read_to_string(&mut answered).await.unwrap();
        assert_eq!(answered, "answer");
        assert_eq!(claim(&streams, 7).await.1, STDIO_UNKNOWN);
    }

    #[tokio::test]
    async fn a_listener_on_the_loopback_of_ipv6_alone_is_found() {
        // Not every machine that builds has it.
        let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
        let streams = Streams::new();
        let port = listener.local_addr().unwrap().port();
        open(&streams, port.into(), 7).await.unwrap();
    }

    #[tokio::test]
    async fn a_port_without_a_listener_is_named() {
        let (listener, port) = listener().await;
        drop(listener);
        let error = open(&Streams::new(), port, 7).await.unwrap_err();
        assert!(matches!(&error, Error::NotFound(text) if text.contains(&format!("127.0.0.1:{port}"))), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_port_is_refused() {
        for port in [0, 65536, u32::MAX] {
            assert!(matches!(open(&Streams::new(), port, 7).await, Err(Error::InvalidArgument(_))), "{port}");
        }
        assert!(matches!(open(&Streams::new(), 80, 0).await, Err(Error::InvalidArgument(_))));
    }

    #[tokio::test]
    async fn an_idle_connection_ends_when_the_host_says_so() {
        let (listener, port) = listener().await;
        let streams = Streams::new();
        open(&streams, port, 7).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let (mut host, _) = claim(&streams, 7).await;
        // The end of one direction leaves the other one open.
        host.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        streams.remove_port(7, true);
        server.write_all(b"here").await.unwrap();
        host.read_exact(&mut [0; 4]).await.unwrap();
        streams.remove_port(7, false);
        assert_eq!(host.read(&mut [0; 8]).await.unwrap(), 0);
        // The server learns of it at the latest when it writes.
        while server.write_all(b"gone?").await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_the_host_does_not_take_is_closed() {
        let (listener, port) = listener().await;
        let streams = Streams::new();
        open(&streams, port, 7).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(claim(&streams, 7).await.1, STDIO_UNKNOWN);
    }
}
