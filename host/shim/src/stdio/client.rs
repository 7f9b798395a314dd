//! FIFOs of a client that joins what runs already.

use std::path::PathBuf;

use tokio::net::unix::pipe;

use super::destination::Destination;
use super::endpoint::{OpenError, Request, io_error};
use super::fifo::Outlet;

/// The shim's ends of a client's FIFOs. Their other ends end with the client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) stdin: Option<pipe::Receiver>,
    pub(crate) stdout: Option<Outlet>,
    pub(crate) stderr: Option<Outlet>,
}

impl Client {
    pub(crate) fn open(names: &Request) -> Result<Self, OpenError> {
        let stdin = fifo("stdin", &names.stdin)?.map(|path| {
            let opened = pipe::OpenOptions::new().open_receiver(&path);
            opened.map_err(|source| io_error("stdin", path, source))
        });
        Ok(Self {
            stdin: stdin.transpose()?,
            stdout: outlet("stdout", &names.stdout)?,
            stderr: outlet("stderr", &names.stderr)?,
        })
    }
}

fn outlet(stream: &'static str, name: &str) -> Result<Option<Outlet>, OpenError> {
    let opened = fifo(stream, name)?.map(|path| Outlet::open(&path).map_err(|source| io_error(stream, path, source)));
    opened.transpose()
}

fn fifo(stream: &'static str, name: &str) -> Result<Option<PathBuf>, OpenError> {
    match Destination::parse(stream, name)? {
        None => Ok(None),
        Some(Destination::Fifo(path)) => Ok(Some(path)),
        Some(_) => Err(OpenError::NotAFifo { stream, name: name.to_owned() }),
    }
}
