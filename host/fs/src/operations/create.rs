//! New objects. They belong to the caller: see the crate's page for who makes them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, makedev, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;

use super::attributes::{SET_GID, SET_UID};
use super::file::{access_mode, open_reply};
use crate::host::{self, Result};
use crate::name::Name;
use crate::node::Node;
use crate::server::{Request, Server};
use crate::wire::{Body, Fields};

/// Permission bits with which an object is born; set-id bits follow when it has its owner.
fn birth(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o1777)
}

impl Server {
    /// A directory in which something is to be made.
    fn growing_directory(&self, id: u64) -> Result<Arc<Node>> {
        let directory = self.writable_node(id)?;
        self.tables().nodes.check_room()?;
        Ok(directory)
    }

    /// Gives a new object to the caller, and then the set-id bits that it asked for.
    ///
    /// A process that may not change owners keeps the object as its own. In a directory with set-group-id the group
    /// stays the directory's, as on any file system.
    fn give(&self, request: &Request<'_>, directory: &Node, fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
        let stat = host::stat(fd)?;
        let inherits = host::stat(directory.fd())?.mode & SET_GID != 0;
        let (uid, gid) = (request.header.uid, request.header.gid);
        let uid = (stat.uid != uid).then_some(uid);
        let gid = (!inherits && stat.gid != gid).then_some(gid);
        if uid.is_some() || gid.is_some() {
            match host::change_owner(fd, uid, gid) {
                // EINVAL: an id without meaning in our user namespace.
                Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        let special = mode & (SET_UID | SET_GID);
        if special != 0 && stat.kind() != FileType::Symlink {
            self.descriptors.change_mode(fd, (stat.mode & 0o7777) | special)?;
        }
        Ok(())
    }

    /// Finds what was just made under a name, gives it to the caller and enters it.
    fn born(&self, request: &Request<'_>, directory: &Node, name: Name<'_>, mode: u32) -> Result<Vec<u8>> {
        let fd = host::lookup(directory.fd(), name)?;
        self.give(request, directory, fd.as_fd(), mode)?;
        Ok(self.entry(&directory.export, Arc::new(fd))?.into_bytes())
    }

    pub(super) fn symlink(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (name, target) = (fields.name()?, fields.text()?);
        fields.end()?;
        let directory = self.growing_directory(request.header.node)?;
        // The target is text: only the guest ever follows it.
        symlinkat(target, directory.fd(), name.as_c_str())?;
        self.born(request, &directory, name, 0)
    }

    pub(super) fn mknod(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (mode, device) = (fields.u32()?, fields.u32()?);
        fields.skip(8)?;
        let name = fields.name()?;
        fields.end()?;
        let directory = self.growing_directory(request.header.node)?;
        let kind = FileType::from_raw_mode(mode);
        match kind {
            FileType::RegularFile | FileType::Fifo | FileType::Socket => {}
            // overlayfs's whiteout; it leads to no device.
            FileType::CharacterDevice if device == 0 => {}
            // A device node would be one of the host's, whoever opens it there.
            FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
            _ => return Err(Errno::INVAL),
        }
        mknodat(directory.fd(), name.as_c_str(), kind, birth(mode), makedev(0, 0))?;
        self.born(request, &directory, name, mode)
    }

    pub(super) fn mkdir(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let mode = fields.u32()?;
        fields.skip(4)?;
        let name = fields.name()?;
        fields.end()?;
        let directory = self.growing_directory(request.header.node)?;
        mkdirat(directory.fd(), name.as_c_str(), birth(mode))?;
        self.born(request, &directory, name, mode)
    }

    pub(super) fn link(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let old = fields.u64()?;
        let name = fields.name()?;
        fields.end()?;
        let directory = self.growing_directory(request.header.node)?;
        let node = self.node(old)?;
        if node.export.id != directory.export.id {
            return Err(Errno::XDEV);
        }
        self.descriptors.link(node.fd(), directory.fd(), name)?;
        Ok(self.entry(&directory.export, node.descriptor())?.into_bytes())
    }

    pub(super) fn create(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (flags, mode) = (fields.u32()?, fields.u32()?);
        fields.skip(8)?;
        let name = fields.name()?;
        fields.end()?;
        let access = access_mode(flags)? - OFlags::NOATIME;
        let directory = self.growing_directory(request.header.node)?;
        let new = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        match host::open_beneath(directory.fd(), name.as_c_str(), new, birth(mode)) {
            Ok(file) => self.born_open(request, &directory, file, mode),
            // Somebody on the host was faster.
            Err(Errno::EXIST) if !OFlags::from_bits_retain(flags).contains(OFlags::EXCL) => {
                let found = Arc::new(host::lookup(directory.fd(), name)?);
                self.enter_open(&directory, found, |node| self.open_as_asked(node, flags))
            }
            Err(errno) => Err(errno),
        }
    }

    /// A file without a name (`O_TMPFILE`); LINK can give it one.
    pub(super) fn tmpfile(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (flags, mode) = (fields.u32()?, fields.u32()?);
        let directory = self.growing_directory(request.header.node)?;
        // With O_EXCL it could never be linked (open(2)); the client checks that itself.
        let new = (access_mode(flags)? - OFlags::NOATIME) | OFlags::TMPFILE;
        let file = host::open_beneath(directory.fd(), c".", new, birth(mode))?;
        self.born_open(request, &directory, file, mode)
    }

    /// A new file that is open: `fuse_entry_out` and `fuse_open_out`.
    fn born_open(&self, request: &Request<'_>, directory: &Arc<Node>, file: OwnedFd, mode: u32) -> Result<Vec<u8>> {
        let fd = self.descriptors.reopen(file.as_fd(), OFlags::PATH)?;
        self.give(request, directory, fd.as_fd(), mode)?;
        self.enter_open(directory, Arc::new(fd), |_| Ok(file))
    }

    /// Enters an object together with a handle to it, or neither.
    fn enter_open(
        &self,
        directory: &Node,
        fd: Arc<OwnedFd>,
        open: impl FnOnce(&Node) -> Result<OwnedFd>,
    ) -> Result<Vec<u8>> {
        let (node, stat, number) = self.enter(&directory.export, fd)?;
        match open(&node).and_then(|file| self.add_file(&node, file)) {
            Ok(handle) => {
                let entry = Body::new().entry(node.id, super::VALID, number, &stat);
                Ok(open_reply(entry, handle).into_bytes())
            }
            Err(errno) => {
                self.tables().nodes.forget(node.id, 1);
                Err(errno)
            }
        }
    }
}
