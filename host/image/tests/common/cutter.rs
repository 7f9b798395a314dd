//! A TCP proxy whose connections end after so many bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Cutter {
    pub address: SocketAddr,
    passed: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Cutter {
    /// Each connection to `target` brings back at most `limit` bytes.
    pub fn start(target: SocketAddr, limit: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cutter =
            Self { address: listener.local_addr().unwrap(), passed: Arc::default(), connections: Arc::default() };
        let (passed, connections) = (Arc::clone(&cutter.passed), Arc::clone(&cutter.connections));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(target).unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let passed = Arc::clone(&passed);
                std::thread::spawn(move || bring_back(&server, &client, limit, &passed));
            }
        });
        cutter
    }

    /// Bytes that came back through all connections.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

fn bring_back(mut server: &TcpStream, mut client: &TcpStream, limit: u64, passed: &AtomicU64) {
    let mut left = limit;
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let want = buffer.len().min(left as usize);
        let Ok(got @ 1..) = server.read(&mut buffer[..want]) else { break };
        if client.write_all(&buffer[..got]).is_err() {
            break;
        }
        left -= got as u64;
        passed.fetch_add(got as u64, Ordering::Relaxed);
    }
    // What was sent arrives: no reset, but an end.
    let _ = client.shutdown(Shutdown::Write);
    let _ = server.shutdown(Shutdown::Both);
}
