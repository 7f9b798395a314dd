//! The connection itself, and what concerns no single file.

use rustix::io::Errno;

use crate::host::Result;
use crate::server::{MAX_WRITE, Request, Server};
use crate::wire::{Body, Fields, ROOT};

const MAJOR: u32 = 7;
/// What we speak; an older client than Linux 5.12 (which brought HANDLE_KILLPRIV_V2) is refused.
const MINOR: u32 = 41;
const MINOR_LEAST: u32 = 33;

// Flags of INIT.
const ASYNC_READ: u32 = 1 << 0;
const ATOMIC_O_TRUNC: u32 = 1 << 3;
const BIG_WRITES: u32 = 1 << 5;
const AUTO_INVAL_DATA: u32 = 1 << 12;
const DO_READDIRPLUS: u32 = 1 << 13;
const READDIRPLUS_AUTO: u32 = 1 << 14;
const ASYNC_DIO: u32 = 1 << 15;
const PARALLEL_DIROPS: u32 = 1 << 18;
const MAX_PAGES: u32 = 1 << 22;
/// We clear set-user-id bits when told that a writer may not keep them, so that the client need not ask for the
/// `security.capability` attribute before every write.
const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
/// There are 32 more flags.
const INIT_EXT: u32 = 1 << 30;
/// Of those: mounts may map ids, since the client checks permissions and we look at the ids of a request only to give
/// away what it makes. Other requests then have no ids.
const ALLOW_IDMAP: u32 = 1 << 8;

const OFFERED: u32 = ASYNC_READ
    | ATOMIC_O_TRUNC
    | BIG_WRITES
    | AUTO_INVAL_DATA
    | DO_READDIRPLUS
    | READDIRPLUS_AUTO
    | ASYNC_DIO
    | PARALLEL_DIROPS
    | MAX_PAGES
    | HANDLE_KILLPRIV_V2
    | INIT_EXT;

/// Requests that the client may have in work without waiting; the kernel's own default is 12.
const BACKGROUND: u16 = 64;
const CONGESTION: u16 = 48;
const PAGE: u32 = 4096;
/// The mask bit of ACCESS for writing (`W_OK`).
const WRITE_ACCESS: u32 = 2;

impl Server {
    pub(super) fn init(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (major, minor, readahead, flags) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let more = if flags & INIT_EXT == 0 { 0 } else { fields.u32()? };
        if major < MAJOR || (major == MAJOR && minor < MINOR_LEAST) {
            return Err(Errno::PROTO);
        }
        // A client that begins anew holds nothing.
        self.disconnect();
        if major == MAJOR {
            self.tables().initialised = true;
        }
        // A client with a newer major number sees ours, and asks again with it.
        let body = Body::new().u32(MAJOR).u32(MINOR).u32(readahead).u32(flags & OFFERED).u16(BACKGROUND);
        let pages = u16::try_from(MAX_WRITE / PAGE).unwrap_or(1);
        let body = body.u16(CONGESTION).u32(MAX_WRITE).u32(1).u16(pages).u16(0).u32(more & ALLOW_IDMAP).u32(0);
        Ok(body.zeroes(24).into_bytes())
    }

    pub(super) fn statfs(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        if request.header.node == ROOT {
            let body = Body::new().zeroes(40).u32(PAGE).u32(255).u32(PAGE).zeroes(28);
            return Ok(body.into_bytes());
        }
        let found = rustix::fs::fstatvfs(self.node(request.header.node)?.fd())?;
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let body = Body::new().u64(found.f_blocks).u64(found.f_bfree).u64(found.f_bavail);
        let body = body.u64(found.f_files).u64(found.f_ffree);
        let body = body.u32(narrow(found.f_bsize)).u32(narrow(found.f_namemax)).u32(narrow(found.f_frsize)).zeroes(28);
        Ok(body.into_bytes())
    }

    /// Permissions are the guest's business; that an export is read-only is ours.
    pub(super) fn access(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mask = Fields::new(request.body).u32()?;
        match request.header.node {
            ROOT if mask & WRITE_ACCESS != 0 => return Err(Errno::ROFS),
            ROOT => {}
            id if mask & WRITE_ACCESS != 0 => self.node(id)?.check_writable()?,
            id => drop(self.node(id)?),
        }
        Ok(Vec::new())
    }

    pub(super) fn forget(&self, request: &Request<'_>) -> Result<()> {
        let lookups = Fields::new(request.body).u64()?;
        self.tables().nodes.forget(request.header.node, lookups);
        Ok(())
    }

    pub(super) fn batch_forget(&self, request: &Request<'_>) -> Result<()> {
        let mut fields = Fields::new(request.body);
        let count = fields.u32()?;
        fields.skip(4)?;
        // Ends with the bytes, however large the count says it is.
        for _ in 0..count {
            let (id, lookups) = (fields.u64()?, fields.u64()?);
            self.tables().nodes.forget(id, lookups);
        }
        Ok(())
    }
}
