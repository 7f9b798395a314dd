//! A read-only export refuses every operation that would change something.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::client::{Client, text};
use crate::wire::{Body, ROOT, opcode};

fn refused(reply: Result<impl std::fmt::Debug, Errno>, what: &str) {
    assert_eq!(reply.unwrap_err(), Errno::ROFS, "{what}");
}

#[test]
fn every_change_of_a_read_only_export_is_refused() {
    let client = Client::new(true);
    fs::write(client.tree.join("file"), "content").unwrap();
    fs::create_dir(client.tree.join("directory")).unwrap();
    let before = fs::metadata(client.tree.join("file")).unwrap();
    let (root, file) = (client.root, client.path("file").unwrap());

    for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::TRUNC, OFlags::RDWR | OFlags::APPEND] {
        refused(client.open(file, flags), "open");
    }
    refused(client.create(root, "new", 0o644), "create");
    refused(client.mkdir(root, "new"), "mkdir");
    let calls = [
        (opcode::SYMLINK, Body::new().bytes(b"new\0target\0")),
        (opcode::MKNOD, Body::new().u32(0o100_644).u32(0).u32(0).u32(0).bytes(b"new\0")),
        (opcode::LINK, Body::new().u64(file).bytes(b"new\0")),
        (opcode::TMPFILE, Body::new().u32(OFlags::RDWR.bits()).u32(0o600).u32(0).u32(0)),
        (opcode::UNLINK, text("file")),
        (opcode::RMDIR, text("directory")),
        (opcode::RENAME, Body::new().u64(root).bytes(b"file\0new\0")),
        (opcode::RENAME2, Body::new().u64(root).u32(2).u32(0).bytes(b"file\0directory\0")),
        (opcode::SETXATTR, Body::new().u32(1).u32(0).bytes(b"user.x\0x")),
        (opcode::REMOVEXATTR, text("user.x")),
        (opcode::ACCESS, Body::new().u32(2).u32(0)),
    ];
    for (opcode, body) in calls {
        refused(client.call(opcode, root, body), &format!("opcode {opcode}"));
    }
    for valid in [1, 2, 4, 8, 16, 32, 128, 256] {
        refused(client.setattr(file, valid, 0), &format!("setattr {valid}"));
    }
    // With a handle for reading, and a guest that does not care what it is for.
    let handle = client.open(file, OFlags::RDONLY).unwrap();
    refused(client.write(handle, 0, b"x", (0, OFlags::RDWR)), "write");
    let allocate = Body::new().u64(handle).u64(0).u64(10).u32(0).u32(0);
    refused(client.call(opcode::FALLOCATE, file, allocate), "fallocate");
    let copy = Body::new().u64(handle).u64(0).u64(file).u64(handle).u64(100).u64(3).u64(0);
    refused(client.call(opcode::COPY_FILE_RANGE, file, copy), "copy_file_range");

    assert_eq!(client.read(handle, 0, 100).unwrap(), b"content");
    let after = fs::metadata(client.tree.join("file")).unwrap();
    assert_eq!((after.ctime_nsec(), after.ctime()), (before.ctime_nsec(), before.ctime()));
    assert_eq!(client.list(root, 4096, opcode::READDIR), [".", "..", "directory", "file"]);
}

#[test]
fn the_synthetic_root_cannot_be_changed() {
    let client = Client::new(false);
    refused(client.create(ROOT, "new", 0o644), "create");
    refused(client.mkdir(ROOT, "new"), "mkdir");
    refused(client.call(opcode::RMDIR, ROOT, text("tree")), "rmdir");
    refused(client.rename((ROOT, "tree"), (client.root, "new"), 0), "rename");
    refused(client.rename((client.root, "tree"), (ROOT, "new"), 0), "rename");
    refused(client.setattr(ROOT, 1, 0o777), "setattr");
}

#[test]
fn nothing_moves_from_one_export_into_another() {
    let client = Client::new(false);
    let other = tempfile::tempdir().unwrap();
    client.server.export("other", super::client::path_descriptor(other.path()), false).unwrap();
    let other = client.lookup(ROOT, "other").unwrap();
    let (file, _) = client.create(client.root, "file", 0o644).unwrap();
    assert_eq!(client.rename((client.root, "file"), (other, "file"), 0).unwrap_err(), Errno::XDEV);
    let link = Body::new().u64(file).bytes(b"file\0");
    assert_eq!(client.call(opcode::LINK, other, link).unwrap_err(), Errno::XDEV);
}
