//! Extended attributes.
//!
//! Of regular files and directories only: others can have none that an ordinary program sets (xattr(7)). POSIX ACLs are
//! kept out, because the guest, which checks permissions, is not told to apply them. What can be written is `user.*`,
//! and the capabilities of a file; anything else there is the host's own (labels, overlayfs marks).

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use crate::host::Result;
use crate::node::Node;
use crate::server::{Request, Server};
use crate::wire::{Body, Fields, ROOT};

/// Longest value, and longest list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const SIZE_MAX: usize = 64 << 10;
const NAME_MAX: usize = 255;

fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b"system.")
}

/// Those that Linux has, without `system.`.
fn is_known(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"security."].iter().any(|space| name.starts_with(space))
}

fn readable(name: &CStr) -> Result<()> {
    match name.to_bytes() {
        b"" => Err(Errno::INVAL),
        bytes if bytes.len() > NAME_MAX => Err(Errno::RANGE),
        bytes if !is_known(bytes) => Err(Errno::OPNOTSUPP),
        _ => Ok(()),
    }
}

fn writable(name: &CStr) -> Result<()> {
    readable(name)?;
    let bytes = name.to_bytes();
    if bytes.starts_with(b"user.") || bytes == b"security.capability" { Ok(()) } else { Err(Errno::PERM) }
}

/// A value, or its size where the client asked with a size of 0.
fn answer(size: usize, value: &[u8]) -> Result<Vec<u8>> {
    if size == 0 {
        let length = u32::try_from(value.len()).map_err(|_| Errno::RANGE)?;
        return Ok(Body::new().u32(length).u32(0).into_bytes());
    }
    if value.len() > size { Err(Errno::RANGE) } else { Ok(value.to_vec()) }
}

impl Server {
    /// A descriptor that takes attribute calls, which refuse `O_PATH`; `None` for what has no attributes.
    fn attributed(&self, node: &Node) -> Result<Option<OwnedFd>> {
        match node.kind {
            FileType::RegularFile | FileType::Directory => {
                self.descriptors.reopen(node.fd(), OFlags::RDONLY | OFlags::NONBLOCK).map(Some)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn getxattr(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let size = usize::try_from(fields.u32()?).map_err(|_| Errno::RANGE)?;
        fields.skip(4)?;
        let name = fields.text()?;
        fields.end()?;
        readable(name)?;
        if request.header.node == ROOT {
            return Err(Errno::NODATA);
        }
        let file = self.attributed(&*self.node(request.header.node)?)?.ok_or(Errno::NODATA)?;
        let mut value = vec![0; SIZE_MAX];
        let length = fgetxattr(&file, name, value.as_mut_slice())?;
        answer(size, value.get(..length).unwrap_or_default())
    }

    pub(super) fn listxattr(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let size = usize::try_from(Fields::new(request.body).u32()?).map_err(|_| Errno::RANGE)?;
        if request.header.node == ROOT {
            return answer(size, b"");
        }
        let Some(file) = self.attributed(&*self.node(request.header.node)?)? else { return answer(size, b"") };
        let mut names = vec![0; SIZE_MAX];
        let length = flistxattr(&file, names.as_mut_slice())?;
        let shown = names.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == 0);
        answer(size, &shown.filter(|name| !is_hidden(name)).collect::<Vec<_>>().concat())
    }

    pub(super) fn setxattr(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let size = usize::try_from(fields.u32()?).map_err(|_| Errno::TOOBIG)?;
        let flags = fields.u32()?;
        let name = fields.text()?;
        if size > SIZE_MAX {
            return Err(Errno::TOOBIG);
        }
        let value = fields.bytes(size)?;
        fields.end()?;
        let node = self.writable_node(request.header.node)?;
        writable(name)?;
        let file = self.attributed(&node)?.ok_or(Errno::PERM)?;
        fsetxattr(&file, name, value, XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?)?;
        Ok(Vec::new())
    }

    pub(super) fn removexattr(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let name = fields.text()?;
        fields.end()?;
        let node = self.writable_node(request.header.node)?;
        writable(name)?;
        let file = self.attributed(&node)?.ok_or(Errno::PERM)?;
        fremovexattr(&file, name)?;
        Ok(Vec::new())
    }
}
