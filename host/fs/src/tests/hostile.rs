//! A client that means harm, and a host that changes underneath.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::client::{Client, text};
use crate::wire::{Body, ROOT, opcode};

#[test]
fn names_that_lead_elsewhere_find_nothing() {
    let client = Client::new(false);
    fs::create_dir(client.tree.join("directory")).unwrap();
    symlink("..", client.tree.join("up")).unwrap();
    symlink("/", client.tree.join("slash")).unwrap();
    let directory = client.path("directory").unwrap();
    for name in ["..", ".", "", "../secret", "/etc/passwd", "directory/..", "up/secret", "a\0b"] {
        for from in [client.root, directory, ROOT] {
            assert_eq!(client.lookup(from, name).unwrap_err(), Errno::INVAL, "{name:?}");
            assert_eq!(client.mkdir(from, name).unwrap_err(), Errno::INVAL, "{name:?}");
            let removed = client.call(opcode::UNLINK, from, text(name));
            assert_eq!(removed.unwrap_err(), Errno::INVAL, "{name:?}");
        }
        let moved = client.rename((client.root, "directory"), (client.root, name), 0);
        assert_eq!(moved.unwrap_err(), Errno::INVAL, "{name:?}");
    }
    for link in ["up", "slash"] {
        let link = client.path(link).unwrap();
        for name in ["secret", "etc"] {
            assert_eq!(client.lookup(link, name).unwrap_err(), Errno::NOTDIR);
            assert_eq!(client.mkdir(link, name).unwrap_err(), Errno::NOTDIR);
        }
    }
}

#[test]
fn devices_and_fifos_of_the_host_are_not_opened_nor_made() {
    let client = Client::new(false);
    let node = |mode: u32, device: u32, name: &str| {
        let body = Body::new().u32(mode).u32(device).u32(0).u32(0).bytes(name.as_bytes()).u8_end();
        client.call(opcode::MKNOD, client.root, body)
    };
    assert_eq!(node(0o020_666, 0x103, "null").unwrap_err(), Errno::PERM);
    assert_eq!(node(0o060_666, 0x800, "sda").unwrap_err(), Errno::PERM);
    assert_eq!(node(0o040_755, 0, "directory").unwrap_err(), Errno::INVAL);
    node(0o010_600, 0, "fifo").unwrap();
    node(0o140_600, 0, "socket").unwrap();
    node(0o100_600, 0, "file").unwrap();
    for name in ["fifo", "socket"] {
        let found = client.path(name).unwrap();
        assert_eq!(client.open(found, OFlags::RDWR).unwrap_err(), Errno::NXIO, "{name}");
        // Even where a create finds one in its way.
        let body = Body::new().u32((OFlags::RDWR | OFlags::CREATE).bits()).u32(0o600).u32(0).u32(0);
        let created = client.call(opcode::CREATE, client.root, body.bytes(name.as_bytes()).u8_end());
        assert_eq!(created.unwrap_err(), Errno::NXIO, "{name}");
    }
}

/// A directory and a symbolic link that leads out of the tree change places all the time.
#[test]
fn no_race_on_the_host_leads_outside() {
    let mut client = Client::new(false);
    fs::create_dir(client.tree.join("inside")).unwrap();
    fs::write(client.tree.join("inside/secret"), "inside").unwrap();
    symlink("..", client.tree.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let tree = fs::File::open(&client.tree).unwrap();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&tree, "inside", &tree, "link", exchange).unwrap();
            }
        });
        let end = std::time::Instant::now() + std::time::Duration::from_secs(3);
        let mut round = 0_u64;
        while std::time::Instant::now() < end {
            round += 1;
            let name = format!("made-{round}");
            let Ok(directory) = client.path("inside") else { continue };
            match client.lookup(directory, "secret").and_then(|file| client.open(file, OFlags::RDONLY)) {
                Ok(handle) => {
                    assert_eq!(client.read(handle, 0, 100).unwrap(), b"inside");
                    client.create(directory, &name, 0o600).unwrap();
                    client.call(opcode::UNLINK, directory, text(&name)).unwrap();
                    inside += 1;
                }
                Err(errno) => {
                    assert_eq!(errno, Errno::NOTDIR);
                    refused += 1;
                }
            }
            client.begin_anew();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused: there was no race");
    let outside: Vec<_> =
        fs::read_dir(client.outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "{outside:?}");
}

fn interesting() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![0_u64..8, Just(u64::MAX), Just(1 << 63), any::<u64>()];
    let names = prop::sample::select(vec!["file", "..", "a/b", "", ".", "new", "directory"]);
    let field = prop_oneof![
        number.clone().prop_map(|value| value.to_ne_bytes().to_vec()),
        number.prop_map(|value| value.to_ne_bytes()[..4].to_vec()),
        names.prop_map(|name| CString::new(name).unwrap().into_bytes_with_nul()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(field, 0..12).prop_map(|fields| fields.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_answered_within_their_room(
        messages in prop::collection::vec((0_u32..60, 0_u64..5, interesting(), 0_usize..5000), 1..40),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let client = Client::new(false);
        fs::write(client.tree.join("file"), "content").unwrap();
        fs::create_dir(client.tree.join("directory")).unwrap();
        client.path("file").unwrap();
        let opened = client.open(3, OFlags::RDWR).unwrap();
        prop_assert_eq!(opened, 1);
        for (opcode, node, body, room) in messages {
            let reply = client.raw(client.message(opcode, node, &body), room);
            prop_assert!(reply.len() <= room);
        }
        client.raw(noise, 100);
        let outside = fs::read_dir(client.outside.path()).unwrap().count();
        prop_assert_eq!(outside, 2);
    }
}
