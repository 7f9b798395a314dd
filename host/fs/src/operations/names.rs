//! Names that go away or change.

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::host::Result;
use crate::name::Name;
use crate::server::{Request, Server};
use crate::wire::Fields;

impl Server {
    pub(super) fn unlink(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        self.remove(request, AtFlags::empty())
    }

    pub(super) fn rmdir(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        self.remove(request, AtFlags::REMOVEDIR)
    }

    fn remove(&self, request: &Request<'_>, how: AtFlags) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let name = fields.name()?;
        fields.end()?;
        let directory = self.writable_node(request.header.node)?;
        unlinkat(directory.fd(), name.as_c_str(), how)?;
        Ok(Vec::new())
    }

    pub(super) fn rename(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let to = fields.u64()?;
        let names = names(fields)?;
        self.move_name(request, to, names, RenameFlags::empty())
    }

    pub(super) fn rename2(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (to, flags) = (fields.u64()?, fields.u32()?);
        fields.skip(4)?;
        let flags = RenameFlags::from_bits_retain(flags);
        // A whiteout is a device that leads nowhere; see MKNOD.
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE | RenameFlags::WHITEOUT).contains(flags) {
            return Err(Errno::INVAL);
        }
        let names = names(fields)?;
        self.move_name(request, to, names, flags)
    }

    fn move_name(
        &self,
        request: &Request<'_>,
        to: u64,
        (old, new): (Name<'_>, Name<'_>),
        flags: RenameFlags,
    ) -> Result<Vec<u8>> {
        let from = self.writable_node(request.header.node)?;
        let to = self.writable_node(to)?;
        if from.export.id != to.export.id {
            return Err(Errno::XDEV);
        }
        renameat_with(from.fd(), old.as_c_str(), to.fd(), new.as_c_str(), flags)?;
        Ok(Vec::new())
    }
}

fn names(mut fields: Fields<'_>) -> Result<(Name<'_>, Name<'_>)> {
    let names = (fields.name()?, fields.name()?);
    fields.end()?;
    Ok(names)
}
