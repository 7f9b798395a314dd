//! The operations of FUSE, one function each.

mod attributes;
mod create;
mod directory;
mod file;
mod names;
mod session;
mod xattr;

use rustix::io::Errno;

use crate::host::Result;
use crate::io::{Sink, Source};
use crate::server::{Answer, Request, Server};
use crate::wire::opcode;

/// Length of `fuse_write_in`, which precedes the data of a WRITE.
pub(crate) const WRITE_FIELDS: usize = 40;

/// How long, in seconds, the client may believe attributes and names. What the host changes shows after that time at
/// the latest; 0 would make every step of every path a request.
pub(crate) const VALID: u64 = 1;
/// The same for entries of the synthetic root: exports come and go at once.
pub(crate) const VALID_IN_ROOT: u64 = 0;

pub(crate) fn perform(
    server: &Server,
    request: &Request<'_>,
    source: &mut dyn Source,
    sink: &mut dyn Sink,
) -> Result<Answer> {
    let body = match request.header.opcode {
        opcode::INIT => server.init(request),
        opcode::STATFS => server.statfs(request),
        opcode::ACCESS => server.access(request),
        opcode::DESTROY => {
            server.disconnect();
            Ok(Vec::new())
        }
        opcode::INTERRUPT => return Ok(Answer::Silence),
        opcode::FORGET => return server.forget(request).map(|()| Answer::Silence),
        opcode::BATCH_FORGET => return server.batch_forget(request).map(|()| Answer::Silence),

        opcode::LOOKUP => server.lookup(request),
        opcode::GETATTR => server.getattr(request),
        opcode::STATX => server.statx(request),
        opcode::SETATTR => server.setattr(request),
        opcode::READLINK => server.readlink(request),

        opcode::SYMLINK => server.symlink(request),
        opcode::MKNOD => server.mknod(request),
        opcode::MKDIR => server.mkdir(request),
        opcode::LINK => server.link(request),
        opcode::CREATE => server.create(request),
        opcode::TMPFILE => server.tmpfile(request),

        opcode::UNLINK => server.unlink(request),
        opcode::RMDIR => server.rmdir(request),
        opcode::RENAME => server.rename(request),
        opcode::RENAME2 => server.rename2(request),

        opcode::OPEN => server.open(request),
        opcode::READ => return server.read(request, sink).map(Answer::Filled),
        opcode::WRITE => server.write(request, source),
        opcode::RELEASE | opcode::RELEASEDIR => server.release(request),
        opcode::FSYNC => server.fsync(request),
        opcode::FALLOCATE => server.fallocate(request),
        opcode::LSEEK => server.lseek(request),
        opcode::COPY_FILE_RANGE => server.copy_file_range(request),

        opcode::OPENDIR => server.opendir(request),
        opcode::READDIR => server.readdir(request, sink.room(), directory::Style::Names),
        opcode::READDIRPLUS => server.readdir(request, sink.room(), directory::Style::Entries),
        opcode::FSYNCDIR => server.fsyncdir(request),

        opcode::SETXATTR => server.setxattr(request),
        opcode::GETXATTR => server.getxattr(request),
        opcode::LISTXATTR => server.listxattr(request),
        opcode::REMOVEXATTR => server.removexattr(request),

        // The client remembers this and does not ask again. FLUSH is among them: what was written is in the host's page
        // cache already. So are locks: the guest's kernel keeps them for all containers of the pod.
        _ => Err(Errno::NOSYS),
    };
    body.map(Answer::Body)
}
