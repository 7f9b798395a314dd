//! A descriptor chain as the file server sees it. The data of READ and WRITE goes between file and guest memory without
//! a copy.

use std::io;
use std::os::fd::BorrowedFd;

use husk_fs::{Sink, Source};

use crate::virtio::buffer::{Buffer, ChainError};
use crate::virtio::io as guest_io;

/// The device-readable part.
#[derive(Debug)]
pub(super) struct Request<'m>(pub(super) Buffer<'m>);

/// The device-writable part.
#[derive(Debug)]
pub(super) struct Reply<'m>(pub(super) Buffer<'m>);

fn short(error: ChainError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

impl Source for Request<'_> {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn read(&mut self, bytes: &mut [u8]) -> bool {
        // Copied once: the guest may change its memory meanwhile.
        self.0.split_front(bytes.len()).is_ok_and(|front| front.copy_to(bytes) == bytes.len())
    }

    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize, append: bool) -> io::Result<usize> {
        let mut data = self.0.clone();
        let data = data.split_front(count).map_err(short)?;
        let done = if append {
            guest_io::append(file, data.slices(), offset)?
        } else {
            guest_io::write_at(file, data.slices(), offset)?
        };
        self.0.split_front(done).map_err(short)?;
        Ok(done)
    }
}

impl Reply<'_> {
    /// `count` bytes from a position on.
    fn part(&self, at: usize, count: usize) -> Result<Buffer<'_>, ChainError> {
        let mut rest = self.0.clone();
        rest.split_front(at)?;
        rest.split_front(count)
    }
}

impl Sink for Reply<'_> {
    fn room(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        // The server asks for no more than there is room for; if it did, nothing would be written.
        if let Ok(part) = self.part(at, bytes.len()) {
            part.copy_from(bytes);
        }
    }

    fn fill(&mut self, at: usize, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        let part = self.part(at, count).map_err(short)?;
        guest_io::read_at(file, part.slices(), offset)
    }
}
