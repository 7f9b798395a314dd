//! How a message and the data beside it are reached.

use std::io;
use std::os::fd::BorrowedFd;

/// The bytes of a request, read from the front once.
pub trait Source {
    /// Bytes left.
    fn remaining(&self) -> usize;

    /// Fills `bytes` and goes beyond them; false, and nothing is taken, when fewer are left.
    fn read(&mut self, bytes: &mut [u8]) -> bool;

    /// Writes the next `count` bytes into a file at `offset`, or at its end when `append`; may write less.
    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize, append: bool) -> io::Result<usize>;
}

/// The room for a reply.
pub trait Sink {
    /// Bytes that fit.
    fn room(&self) -> usize;

    /// Puts `bytes` at a position; the caller has checked that they fit.
    fn put(&mut self, at: usize, bytes: &[u8]);

    /// Reads up to `count` bytes of a file, from `offset`, to a position; may read less.
    fn fill(&mut self, at: usize, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize>;
}
