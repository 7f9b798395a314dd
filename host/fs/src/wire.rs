//! FUSE messages: numbers, and reading and writing their fields (`include/uapi/linux/fuse.h`).
//!
//! Integers are in the machine's byte order, which is the guest's too.

use std::ffi::CStr;

use rustix::io::Errno;

use crate::host::{Stat, Time, encode_device};
use crate::name::Name;

pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const STATX: u32 = 52;
}

/// Length of `fuse_in_header`.
pub(crate) const IN_HEADER: usize = 40;
/// Length of `fuse_out_header`.
pub(crate) const OUT_HEADER: usize = 16;
/// The synthetic root's node id (`FUSE_ROOT_ID`).
pub(crate) const ROOT: u64 = 1;

/// `fuse_in_header`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; IN_HEADER]) -> Result<Self, Errno> {
        let mut fields = Fields::new(bytes);
        Ok(Self {
            length: fields.u32()?,
            opcode: fields.u32()?,
            unique: fields.u64()?,
            node: fields.u64()?,
            uid: fields.u32()?,
            gid: fields.u32()?,
        })
    }
}

/// Reads fields from the front; whatever is missing is EINVAL.
#[derive(Debug)]
pub(crate) struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    pub(crate) fn new(rest: &'b [u8]) -> Self {
        Self { rest }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (front, rest) = self.rest.split_first_chunk::<N>().ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(*front)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Errno> {
        Ok(u32::from_ne_bytes(self.take()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Errno> {
        Ok(u64::from_ne_bytes(self.take()?))
    }

    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Errno> {
        self.rest = self.rest.get(count..).ok_or(Errno::INVAL)?;
        Ok(())
    }

    /// A string with its NUL.
    pub(crate) fn text(&mut self) -> Result<&'b CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.rest).map_err(|_| Errno::INVAL)?;
        self.skip(text.count_bytes() + 1)?;
        Ok(text)
    }

    pub(crate) fn name(&mut self) -> Result<Name<'b>, Errno> {
        Name::new(self.text()?)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'b [u8], Errno> {
        let (front, rest) = self.rest.split_at_checked(count).ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(front)
    }

    /// Nothing may follow: a name with a NUL inside would leave its tail here.
    pub(crate) fn end(self) -> Result<(), Errno> {
        if self.rest.is_empty() { Ok(()) } else { Err(Errno::INVAL) }
    }
}

/// A reply's body in the making.
#[derive(Debug, Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn zeroes(mut self, count: usize) -> Self {
        self.0.resize(self.0.len().saturating_add(count), 0);
        self
    }

    /// Zeroes up to a multiple of 8, as directory entries are aligned.
    pub(crate) fn align(self) -> Self {
        let missing = self.0.len().next_multiple_of(8) - self.0.len();
        self.zeroes(missing)
    }

    /// `fuse_attr`.
    pub(crate) fn attributes(self, number: u64, stat: &Stat) -> Self {
        self.u64(number)
            .u64(stat.size)
            .u64(stat.blocks)
            .u64(stat.accessed.seconds.cast_unsigned())
            .u64(stat.modified.seconds.cast_unsigned())
            .u64(stat.changed.seconds.cast_unsigned())
            .u32(stat.accessed.nanoseconds)
            .u32(stat.modified.nanoseconds)
            .u32(stat.changed.nanoseconds)
            .u32(stat.mode)
            .u32(stat.links)
            .u32(stat.uid)
            .u32(stat.gid)
            .u32(encode_device(stat.device_number))
            .u32(stat.block_size)
            .u32(0)
    }

    /// `fuse_statx`.
    pub(crate) fn extended_attributes(self, number: u64, stat: &Stat) -> Self {
        const BASIC: u32 = 0x7ff;
        const BIRTH: u32 = 0x800;
        let mask = if stat.born.is_some() { BASIC | BIRTH } else { BASIC };
        let (major, minor) = stat.device_number;
        let mode = u16::try_from(stat.mode & 0xffff).unwrap_or(0);
        let body = self.u32(mask).u32(stat.block_size).u64(0).u32(stat.links).u32(stat.uid).u32(stat.gid);
        let body = body.u16(mode).u16(0).u64(number).u64(stat.size).u64(stat.blocks).u64(0);
        let born = stat.born.unwrap_or(Time { seconds: 0, nanoseconds: 0 });
        let body = body.time(stat.accessed).time(born).time(stat.changed).time(stat.modified);
        // The device is the client's own.
        body.u32(major).u32(minor).u32(0).u32(0).zeroes(14 * 8)
    }

    /// `fuse_sx_time`.
    fn time(self, time: Time) -> Self {
        self.u64(time.seconds.cast_unsigned()).u32(time.nanoseconds).u32(0)
    }

    /// `fuse_entry_out`; both validities are `valid` seconds.
    pub(crate) fn entry(self, node: u64, valid: u64, number: u64, stat: &Stat) -> Self {
        // Node ids are never used twice, so the generation stays 0.
        self.u64(node).u64(0).u64(valid).u64(valid).u32(0).u32(0).attributes(number, stat)
    }

    /// `fuse_dirent`.
    pub(crate) fn dirent(self, number: u64, next: u64, kind: u32, name: &[u8]) -> Self {
        let length = u32::try_from(name.len()).unwrap_or(0);
        self.u64(number).u64(next).u32(length).u32(kind).bytes(name).align()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Length of a `fuse_entry_out`.
pub(crate) const ENTRY: usize = 128;

/// Length of a `fuse_dirent` with a name of that many bytes.
pub(crate) fn dirent_length(name: usize) -> usize {
    name.saturating_add(24).next_multiple_of(8)
}
