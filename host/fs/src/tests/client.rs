//! A client that holds nothing back: it can send any bytes.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::wire::{Body, Fields, IN_HEADER, ROOT, opcode};
use crate::{Limits, Server, Sink, Source};

pub(super) struct Bytes(pub(super) Vec<u8>);

fn file(fd: BorrowedFd<'_>) -> std::fs::File {
    fd.try_clone_to_owned().unwrap().into()
}

impl Source for Bytes {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn read(&mut self, bytes: &mut [u8]) -> bool {
        if self.0.len() < bytes.len() {
            return false;
        }
        let rest = self.0.split_off(bytes.len());
        bytes.copy_from_slice(&std::mem::replace(&mut self.0, rest));
        true
    }

    fn write_to(&mut self, fd: BorrowedFd<'_>, offset: u64, count: usize, append: bool) -> io::Result<usize> {
        let file = file(fd);
        let offset = if append { file.metadata()?.len() } else { offset };
        let done = file.write_at(&self.0[..count], offset)?;
        self.0.drain(..done);
        Ok(done)
    }
}

impl Sink for Bytes {
    fn room(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn fill(&mut self, at: usize, fd: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        file(fd).read_at(&mut self.0[at..at + count], offset)
    }
}

pub(super) const LIMITS: Limits = Limits { nodes: 200, handles: 50 };

/// A server with one exported directory, `tree`, and a client of it.
pub(super) struct Client {
    pub(super) server: Server,
    pub(super) outside: tempfile::TempDir,
    pub(super) tree: std::path::PathBuf,
    /// Node of the export's root.
    pub(super) root: u64,
    pub(super) caller: (u32, u32),
}

pub(super) fn path_descriptor(path: impl AsRef<Path>) -> OwnedFd {
    openat(CWD, path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub(super) fn own_descriptors() -> OwnedFd {
    openat(CWD, "/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

impl Client {
    pub(super) fn new(read_only: bool) -> Self {
        // The guest's kernel has applied the caller's mask already; husk-vmm does the same.
        rustix::process::umask(Mode::empty());
        let outside = tempfile::tempdir().unwrap();
        let tree = outside.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let server = Server::new(own_descriptors(), LIMITS).unwrap();
        server.export("tree", path_descriptor(&tree), read_only).unwrap();
        let caller = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mut client = Self { server, outside, tree, root: 0, caller };
        client.begin_anew();
        client
    }

    /// A new session: whatever was held is given back.
    pub(super) fn begin_anew(&mut self) {
        self.init();
        self.root = self.lookup(ROOT, "tree").unwrap();
    }

    pub(super) fn init(&self) -> Vec<u8> {
        let body = Body::new().u32(7).u32(41).u32(1 << 17).u32(u32::MAX).zeroes(48);
        self.call(opcode::INIT, 0, body).unwrap()
    }

    /// Sends a request and takes the reply apart.
    pub(super) fn call(&self, opcode: u32, node: u64, body: Body) -> Result<Vec<u8>, Errno> {
        let message = self.message(opcode, node, &body.into_bytes());
        let reply = self.raw(message, 1 << 21);
        let mut fields = Fields::new(&reply);
        assert_eq!(usize::try_from(fields.u32().unwrap()).unwrap(), reply.len());
        let errno = fields.u32().unwrap().cast_signed();
        assert_eq!(fields.u64().unwrap(), 77);
        match errno {
            0 => Ok(reply[16..].to_vec()),
            errno => Err(Errno::from_raw_os_error(-errno)),
        }
    }

    pub(super) fn message(&self, opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(IN_HEADER + body.len()).unwrap();
        let header = Body::new().u32(length).u32(opcode).u64(77).u64(node);
        header.u32(self.caller.0).u32(self.caller.1).u32(1).u32(0).bytes(body).into_bytes()
    }

    /// Any bytes; returns what was put into the reply.
    pub(super) fn raw(&self, message: Vec<u8>, room: usize) -> Vec<u8> {
        let mut sink = Bytes(vec![0; room]);
        let length = self.server.serve(&mut Bytes(message), &mut sink);
        sink.0.truncate(length);
        assert_eq!(sink.0.len(), length, "more was put than fits");
        sink.0
    }

    pub(super) fn lookup(&self, directory: u64, name: impl AsRef<[u8]>) -> Result<u64, Errno> {
        self.call(opcode::LOOKUP, directory, text(name)).map(|entry| node(&entry))
    }

    pub(super) fn path(&self, path: &str) -> Result<u64, Errno> {
        path.split('/').try_fold(self.root, |directory, name| self.lookup(directory, name))
    }

    pub(super) fn open(&self, node: u64, flags: OFlags) -> Result<u64, Errno> {
        self.call(opcode::OPEN, node, Body::new().u32(flags.bits()).u32(0)).map(|reply| number(&reply, 0))
    }

    pub(super) fn create(&self, directory: u64, name: &str, mode: u32) -> Result<(u64, u64), Errno> {
        let flags = (OFlags::RDWR | OFlags::CREATE | OFlags::EXCL).bits();
        let body = Body::new().u32(flags).u32(mode).u32(0).u32(0).bytes(name.as_bytes()).u8_end();
        self.call(opcode::CREATE, directory, body).map(|reply| (node(&reply), number(&reply, 128)))
    }

    pub(super) fn mkdir(&self, directory: u64, name: &str) -> Result<u64, Errno> {
        let body = Body::new().u32(0o755).u32(0).bytes(name.as_bytes()).u8_end();
        self.call(opcode::MKDIR, directory, body).map(|reply| node(&reply))
    }

    pub(super) fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let body = Body::new().u64(handle).u64(offset).u32(size).u32(0).u64(0).u32(0).u32(0);
        self.call(opcode::READ, self.root, body)
    }

    pub(super) fn write(&self, handle: u64, offset: u64, bytes: &[u8], flags: (u32, OFlags)) -> Result<u32, Errno> {
        let size = u32::try_from(bytes.len()).unwrap();
        let body = Body::new().u64(handle).u64(offset).u32(size).u32(flags.0).u64(0).u32(flags.1.bits()).u32(0);
        let reply = self.call(opcode::WRITE, self.root, body.bytes(bytes))?;
        Fields::new(&reply).u32()
    }

    pub(super) fn rename(&self, from: (u64, &str), to: (u64, &str), flags: u32) -> Result<(), Errno> {
        let body = Body::new().u64(to.0).u32(flags).u32(0).bytes(from.1.as_bytes()).u8_end();
        self.call(opcode::RENAME2, from.0, body.bytes(to.1.as_bytes()).u8_end()).map(drop)
    }

    /// SETATTR with the given `valid` bits: size, mode, owner, times.
    pub(super) fn setattr(&self, node: u64, valid: u32, value: u64) -> Result<Vec<u8>, Errno> {
        let narrow = u32::try_from(value).unwrap_or(0);
        let body = Body::new().u32(valid).u32(0).u64(0).u64(value).u64(0).u64(value).u64(value).u64(0);
        let body = body.u32(0).u32(0).u32(0).u32(narrow).u32(0).u32(narrow).u32(narrow).u32(0);
        self.call(opcode::SETATTR, node, body)
    }

    /// Names in a directory, read in replies of `size` bytes.
    pub(super) fn list(&self, directory: u64, size: u32, opcode: u32) -> Vec<String> {
        let reply = self.call(opcode::OPENDIR, directory, Body::new().u32(0).u32(0)).unwrap();
        let handle = number(&reply, 0);
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let body = Body::new().u64(handle).u64(cookie).u32(size).zeroes(20);
            let reply = self.call(opcode, directory, body).unwrap();
            assert!(reply.len() <= usize::try_from(size).unwrap());
            if reply.is_empty() {
                break;
            }
            let mut rest = &reply[..];
            while !rest.is_empty() {
                if opcode == opcode::READDIRPLUS {
                    rest = &rest[128..];
                }
                cookie = number(rest, 8);
                let length = usize::try_from(Fields::new(&rest[16..]).u32().unwrap()).unwrap();
                names.push(String::from_utf8(rest[24..24 + length].to_vec()).unwrap());
                rest = &rest[(24 + length).next_multiple_of(8)..];
            }
        }
        self.call(opcode::RELEASEDIR, directory, Body::new().u64(handle).zeroes(16)).unwrap();
        names.sort();
        names
    }
}

impl Body {
    /// The NUL behind a string.
    pub(super) fn u8_end(self) -> Self {
        self.bytes(&[0])
    }
}

pub(super) fn text(text: impl AsRef<[u8]>) -> Body {
    Body::new().bytes(text.as_ref()).u8_end()
}

/// The 64-bit field at a position.
pub(super) fn number(reply: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(reply[at..at + 8].try_into().unwrap())
}

/// The node of a `fuse_entry_out`.
pub(super) fn node(entry: &[u8]) -> u64 {
    number(entry, 0)
}

/// Mode, links, uid, gid of a `fuse_attr`.
pub(super) fn mode_and_owner(attributes: &[u8]) -> [u32; 4] {
    let mut fields = Fields::new(&attributes[60..]);
    std::array::from_fn(|_| fields.u32().unwrap())
}
