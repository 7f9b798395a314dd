//! The host's end of the traffic tests: the services of `peer.py`, and a client of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Once;
use std::time::Duration;

use husk_tests::fixture::wait_for;
use sha2::{Digest, Sha256};

/// What a pod runs: `python3.11 -c PEER serve`.
pub(crate) const PEER: &str = include_str!("peer.py");

pub(crate) const SINK: u16 = 7000;
pub(crate) const SOURCE: u16 = 7001;
pub(crate) const TICK: u16 = 7002;
pub(crate) const ECHO: u16 = 7003;

const BLOCK: usize = 1 << 16;
/// For an answer; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Serves on every address of this machine from the first call on, for as long as the test program runs.
pub(crate) fn serve() {
    static SERVE: Once = Once::new();
    SERVE.call_once(|| {
        for (port, handler) in [(SINK, sink as fn(TcpStream) -> _), (SOURCE, source), (TICK, tick)] {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
            std::thread::spawn(move || listener.incoming().for_each(|connection| drop(connection.and_then(handler))));
        }
        let echo = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, ECHO)).unwrap();
        std::thread::spawn(move || {
            let mut data = [0; 1 << 16];
            while let Ok((length, sender)) = echo.recv_from(&mut data) {
                drop(echo.send_to(&data[..length], sender));
            }
        });
    });
}

fn sink(mut connection: TcpStream) -> std::io::Result<()> {
    let (count, digest) = receive(&mut connection)?;
    writeln!(connection, "{count} {digest}")
}

/// Bytes to their end: how many, and their SHA-256.
fn receive(stream: &mut impl Read) -> std::io::Result<(usize, String)> {
    let (mut digest, mut count, mut block) = (Sha256::new(), 0, vec![0; BLOCK]);
    loop {
        match stream.read(&mut block)? {
            0 => return Ok((count, hex::encode(digest.finalize()))),
            length => {
                digest.update(&block[..length]);
                count += length;
            }
        }
    }
}

fn source(mut connection: TcpStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(connection.try_clone()?).read_line(&mut line)?;
    let digest = send_blocks(&mut connection, line.trim().parse().unwrap())?;
    connection.write_all(digest.as_bytes())
}

fn tick(mut connection: TcpStream) -> std::io::Result<()> {
    connection.write_all(b"x")
}

/// Sends that many bytes, of which no two whole blocks are equal; gives their SHA-256.
fn send_blocks(stream: &mut TcpStream, count: usize) -> std::io::Result<String> {
    let mut block: Vec<u8> =
        (0_u64..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).take(BLOCK).collect();
    let mut digest = Sha256::new();
    let (mut left, mut number) = (count, 0_u64);
    while left > 0 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        let part = &block[..left.min(BLOCK)];
        digest.update(part);
        stream.write_all(part)?;
        (left, number) = (left - part.len(), number + 1);
    }
    Ok(hex::encode(digest.finalize()))
}

/// A connection to a peer that may not listen yet.
pub(crate) fn connect(address: impl Into<SocketAddr>) -> TcpStream {
    let address = address.into();
    let stream = wait_for(&format!("a connection to {address}"), 10, || {
        TcpStream::connect_timeout(&address, Duration::from_secs(3)).ok()
    });
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes to the peer, which must have received them all as they were.
pub(crate) fn upload(address: impl Into<SocketAddr>, count: usize) {
    let mut stream = connect(address);
    let digest = send_blocks(&mut stream, count).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.trim(), format!("{count} {digest}"));
}

/// Has the peer send bytes, which must arrive as they were sent.
pub(crate) fn download(address: impl Into<SocketAddr>, count: usize) {
    let mut stream = connect(address);
    writeln!(stream, "{count}").unwrap();
    let received = receive(&mut (&mut stream).take(count.try_into().unwrap())).unwrap();
    let mut theirs = String::new();
    stream.read_to_string(&mut theirs).unwrap();
    assert_eq!(received, (count, theirs));
}

/// A whole connection, from handshake to end.
pub(crate) fn tick_once(address: impl Into<SocketAddr>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    if said == "x" { Ok(()) } else { Err(std::io::Error::other(format!("it said {said:?}"))) }
}

/// Sends a datagram until it comes back.
pub(crate) fn echo(address: impl Into<SocketAddr>, size: usize) {
    let address = address.into();
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let data: Vec<u8> = (0..size).map(|n| n.to_le_bytes()[0]).collect();
    let mut received = vec![0; 1 << 16];
    wait_for(&format!("{size} bytes back from {address}"), 10, || {
        socket.send_to(&data, address).ok()?;
        let (length, from) = socket.recv_from(&mut received).ok()?;
        (received[..length] == data && from == address).then_some(())
    });
}
