//! What each operation does to the host's files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::client::{Client, mode_and_owner, node, number, path_descriptor, text};
use crate::wire::{Body, ROOT, opcode};
use crate::{ExportError, Limits, Server};

const PLAIN: (u32, OFlags) = (0, OFlags::RDWR);

#[test]
fn a_file_is_made_written_read_and_removed() {
    let client = Client::new(false);
    let (file, handle) = client.create(client.root, "file", 0o640).unwrap();
    assert_eq!(client.write(handle, 3, b"hello", PLAIN).unwrap(), 5);
    assert_eq!(client.read(handle, 0, 100).unwrap(), b"\0\0\0hello");
    assert_eq!(client.read(handle, 4, 2).unwrap(), b"el");
    assert_eq!(client.read(handle, 100, 2).unwrap(), b"");
    let fsync = |opcode, flags: u32| client.call(opcode, file, Body::new().u64(handle).u32(flags).u32(0));
    fsync(opcode::FSYNC, 0).unwrap();
    fsync(opcode::FSYNC, 1).unwrap();
    client.call(opcode::RELEASE, file, Body::new().u64(handle).zeroes(16)).unwrap();
    assert_eq!(client.read(handle, 0, 1).unwrap_err(), Errno::BADF);
    let path = client.tree.join("file");
    assert_eq!(fs::read(&path).unwrap(), b"\0\0\0hello");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(client.create(client.root, "file", 0o640).unwrap_err(), Errno::EXIST);
    client.call(opcode::UNLINK, client.root, text("file")).unwrap();
    assert!(!path.exists());
    // It is still there for who holds it.
    let attributes = client.call(opcode::GETATTR, file, Body::new().zeroes(16)).unwrap();
    assert_eq!(mode_and_owner(&attributes[16..])[1], 0);
}

#[test]
fn an_appended_write_goes_to_the_end_and_a_cached_one_to_its_place() {
    let client = Client::new(false);
    let (_, handle) = client.create(client.root, "log", 0o600).unwrap();
    client.write(handle, 0, b"12345", PLAIN).unwrap();
    client.write(handle, 0, b"678", (0, OFlags::RDWR | OFlags::APPEND)).unwrap();
    client.write(handle, 0, b"x", (1, OFlags::RDWR | OFlags::APPEND)).unwrap();
    assert_eq!(fs::read(client.tree.join("log")).unwrap(), b"x2345678");
}

#[test]
fn attributes_are_told_and_changed() {
    let client = Client::new(false);
    let (file, _) = client.create(client.root, "file", 0o600).unwrap();
    client.setattr(file, 1, 0o4751).unwrap();
    let path = client.tree.join("file");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o4751);
    let reply = client.setattr(file, 8, 12345).unwrap();
    assert_eq!(number(&reply[16..], 8), 12345);
    client.setattr(file, 16 | 32, 1_000_000_000).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 1_000_000_000);
    client.setattr(file, 256, 5).unwrap();
    assert!(fs::metadata(&path).unwrap().mtime() > 1_000_000_000);
    assert_eq!(fs::metadata(&path).unwrap().atime(), 1_000_000_000);
    // Without permission for anybody it still has attributes.
    client.setattr(file, 1, 0).unwrap();
    client.setattr(file, 1, 0o600).unwrap();
}

#[test]
fn truncating_and_writing_can_drop_set_id_bits() {
    let client = Client::new(false);
    let (file, handle) = client.create(client.root, "file", 0o6755).unwrap();
    let mode = || fs::metadata(client.tree.join("file")).unwrap().mode() & 0o7777;
    assert_eq!(mode(), 0o6755);
    client.write(handle, 0, b"x", (4, OFlags::RDWR)).unwrap();
    assert_eq!(mode(), 0o755);
    client.setattr(file, 1, 0o6755).unwrap();
    client.setattr(file, 8 | (1 << 11), 0).unwrap();
    assert_eq!(mode(), 0o755);
}

#[test]
fn allocating_and_copying_drop_a_users_set_id_bits() {
    let mut client = Client::new(false);
    let (file, handle) = client.create(client.root, "file", 0o755).unwrap();
    client.write(handle, 0, b"content", PLAIN).unwrap();
    let path = client.tree.join("file");
    let allocate = || Body::new().u64(handle).u64(0).u64(10).u32(0).u32(0);
    let copy = || Body::new().u64(handle).u64(0).u64(file).u64(handle).u64(100).u64(3).u64(0);
    let calls: [(u32, &dyn Fn() -> Body); 2] = [(opcode::FALLOCATE, &allocate), (opcode::COPY_FILE_RANGE, &copy)];
    for (opcode, body) in calls {
        for (uid, left) in [(0, 0o6755), (1000, 0o755)] {
            client.caller.0 = uid;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
            client.call(opcode, file, body()).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, left, "opcode {opcode}, uid {uid}");
        }
    }
}

#[test]
fn reading_can_leave_the_access_time_alone() {
    let client = Client::new(false);
    fs::write(client.tree.join("file"), "content").unwrap();
    let file = client.path("file").unwrap();
    client.setattr(file, 16 | 32, 1_000_000_000).unwrap();
    let handle = client.open(file, OFlags::RDONLY | OFlags::NOATIME).unwrap();
    assert_eq!(client.read(handle, 0, 100).unwrap(), b"content");
    assert_eq!(fs::metadata(client.tree.join("file")).unwrap().atime(), 1_000_000_000);
}

#[test]
fn what_root_makes_belongs_to_the_caller() {
    if !rustix::process::getuid().is_root() {
        println!("SKIPPED: what_root_makes_belongs_to_the_caller: only root can give files away");
        return;
    }
    let mut client = Client::new(false);
    client.caller = (1234, 5678);
    client.create(client.root, "file", 0o4755).unwrap();
    client.mkdir(client.root, "directory").unwrap();
    client.call(opcode::SYMLINK, client.root, Body::new().bytes(b"link\0target\0")).unwrap();
    for name in ["file", "directory", "link"] {
        let metadata = fs::symlink_metadata(client.tree.join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678), "{name}");
    }
    assert_eq!(fs::metadata(client.tree.join("file")).unwrap().mode() & 0o7777, 0o4755);
    // A directory with set-group-id hands on its group.
    fs::set_permissions(&client.tree, fs::Permissions::from_mode(0o2755)).unwrap();
    client.create(client.root, "shared", 0o600).unwrap();
    let metadata = fs::metadata(client.tree.join("shared")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 0));
}

#[test]
fn names_are_renamed_exchanged_and_linked() {
    let client = Client::new(false);
    fs::write(client.tree.join("a"), "a").unwrap();
    fs::write(client.tree.join("b"), "b").unwrap();
    let directory = client.mkdir(client.root, "d").unwrap();
    assert_eq!(client.rename((client.root, "a"), (client.root, "b"), 1).unwrap_err(), Errno::EXIST);
    client.rename((client.root, "a"), (client.root, "b"), 2).unwrap();
    assert_eq!(fs::read(client.tree.join("a")).unwrap(), b"b");
    client.rename((client.root, "a"), (directory, "c"), 0).unwrap();
    assert_eq!(fs::read(client.tree.join("d/c")).unwrap(), b"b");
    assert_eq!(client.rename((client.root, "b"), (directory, "c"), 8).unwrap_err(), Errno::INVAL);
    let file = client.path("d/c").unwrap();
    let linked = client.call(opcode::LINK, client.root, Body::new().u64(file).bytes(b"again\0")).unwrap();
    assert_eq!(node(&linked), file);
    assert_eq!(fs::metadata(client.tree.join("again")).unwrap().nlink(), 2);
    client.call(opcode::UNLINK, directory, text("c")).unwrap();
    client.call(opcode::RMDIR, client.root, text("d")).unwrap();
    assert_eq!(client.list(client.root, 4096, opcode::READDIR), [".", "..", "again", "b"]);
}

#[test]
fn a_rename_can_leave_a_whiteout() {
    use std::os::unix::fs::FileTypeExt;
    let client = Client::new(false);
    fs::write(client.tree.join("a"), "content").unwrap();
    match client.rename((client.root, "a"), (client.root, "b"), 4) {
        Ok(()) => {
            let whiteout = fs::symlink_metadata(client.tree.join("a")).unwrap();
            assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
        }
        // Not every file system has them.
        Err(errno) => assert_eq!(errno, Errno::INVAL),
    }
}

#[test]
fn the_time_of_birth_is_told() {
    let client = Client::new(false);
    let (file, _) = client.create(client.root, "file", 0o640).unwrap();
    client.setattr(file, 16 | 32, 1_000_000_000).unwrap();
    let reply = client.call(opcode::STATX, file, Body::new().zeroes(16).u32(0).u32(0xfff)).unwrap();
    assert_eq!(reply.len(), 32 + 256);
    let found = fs::metadata(client.tree.join("file")).unwrap();
    let born = found.created().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // stx_mask, stx_blksize; stx_atime, stx_btime, stx_mtime.
    assert_eq!(number(&reply, 32) & 0xffff_ffff, 0xfff);
    let times = [96, 112, 144].map(|at| number(&reply, at));
    assert_eq!(times, [1_000_000_000, born, 1_000_000_000]);
    assert_eq!(u32::try_from(number(&reply, 60) & 0xffff).unwrap(), found.mode());
    client.call(opcode::STATX, ROOT, Body::new().zeroes(16).u32(0).u32(0xfff)).unwrap();
}

#[test]
fn symbolic_links_are_text() {
    let client = Client::new(false);
    client.call(opcode::SYMLINK, client.root, Body::new().bytes(b"link\0../secret\0")).unwrap();
    let link = client.lookup(client.root, "link").unwrap();
    assert_eq!(client.call(opcode::READLINK, link, Body::new()).unwrap(), b"../secret");
    assert_eq!(client.open(link, OFlags::RDONLY).unwrap_err(), Errno::LOOP);
    assert_eq!(client.lookup(link, "x").unwrap_err(), Errno::NOTDIR);
    let again = client.call(opcode::LINK, client.root, Body::new().u64(link).bytes(b"hard\0")).unwrap();
    assert_eq!(node(&again), link);
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let client = Client::new(false);
    let flags = (OFlags::RDWR | OFlags::DIRECTORY).bits();
    let body = Body::new().u32(flags).u32(0o600).u32(0).u32(0).bytes(b"/\0");
    let reply = client.call(opcode::TMPFILE, client.root, body).unwrap();
    let (file, handle) = (node(&reply), number(&reply, 128));
    client.write(handle, 0, b"made whole", PLAIN).unwrap();
    assert_eq!(client.list(client.root, 4096, opcode::READDIR), [".", ".."]);
    client.call(opcode::LINK, client.root, Body::new().u64(file).bytes(b"named\0")).unwrap();
    assert_eq!(fs::read(client.tree.join("named")).unwrap(), b"made whole");
}

#[test]
fn holes_are_punched_found_and_kept() {
    let client = Client::new(false);
    let (_, handle) = client.create(client.root, "sparse", 0o600).unwrap();
    client.write(handle, 1 << 20, &[1; 65536], PLAIN).unwrap();
    let seek = |offset: u64, whence: u32| {
        client.call(opcode::LSEEK, client.root, Body::new().u64(handle).u64(offset).u32(whence).u32(0))
    };
    assert_eq!(number(&seek(0, 3).unwrap(), 0), 1 << 20);
    assert_eq!(number(&seek(0, 4).unwrap(), 0), 0);
    assert_eq!(seek(0, 0).unwrap_err(), Errno::INVAL);
    let allocate = |mode: u32| {
        let body = Body::new().u64(handle).u64(1 << 20).u64(65536).u32(mode).u32(0);
        client.call(opcode::FALLOCATE, client.root, body)
    };
    allocate(3).unwrap();
    assert_eq!(fs::metadata(client.tree.join("sparse")).unwrap().blocks(), 0);
    assert_eq!(allocate(8).unwrap_err(), Errno::OPNOTSUPP);
    let (_, copy) = client.create(client.root, "copy", 0o600).unwrap();
    client.write(handle, 0, b"part", PLAIN).unwrap();
    let body = Body::new().u64(handle).u64(0).u64(0).u64(copy).u64(1).u64(4).u64(0);
    client.call(opcode::COPY_FILE_RANGE, client.root, body).unwrap();
    assert_eq!(fs::read(client.tree.join("copy")).unwrap(), b"\0part");
}

#[test]
fn extended_attributes_of_users_are_kept_and_others_refused() {
    let client = Client::new(false);
    let (file, _) = client.create(client.root, "file", 0o600).unwrap();
    let set = |name: &[u8], value: &[u8]| {
        let size = u32::try_from(value.len()).unwrap();
        client.call(opcode::SETXATTR, file, Body::new().u32(size).u32(0).bytes(name).u8_end().bytes(value))
    };
    let get =
        |name: &[u8], size: u32| client.call(opcode::GETXATTR, file, Body::new().u32(size).u32(0).bytes(name).u8_end());
    match set(b"user.colour", b"green") {
        Err(Errno::OPNOTSUPP) => {
            println!(
                "SKIPPED: extended_attributes_of_users_are_kept_and_others_refused: the temporary directory has none"
            );
            return;
        }
        other => drop(other.unwrap()),
    }
    assert_eq!(get(b"user.colour", 100).unwrap(), b"green");
    assert_eq!(get(b"user.colour", 0).unwrap(), [5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(get(b"user.colour", 4).unwrap_err(), Errno::RANGE);
    assert_eq!(get(b"system.posix_acl_access", 4).unwrap_err(), Errno::OPNOTSUPP);
    assert_eq!(set(b"trusted.overlay.opaque", b"y").unwrap_err(), Errno::PERM);
    assert_eq!(set(b"security.selinux", b"y").unwrap_err(), Errno::PERM);
    let list = client.call(opcode::LISTXATTR, file, Body::new().u32(1000).u32(0)).unwrap();
    assert!(list.split(|byte| *byte == 0).any(|name| name == b"user.colour"));
    client.call(opcode::REMOVEXATTR, file, text("user.colour")).unwrap();
    assert_eq!(get(b"user.colour", 100).unwrap_err(), Errno::NODATA);
}

#[test]
fn a_large_directory_is_listed_whole_in_replies_of_any_size() {
    let client = Client::new(false);
    let mut expected: Vec<String> = (0..1000).map(|index| format!("entry-{index}")).collect();
    for name in &expected {
        fs::write(client.tree.join(name), "").unwrap();
    }
    expected.extend([".".into(), "..".into()]);
    expected.sort();
    for size in [512, 4096, 1 << 20] {
        assert_eq!(client.list(client.root, size, opcode::READDIR), expected);
        assert_eq!(client.list(client.root, size, opcode::READDIRPLUS), expected);
    }
    // Listings took half of the nodes at most.
    assert!(client.server.held().0 <= super::client::LIMITS.nodes / 2 + 1);
}

#[test]
fn the_root_lists_exports_which_come_and_go() {
    let client = Client::new(false);
    fs::write(client.tree.join("file"), "content").unwrap();
    client.server.export("file", path_descriptor(client.tree.join("file")), true).unwrap();
    assert_eq!(client.list(ROOT, 4096, opcode::READDIR), [".", "..", "file", "tree"]);
    assert_eq!(client.list(ROOT, 40, opcode::READDIR), [".", "..", "file", "tree"]);
    assert_eq!(client.list(ROOT, 4096, opcode::READDIRPLUS), [".", "..", "file", "tree"]);
    let file = client.lookup(ROOT, "file").unwrap();
    assert_ne!(file, client.path("file").unwrap());
    let handle = client.open(file, OFlags::RDONLY).unwrap();
    assert_eq!(client.read(handle, 0, 100).unwrap(), b"content");
    client.server.unexport("file").unwrap();
    assert_eq!(client.read(handle, 0, 100).unwrap_err(), Errno::BADF);
    assert_eq!(client.open(file, OFlags::RDONLY).unwrap_err(), Errno::STALE);
    assert_eq!(client.lookup(ROOT, "file").unwrap_err(), Errno::NOENT);
    assert!(client.path("file").is_ok());
    for (name, fd) in [("tree", &client.tree), ("a/b", &client.tree), ("..", &client.tree), ("", &client.tree)] {
        assert!(client.server.export(name, path_descriptor(fd), true).is_err(), "{name:?}");
    }
    let opened = fs::File::open(&client.tree).unwrap().into();
    assert!(matches!(client.server.export("opened", opened, true), Err(ExportError::Access(_))));
    assert!(matches!(client.server.export("null", path_descriptor("/dev/null"), true), Err(ExportError::Kind(_))));
    assert!(matches!(client.server.unexport("nothing"), Err(ExportError::Unknown(_))));
}

#[test]
fn what_the_host_changes_is_seen() {
    let client = Client::new(false);
    fs::create_dir(client.tree.join("..1")).unwrap();
    fs::create_dir(client.tree.join("..2")).unwrap();
    symlink("..1", client.tree.join("..data")).unwrap();
    let old = client.lookup(client.root, "..data").unwrap();
    symlink("..2", client.tree.join("..new")).unwrap();
    fs::rename(client.tree.join("..new"), client.tree.join("..data")).unwrap();
    let new = client.lookup(client.root, "..data").unwrap();
    assert_ne!(old, new);
    assert_eq!(client.call(opcode::READLINK, new, Body::new()).unwrap(), b"..2");
    assert_eq!(client.call(opcode::READLINK, old, Body::new()).unwrap(), b"..1");
}

#[test]
fn everything_held_is_counted_bounded_and_given_back() {
    let client = Client::new(false);
    fs::write(client.tree.join("file"), "").unwrap();
    let file = client.path("file").unwrap();
    assert_eq!(client.path("file").unwrap(), file);
    assert_eq!(client.server.held(), (2, 0));
    let forget = |lookups: u64| {
        let message = client.message(opcode::FORGET, file, &Body::new().u64(lookups).into_bytes());
        assert_eq!(client.raw(message, 0), b"");
    };
    forget(1);
    assert_eq!(client.server.held(), (2, 0));
    forget(1);
    assert_eq!(client.server.held(), (1, 0));
    let file = client.path("file").unwrap();
    let Limits { handles, nodes } = super::client::LIMITS;
    for _ in 0..handles {
        client.open(file, OFlags::RDONLY).unwrap();
    }
    assert_eq!(client.open(file, OFlags::RDONLY).unwrap_err(), Errno::NFILE);
    for index in 0..nodes - 2 {
        client.mkdir(client.root, &index.to_string()).unwrap();
    }
    assert_eq!(client.mkdir(client.root, "more").unwrap_err(), Errno::NFILE);
    assert!(!client.tree.join("more").exists());
    client.call(opcode::DESTROY, 0, Body::new()).unwrap();
    assert_eq!(client.server.held(), (0, 0));
    assert_eq!(client.lookup(ROOT, "tree").unwrap_err(), Errno::IO);
    client.init();
    assert_eq!(client.call(opcode::GETATTR, file, Body::new().zeroes(16)).unwrap_err(), Errno::STALE);
}

#[test]
fn the_session_is_negotiated() {
    let client = Client::new(false);
    let reply = client.init();
    assert_eq!(reply.len(), 64);
    assert_eq!(number(&reply, 0), 7 | (41 << 32));
    let old = Body::new().u32(7).u32(8).u32(0).u32(0);
    assert_eq!(client.call(opcode::INIT, 0, old).unwrap_err(), Errno::PROTO);
    assert_eq!(client.call(4321, 1, Body::new()).unwrap_err(), Errno::NOSYS);
    assert_eq!(client.call(opcode::STATFS, ROOT, Body::new()).unwrap().len(), 80);
    let root = client.lookup(ROOT, "tree").unwrap();
    assert_eq!(client.call(opcode::STATFS, root, Body::new()).unwrap().len(), 80);
    client.call(opcode::ACCESS, root, Body::new().u32(2).u32(0)).unwrap();
    assert_eq!(client.call(opcode::ACCESS, ROOT, Body::new().u32(2).u32(0)).unwrap_err(), Errno::ROFS);
}

#[test]
fn only_the_own_descriptors_are_taken() {
    assert!(Server::new(path_descriptor("/proc/1/fd"), super::client::LIMITS).is_err());
    assert!(Server::new(path_descriptor("/tmp"), super::client::LIMITS).is_err());
}
