//! The host moves things about while a client works: whatever comes between a name and its use, nothing outside the
//! tree is read, changed or made.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::client::{Client, node, text};
use crate::wire::{Body, opcode};

/// Long enough for tens of thousands of rounds.
const DURATION: Duration = Duration::from_secs(2);

/// Everything outside the tree, as a line for each: what a client reaches there would change one.
fn outside(client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![client.outside.path().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path == client.tree {
                continue;
            }
            let seen = fs::symlink_metadata(&path).unwrap();
            found.push(format!(
                "{} {:o} {} {} {} {}.{}",
                path.display(),
                seen.mode(),
                seen.nlink(),
                seen.uid(),
                seen.len(),
                seen.ctime(),
                seen.ctime_nsec()
            ));
            if seen.is_dir() {
                directories.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Ends the host's thread also when the guest's panics.
struct End<'s>(&'s AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `host` again and again in a thread of its own while `guest` does.
fn race(host: impl Fn() + Sync, mut guest: impl FnMut()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                host();
            }
        });
        let _end = End(&stop);
        let end = Instant::now() + DURATION;
        while Instant::now() < end {
            guest();
        }
    });
}

fn exchange(a: &Path, b: &Path) {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

/// What must not happen is success outside; any other answer is as good as another.
fn attempt(result: Result<impl Sized, Errno>) {
    drop(result);
}

/// Everything that a client can do with a name.
fn abuse(client: &Client, directory: u64, name: &str) {
    let named = |number: u64| Body::new().u64(number).bytes(name.as_bytes()).bytes(&[0]);
    attempt(client.create(directory, "made", 0o666));
    attempt(client.mkdir(directory, "dir"));
    attempt(client.call(opcode::SYMLINK, directory, Body::new().bytes(b"link\0target\0")));
    attempt(client.rename((directory, name), (client.root, "taken"), 0));
    attempt(client.rename((client.root, "taken"), (directory, name), 0));
    attempt(client.call(opcode::LINK, client.root, named(directory)));
    attempt(client.call(opcode::UNLINK, directory, text("made")));
    attempt(client.call(opcode::RMDIR, directory, text("dir")));
    attempt(client.call(opcode::UNLINK, directory, text("link")));
    attempt(client.call(opcode::OPENDIR, directory, Body::new().u32(0).u32(0)));
}

/// A file of the tree, of this content, and a symbolic link to the secret change places.
#[test]
fn a_file_that_becomes_a_link_is_not_followed() {
    let mut client = Client::new(false);
    let (file, link) = (client.tree.join("file"), client.tree.join("link"));
    fs::write(&file, "inside").unwrap();
    symlink("../secret", &link).unwrap();
    let before = outside(&client);
    let (mut read, mut refused) = (0, 0);
    let (a, b): (PathBuf, PathBuf) = (file, link);
    race(
        || exchange(&a, &b),
        || {
            let found = client.lookup(client.root, "file").unwrap();
            match client.open(found, OFlags::RDWR) {
                Ok(handle) => {
                    assert_eq!(client.read(handle, 0, 100).unwrap(), b"inside");
                    client.write(handle, 0, b"inside", (0, OFlags::RDWR)).unwrap();
                    read += 1;
                }
                Err(errno) => {
                    assert_eq!(errno, Errno::LOOP);
                    refused += 1;
                }
            }
            attempt(client.open(found, OFlags::WRONLY | OFlags::TRUNC).and(Ok(())));
            // Whoever truncated the file restores it.
            if let Ok(handle) = client.open(found, OFlags::RDWR) {
                client.write(handle, 0, b"inside", (0, OFlags::RDWR)).unwrap();
            }
            attempt(client.setattr(found, 1, 0o777));
            attempt(client.setattr(found, 16 | 32, 5));
            attempt(client.call(opcode::SETXATTR, found, Body::new().u32(1).u32(0).bytes(b"user.x\0x")));
            // CREATE without O_EXCL finds what is there by then.
            let body = Body::new().u32((OFlags::RDWR | OFlags::CREATE).bits()).u32(0o600).u32(0).u32(0);
            attempt(client.call(opcode::CREATE, client.root, body.bytes(b"file\0")));
            client.begin_anew();
        },
    );
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused: there was no race");
    assert_eq!(outside(&client), before);
}

/// The directory in the middle of a path becomes a link to a directory outside, which holds the same names.
#[test]
fn a_directory_that_becomes_a_link_leads_nowhere() {
    let mut client = Client::new(false);
    let elsewhere = client.outside.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("deep")).unwrap();
    fs::write(elsewhere.join("deep/file"), "outside").unwrap();
    let (middle, link) = (client.tree.join("middle"), client.tree.join("link"));
    fs::create_dir_all(middle.join("deep")).unwrap();
    fs::write(middle.join("deep/file"), "inside").unwrap();
    symlink("../elsewhere", &link).unwrap();
    let before = outside(&client);
    let (mut inside, mut refused) = (0, 0);
    race(
        || exchange(&middle, &link),
        || {
            match client.path("middle/deep/file").and_then(|file| client.open(file, OFlags::RDONLY)) {
                Ok(handle) => {
                    assert_eq!(client.read(handle, 0, 100).unwrap(), b"inside");
                    inside += 1;
                }
                Err(_) => refused += 1,
            }
            if let Ok(found) = client.lookup(client.root, "middle") {
                abuse(&client, found, "deep");
            }
            client.begin_anew();
        },
    );
    assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused: there was no race");
    assert_eq!(outside(&client), before);
}

/// A directory that the client holds is moved up and down the tree: there is no name for what is above it.
#[test]
fn a_held_directory_that_moves_shows_nothing_above_it() {
    let client = Client::new(false);
    let (high, low) = (client.tree.join("held"), client.tree.join("a/b/held"));
    fs::create_dir_all(client.tree.join("a/b")).unwrap();
    fs::create_dir(&high).unwrap();
    let before = outside(&client);
    let held = client.lookup(client.root, "held").unwrap();
    race(
        || {
            fs::rename(&high, &low).unwrap();
            fs::rename(&low, &high).unwrap();
        },
        || {
            for name in ["..", "../secret", "../../secret", "secret"] {
                assert!(client.lookup(held, name).is_err(), "{name}");
            }
            let (made, handle) = client.create(held, "made", 0o600).unwrap();
            client.call(opcode::RELEASE, held, Body::new().u64(handle).zeroes(16)).unwrap();
            client.call(opcode::UNLINK, held, text("made")).unwrap();
            client.raw(client.message(opcode::FORGET, made, &1_u64.to_ne_bytes()), 0);
            let listed = client.list(held, 4096, opcode::READDIRPLUS);
            assert_eq!(listed, [".", ".."]);
        },
    );
    assert_eq!(outside(&client), before);
}

/// The export's own root is moved and a link takes its name: the tree stays the one that was exported.
#[test]
fn the_exported_tree_is_the_one_that_was_opened() {
    let mut client = Client::new(false);
    fs::write(client.tree.join("file"), "inside").unwrap();
    let moved = client.outside.path().join("moved");
    fs::rename(&client.tree, &moved).unwrap();
    symlink("/etc", &client.tree).unwrap();
    client.begin_anew();
    assert!(client.path("passwd").is_err());
    let made = client.call(opcode::MKDIR, client.root, Body::new().u32(0o755).u32(0).bytes(b"new\0")).unwrap();
    assert!(node(&made) > 1 && moved.join("new").is_dir());
    assert!(client.path("file").is_ok());
}
