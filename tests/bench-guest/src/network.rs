//! Workloads over TCP, against the server in the driver of the benchmark. The first byte of a connection says what it
//! is for.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};

use anyhow::{Result, ensure};

use crate::phase::{self, Amount};

/// As in the driver.
const PORT: u16 = 5201;
const SINK: u8 = b's';
const SOURCE: u8 = b'g';
const ECHO: u8 = b'e';

const SIZE: usize = 32 << 20;
const CHUNK: usize = 128 << 10;
const ROUND_TRIPS: usize = 500;
const CONNECTIONS: usize = 100;

pub(crate) fn run(server: IpAddr) -> Result<()> {
    let connect = |purpose: u8| -> Result<TcpStream> {
        let mut stream = TcpStream::connect((server, PORT))?;
        stream.set_nodelay(true)?;
        stream.write_all(&[purpose])?;
        Ok(stream)
    };
    // The first one resolves the neighbour.
    drop(connect(ECHO)?);

    phase::run("net send", Amount::Bytes(SIZE), || {
        let mut stream = connect(SINK)?;
        let chunk = vec![b'x'; CHUNK];
        for _ in 0..SIZE / CHUNK {
            stream.write_all(&chunk)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // The server has had it all when it answers.
        Ok(stream.read_exact(&mut [0])?)
    })?;
    phase::run("net receive", Amount::Bytes(SIZE), || {
        let mut stream = connect(SOURCE)?;
        stream.write_all(&u64::try_from(SIZE)?.to_le_bytes())?;
        let mut chunk = vec![0; CHUNK];
        let mut received = 0;
        loop {
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            received += count;
        }
        ensure!(received == SIZE, "{received} bytes came instead of {SIZE}");
        Ok(())
    })?;
    let mut stream = connect(ECHO)?;
    phase::run("net round trip of 1 byte", Amount::Operations(ROUND_TRIPS), || {
        for _ in 0..ROUND_TRIPS {
            stream.write_all(&[1])?;
            stream.read_exact(&mut [0])?;
        }
        Ok(())
    })?;
    phase::run("net connect, 1 byte, close", Amount::Operations(CONNECTIONS), || {
        for _ in 0..CONNECTIONS {
            let mut stream = connect(ECHO)?;
            stream.write_all(&[1])?;
            stream.read_exact(&mut [0])?;
        }
        Ok(())
    })
}
