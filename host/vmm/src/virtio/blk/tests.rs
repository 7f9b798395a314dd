//! The device through its queue, as a driver uses it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::event::eventfd;
use crate::memory::GuestRam;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::testing::{Part, Ring, ram, read};

const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x11_0000;
const STATUS: u64 = 0x12_0000;
/// What a status byte holds before the device writes it.
const UNTOUCHED: u8 = 0xee;

struct Rig {
    ram: Arc<GuestRam>,
    blk: Blk,
    image: File,
}

impl Rig {
    /// A disk of eight sectors, the byte of each its number.
    fn new(read_only: bool) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        for sector in 0..8_u8 {
            file.as_file().write_all_at(&[sector; 512], u64::from(sector) * 512).unwrap();
        }
        let image = file.reopen().unwrap();
        let opened = OpenOptions::new().read(true).write(!read_only).open(file.path()).unwrap();
        Self { ram: ram(), blk: Blk::new(Disk::new(vec![opened], read_only, "serial").unwrap()), image }
    }

    fn header(&self, kind: u32, sector: u64) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.ram.write_slice(&header, GuestAddress(HEADER)).unwrap();
    }

    /// Sends chains through the device; returns what was given back.
    fn run(&self, fill: impl FnOnce(&mut Ring<'_>)) -> Vec<(u32, u32)> {
        let mut ring = Ring::new(&self.ram, 0, 64);
        let mut queue = ring.activate(&self.ram, Interrupt::new().unwrap());
        fill(&mut ring);
        let stop = eventfd().unwrap();
        self.blk.drain(&mut queue, &self.ram, &stop).unwrap();
        std::iter::from_fn(|| ring.try_used()).collect()
    }

    /// One request; returns its status byte and the used length.
    fn request(&self, kind: u32, sector: u64, data: &[Part]) -> (u8, u32) {
        self.header(kind, sector);
        self.ram.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
        let mut parts = vec![(HEADER, 16, false)];
        parts.extend_from_slice(data);
        parts.push((STATUS, 1, true));
        let used = self.run(|ring| {
            ring.offer(&parts);
        });
        assert_eq!(used.len(), 1);
        (self.ram.read_obj(GuestAddress(STATUS)).unwrap(), used[0].1)
    }

    fn sector(&self, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        self.image.read_exact_at(&mut bytes, number * 512).unwrap();
        bytes
    }
}

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

#[test]
fn sectors_are_read_into_any_pieces() {
    let rig = Rig::new(true);
    let pieces = [(DATA, 100, true), (DATA + 100, 412, true), (DATA + 512, 512, true)];
    assert_eq!(rig.request(IN, 2, &pieces), (STATUS_OK, 1025));
    assert_eq!(read(&rig.ram, DATA, 512), [2; 512]);
    assert_eq!(read(&rig.ram, DATA + 512, 512), [3; 512]);
}

#[test]
fn a_disk_of_several_files_is_read_across_their_ends() {
    let mut rig = Rig::new(true);
    // Files of 3, 1 and 4 sectors.
    let files: Vec<_> = [(0_u64, 3_usize), (3, 1), (4, 4)]
        .map(|(first, count)| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let bytes: Vec<u8> = (0..count as u64).flat_map(|at| rig.sector(first + at)).collect();
            file.as_file().write_all_at(&bytes, 0).unwrap();
            file
        })
        .into();
    let open = |file: &tempfile::NamedTempFile| File::open(file.path()).unwrap();
    rig.blk = Blk::new(Disk::new(files.iter().map(open).collect(), true, "").unwrap());
    assert_eq!(rig.blk.disk.capacity(), 8 * 512);
    for sector in 0..8 {
        for count in 1..=8 - sector {
            let length = u32::try_from(count * 512).unwrap();
            let pieces = [(DATA, 100, true), (DATA + 100, length - 100, true)];
            assert_eq!(rig.request(IN, sector, &pieces), (STATUS_OK, length + 1));
            let expected: Vec<u8> = (sector..sector + count).flat_map(|sector| rig.sector(sector)).collect();
            assert_eq!(read(&rig.ram, DATA, expected.len()), expected);
        }
    }
    assert_eq!(rig.request(OUT, 0, &[(DATA, 512, false)]).0, STATUS_IOERR);
    // A file that was cut short has no more bytes; the next one's do not take their place.
    files[0].as_file().set_len(512).unwrap();
    assert_eq!(rig.request(IN, 0, &[(DATA, 1024, true)]).0, STATUS_IOERR);
    assert_eq!(rig.request(IN, 3, &[(DATA, 512, true)]).0, STATUS_OK);
}

#[test]
fn sectors_are_written_from_any_pieces() {
    let rig = Rig::new(false);
    rig.ram.write_slice(&[9; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(rig.request(OUT, 5, &[(DATA, 1, false), (DATA + 1, 511, false)]), (STATUS_OK, 1));
    assert_eq!(rig.sector(5), [9; 512]);
    assert_eq!(rig.sector(6), [6; 512]);
    assert_eq!(rig.request(FLUSH, 0, &[]), (STATUS_OK, 1));
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let rig = Rig::new(true);
    assert_eq!(rig.request(OUT, 5, &[(DATA, 512, false)]), (STATUS_IOERR, 1));
    assert_eq!(rig.request(DISCARD, 0, &[(DATA, 16, false)]), (STATUS_IOERR, 1));
    assert_eq!(rig.sector(5), [5; 512]);
    assert_eq!(rig.request(FLUSH, 0, &[]), (STATUS_OK, 1));
}

#[test]
fn requests_beyond_the_end_or_of_broken_sectors_are_errors() {
    let rig = Rig::new(false);
    for (sector, length) in [(8, 512), (7, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511)] {
        assert_eq!(rig.request(IN, sector, &[(DATA, length, true)]).0, STATUS_IOERR, "{sector} {length}");
        assert_eq!(rig.request(OUT, sector, &[(DATA, length, false)]).0, STATUS_IOERR, "{sector} {length}");
    }
    for sector in 0..8 {
        assert_eq!(rig.sector(sector)[0], u8::try_from(sector).unwrap());
    }
}

#[test]
fn an_unknown_request_is_unsupported() {
    assert_eq!(Rig::new(false).request(99, 0, &[]), (STATUS_UNSUPP, 1));
}

#[test]
fn the_serial_number_is_told() {
    let rig = Rig::new(true);
    assert_eq!(rig.request(GET_ID, 0, &[(DATA, 20, true)]), (STATUS_OK, 21));
    assert_eq!(&read(&rig.ram, DATA, 20), b"serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeroes() {
    let rig = Rig::new(false);
    rig.ram.write_slice(&range(1, 2, 0), GuestAddress(DATA)).unwrap();
    assert_eq!(rig.request(DISCARD, 0, &[(DATA, 16, false)]).0, STATUS_OK);
    rig.ram.write_slice(&[range(4, 1, 0), range(6, 1, 1)].concat(), GuestAddress(DATA)).unwrap();
    let zeroed = rig.request(WRITE_ZEROES, 0, &[(DATA, 32, false)]).0;
    // Some file systems cannot zero a range in place.
    assert!([STATUS_OK, STATUS_UNSUPP].contains(&zeroed));
    let firsts: Vec<u8> = (0..4).map(|sector| rig.sector(sector)[0]).collect();
    assert_eq!(firsts, [0, 0, 0, 3]);
    assert_eq!(rig.sector(5)[0], 5);
    rig.ram.write_slice(&range(7, 2, 0), GuestAddress(DATA)).unwrap();
    assert_eq!(rig.request(DISCARD, 0, &[(DATA, 16, false)]).0, STATUS_IOERR);
    assert_eq!(rig.request(DISCARD, 0, &[(DATA, 15, false)]).0, STATUS_IOERR);
}

#[test]
fn a_chain_without_a_status_byte_is_given_back_untouched() {
    let rig = Rig::new(false);
    rig.header(OUT, 0);
    let used = rig.run(|ring| {
        ring.offer(&[(HEADER, 16, false), (DATA, 512, false)]);
        ring.offer(&[(HEADER, 16, false), (u64::MAX - 5, 512, true)]);
        ring.offer(&[(DATA, 512, true), (HEADER, 16, false)]);
    });
    assert_eq!(used.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [0, 0, 0]);
    assert_eq!(rig.sector(0), [0; 512]);
}

#[test]
fn a_head_that_does_not_exist_stops_the_device() {
    let rig = Rig::new(false);
    let mut ring = Ring::new(&rig.ram, 0, 64);
    let mut queue = ring.activate(&rig.ram, Interrupt::new().unwrap());
    ring.make_available(64);
    assert!(rig.blk.drain(&mut queue, &rig.ram, &eventfd().unwrap()).is_err());
}

#[test]
fn an_image_that_shrank_is_an_io_error() {
    let rig = Rig::new(false);
    rig.image.set_len(1024).unwrap();
    assert_eq!(rig.request(IN, 4, &[(DATA, 512, true)]).0, STATUS_IOERR);
    assert_eq!(rig.request(IN, 1, &[(DATA, 512, true)]).0, STATUS_OK);
}

proptest! {
    #[test]
    fn every_chain_comes_back(
        kind in prop::sample::select(vec![IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 2, 77]),
        sector in 0_u64..12,
        chains in prop::collection::vec(
            prop::collection::vec((0x10_0000_u64..0x41_0000, 0_u32..3000, any::<bool>()), 1..5), 1..10)
    ) {
        let rig = Rig::new(false);
        rig.header(kind, sector);
        let used = rig.run(|ring| {
            for chain in &chains {
                ring.offer(&[&[(HEADER, 16, false)], chain.as_slice()].concat());
            }
        });
        prop_assert_eq!(used.len(), chains.len());
    }
}
