//! The device through its queue.

use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::device::Mem;
use super::{BLOCK, MemoryState};
use crate::memory::{GuestRam, Hotplug, MemoryMap};
use crate::virtio::interrupt::Interrupt;
use crate::virtio::testing::{Ring, read};

const REQUEST: u64 = 0x20_0000;
const RESPONSE: u64 = 0x20_1000;
const UNTOUCHED: [u8; 10] = [0xee; 10];

/// Plays the driver.
struct Driver<'m> {
    mem: Mem,
    memory: &'m GuestRam,
    ring: Ring<'m>,
    serve: Box<dyn FnMut(&Mem) + 'm>,
}

impl Driver<'_> {
    /// Sends a request in these parts and answers what was written, and how much.
    fn send(&mut self, bytes: &[u8], parts: &[(u64, u32, bool)]) -> ([u8; 10], u32) {
        self.memory.write_slice(bytes, GuestAddress(REQUEST)).unwrap();
        self.memory.write_slice(&UNTOUCHED, GuestAddress(RESPONSE)).unwrap();
        self.ring.offer(parts);
        (self.serve)(&self.mem);
        let (_, written) = self.ring.try_used().expect("every chain is given back");
        (read(self.memory, RESPONSE, 10).try_into().unwrap(), written)
    }

    /// The type of the response, and the state in it.
    fn ask(&mut self, kind: u16, address: u64, blocks: u16) -> (u8, u8) {
        let mut bytes = [0; 24];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&address.to_le_bytes());
        bytes[16..18].copy_from_slice(&blocks.to_le_bytes());
        let (response, written) = self.send(&bytes, &[(REQUEST, 24, false), (RESPONSE, 10, true)]);
        assert_eq!(written, 10);
        (response[0], response[8])
    }

    fn state(&self) -> MemoryState {
        self.mem.handle().state()
    }
}

fn session(test: impl FnOnce(&mut Driver<'_>, Hotplug)) {
    let map = MemoryMap::new(64, 128, 46).unwrap();
    let region = map.hotplug().unwrap();
    let ram = map.allocate().unwrap();
    let memory: &GuestRam = &Arc::clone(&ram);
    let ring = Ring::new(memory, 0, 16);
    let mut queue = ring.activate(&ram, Interrupt::new().unwrap());
    let serve = Box::new(move |mem: &Mem| while mem.serve_queue(&mut queue, memory).unwrap() {});
    test(&mut Driver { mem: Mem::new(region), memory, ring, serve }, region);
}

#[test]
fn memory_is_plugged_as_far_as_requested_and_loses_its_content_with_unplugging() {
    session(|driver, region| {
        let second = region.address + BLOCK;
        assert_eq!(driver.ask(0, region.address, 1), (1, 0), "nothing is requested yet");
        driver.mem.handle().request(4).unwrap();
        assert_eq!(driver.ask(0, region.address, 2), (0, 0));
        assert_eq!(driver.ask(0, region.address, 2), (3, 0), "it is plugged already");
        driver.memory.write_slice(&[7; 64], GuestAddress(second - 32)).unwrap();
        assert_eq!(driver.ask(1, second, 1), (0, 0));
        assert_eq!(driver.ask(1, second, 1), (3, 0), "it is not plugged any more");
        assert_eq!(read(driver.memory, second - 32, 64), [[7; 32], [0; 32]].concat());
        assert_eq!(driver.ask(3, region.address, 2), (0, 2));
        assert_eq!(driver.ask(2, 0, 0), (0, 0));
        assert_eq!(read(driver.memory, second - 32, 32), [0; 32]);
        assert_eq!(driver.state(), MemoryState { size: region.size, requested: 4 << 20, plugged: 0 });
    });
}

#[test]
fn the_configuration_follows_every_change() {
    session(|driver, region| {
        let config = driver.mem.spec().config;
        let field = |offset| {
            let mut bytes = [0; 8];
            config.read(offset, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        let before = config.generation();
        driver.mem.handle().request(2).unwrap();
        assert_eq!((field(40), field(48)), (0, 2 << 20));
        assert_ne!(config.generation(), before);
        driver.ask(0, region.address, 1);
        assert_eq!((field(40), field(48)), (2 << 20, 2 << 20));
    });
}

#[test]
fn a_chain_that_is_no_request_changes_nothing() {
    session(|driver, region| {
        driver.mem.handle().request(128).unwrap();
        let mut plug = [0; 24];
        plug[8..16].copy_from_slice(&region.address.to_le_bytes());
        plug[16] = 1;
        for (parts, written) in [
            (&[(REQUEST, 24, false)][..], 0),
            (&[(REQUEST, 24, false), (RESPONSE, 9, true)], 0),
            (&[(RESPONSE, 10, true)], 10),
            (&[(REQUEST, 23, false), (RESPONSE, 10, true)], 10),
            (&[(REQUEST, 24, false), (1 << 40, 10, true)], 0),
        ] {
            let (response, count) = driver.send(&plug, parts);
            assert_eq!(count, written, "{parts:?}");
            assert!(response == UNTOUCHED || response[0] == 3, "{parts:?}: {response:?}");
            assert_eq!(driver.state().plugged, 0, "{parts:?}");
        }
    });
}

proptest! {
    #[test]
    fn any_request_is_answered_and_touches_no_boot_memory(
        requests in prop::collection::vec((0_u16..6, 0_u64..70, 0_u64..3, any::<bool>(), 0_u16..80), 1..12),
        requested in 0_u64..64,
    ) {
        session(|driver, region| {
            driver.mem.handle().request(2 * requested).unwrap();
            driver.memory.write_slice(&[7; 4096], GuestAddress(0x30_0000)).unwrap();
            for (kind, block, odd, near, blocks) in requests {
                let address = block * BLOCK + odd * 0x800;
                let address = if near { (region.address - BLOCK).wrapping_add(address) } else { address << 7 };
                let (response, _) = driver.ask(kind, address, blocks);
                assert!(response <= 3);
                assert!(driver.state().plugged <= (2 * requested) << 20);
            }
            assert_eq!(read(driver.memory, 0x30_0000, 4096), vec![7; 4096]);
        });
    }
}
