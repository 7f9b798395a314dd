//! The network's other end. The first byte of a connection says what it is for (`tests/bench-guest/src/network.rs`).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};

/// As in the guest.
const PORT: u16 = 5201;
const CHUNK: usize = 128 << 10;

/// Serves until the process ends.
pub(super) fn start(address: &str) -> Result<()> {
    let listener = TcpListener::bind((address, PORT)).with_context(|| format!("listening on {address}:{PORT}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // A guest that hangs up has said so in its own transcript.
                let _ = serve(stream);
            });
        }
    });
    Ok(())
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut purpose = [0];
    stream.read_exact(&mut purpose)?;
    match purpose {
        [b's'] => {
            let mut chunk = vec![0; CHUNK];
            while stream.read(&mut chunk)? > 0 {}
            stream.write_all(&[1])?;
        }
        [b'g'] => {
            let mut size = [0; 8];
            stream.read_exact(&mut size)?;
            let mut left = usize::try_from(u64::from_le_bytes(size))?;
            let chunk = vec![b'x'; CHUNK];
            while let Some(part) = chunk.get(..left.min(CHUNK)).filter(|part| !part.is_empty()) {
                stream.write_all(part)?;
                left -= part.len();
            }
        }
        _ => {
            let mut byte = [0];
            while stream.read(&mut byte)? > 0 {
                stream.write_all(&byte)?;
            }
        }
    }
    Ok(())
}
