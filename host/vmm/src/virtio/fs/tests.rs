//! The device through its queue, as a driver uses it.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{CWD, Mode, OFlags, openat};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::event::eventfd;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::testing::{Part, Ring, ram, read};

const REQUEST: u64 = 0x10_0000;
const DATA: u64 = 0x11_0000;
const REPLY: u64 = 0x12_0000;
const READ_TO: u64 = 0x13_0000;

const LIMITS: Limits = Limits { nodes: 100, handles: 100 };

fn open(path: impl AsRef<std::path::Path>) -> OwnedFd {
    openat(CWD, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

struct Rig {
    ram: Arc<GuestRam>,
    fs: Fs,
    tree: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let fs = Fs::new("husk", open("/proc/self/fd"), LIMITS).unwrap();
        fs.server().export("tree", open(tree.path()), false).unwrap();
        let rig = Self { ram: ram(), fs, tree };
        rig.call(26, 0, &[&words(&[7, 41, 0, 0])[..], &[0; 48]].concat(), &[(REPLY, 80, true)]);
        rig
    }

    /// Sends chains through the device; returns what was given back.
    fn run(&self, fill: impl FnOnce(&mut Ring<'_>)) -> Vec<(u32, u32)> {
        let mut ring = Ring::new(&self.ram, 0, 64);
        let mut queue = ring.activate(&self.ram, Interrupt::new().unwrap());
        fill(&mut ring);
        self.fs.drain(&mut queue, &self.ram, &eventfd().unwrap()).unwrap();
        std::iter::from_fn(|| ring.try_used()).collect()
    }

    /// One request with more parts behind it; returns its errno and the used length.
    fn call(&self, opcode: u32, node: u64, body: &[u8], parts: &[Part]) -> (i32, u32) {
        let data: u32 = parts.iter().filter(|part| !part.2).map(|part| part.1).sum();
        let own = u32::try_from(40 + body.len()).unwrap();
        let header = [&words(&[own + data, opcode])[..], &long(7), &long(node), &[0; 16]].concat();
        self.ram.write_slice(&[&header, body].concat(), GuestAddress(REQUEST)).unwrap();
        let used = self.run(|ring| {
            ring.offer(&[&[(REQUEST, own, false)], parts].concat());
        });
        assert_eq!(used.len(), 1);
        let errno = read(&self.ram, REPLY + 4, 4);
        (-i32::from_le_bytes(errno.try_into().unwrap()), used[0].1)
    }

    fn field(&self, at: u64) -> u64 {
        u64::from_le_bytes(read(&self.ram, REPLY + at, 8).try_into().unwrap())
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn long(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

#[test]
fn data_goes_between_file_and_guest_memory_in_any_pieces() {
    let rig = Rig::new();
    assert_eq!(rig.call(1, 1, b"tree\0", &[(REPLY, 144, true)]), (0, 144));
    let root = rig.field(16);
    let flags = u32::try_from(libc::O_RDWR | libc::O_CREAT).unwrap();
    let create = [&words(&[flags, 0o600, 0, 0])[..], b"file\0"].concat();
    assert_eq!(rig.call(35, root, &create, &[(REPLY, 160, true)]), (0, 160));
    let handle = rig.field(144);

    rig.ram.write_slice(b"written in pieces", GuestAddress(DATA)).unwrap();
    let write = [&long(handle)[..], &long(3), &words(&[17, 0, 0, 0, 0, 0])].concat();
    let pieces = [(DATA, 1, false), (DATA + 1, 16, false), (REPLY, 24, true)];
    assert_eq!(rig.call(16, root, &write, &pieces), (0, 24));
    assert_eq!(fs::read(rig.tree.path().join("file")).unwrap(), b"\0\0\0written in pieces");

    let request = [&long(handle)[..], &long(3), &words(&[100, 0, 0, 0, 0, 0])].concat();
    let pieces = [(REPLY, 16, true), (READ_TO, 7, true), (READ_TO + 7, 93, true)];
    assert_eq!(rig.call(15, root, &request, &pieces), (0, 33));
    assert_eq!(read(&rig.ram, READ_TO, 17), b"written in pieces");
    // The header in two pieces, and the data behind it in the second one.
    let pieces = [(REPLY, 10, true), (REPLY + 10, 20, true)];
    assert_eq!(rig.call(15, root, &request, &pieces), (0, 30));
    assert_eq!(read(&rig.ram, REPLY + 16, 14), b"written in pie");
}

#[test]
fn a_forgotten_node_needs_no_room_for_a_reply() {
    let rig = Rig::new();
    rig.call(1, 1, b"tree\0", &[(REPLY, 144, true)]);
    assert_eq!(rig.fs.server().held(), (1, 0));
    let root = rig.field(16);
    assert_eq!(rig.call(2, root, &long(1), &[]).1, 0);
    assert_eq!(rig.fs.server().held(), (0, 0));
}

#[test]
fn broken_chains_are_given_back() {
    let rig = Rig::new();
    let used = rig.run(|ring| {
        ring.offer(&[(REQUEST, 12, false), (REPLY, 16, true)]);
        ring.offer(&[(REPLY, 144, true)]);
        ring.offer(&[(u64::MAX - 5, 40, false), (REPLY, 144, true)]);
    });
    assert_eq!(used.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [0, 0, 0]);
}

#[test]
fn the_configuration_tells_tag_and_queues() {
    let rig = Rig::new();
    let config = rig.fs.spec().config.bytes();
    assert_eq!(config.len(), 40);
    assert_eq!(config[..6], *b"husk\0\0");
    assert_eq!(config[36..], [1, 0, 0, 0]);
    for tag in ["", "a b", "t\u{e9}g", "a-tag-that-has-more-than-36-bytes-in-it"] {
        assert!(matches!(Fs::new(tag, open("/proc/self/fd"), LIMITS), Err(FsError::Tag(_))), "{tag:?}");
    }
    assert!(matches!(Fs::new("husk", open("/proc"), LIMITS), Err(FsError::Server(_))));
}

proptest! {
    #[test]
    fn every_chain_comes_back(
        opcode in 0_u32..60,
        body in prop::collection::vec(any::<u8>(), 0..100),
        chains in prop::collection::vec(
            prop::collection::vec((0x10_0000_u64..0x41_0000, 0_u32..3000, any::<bool>()), 1..5), 1..10)
    ) {
        let rig = Rig::new();
        let header = [&words(&[40, opcode])[..], &long(7), &long(1), &[0; 16], &body].concat();
        rig.ram.write_slice(&header, GuestAddress(REQUEST)).unwrap();
        let used = rig.run(|ring| {
            for chain in &chains {
                ring.offer(&[&[(REQUEST, 40, false)], chain.as_slice()].concat());
            }
        });
        prop_assert_eq!(used.len(), chains.len());
    }
}
