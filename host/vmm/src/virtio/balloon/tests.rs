//! The device through its queue.

use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::device::serve_queue;
use crate::memory::GuestRam;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::testing::{Ring, ram, read};

const DATA: u64 = 0x20_0000;

/// Lets a test play the driver of the queue of reports.
fn session(test: impl FnOnce(&mut dyn FnMut(), &mut Ring<'_>, &GuestRam)) {
    let ram = ram();
    let memory: &GuestRam = &Arc::clone(&ram);
    let mut ring = Ring::new(memory, 0, 32);
    let mut queue = ring.activate(&ram, Interrupt::new().unwrap());
    test(&mut || while serve_queue(&mut queue, memory, true).unwrap() {}, &mut ring, memory);
}

#[test]
fn reported_pages_are_empty_and_others_keep_what_they_hold() {
    session(|serve, ring, memory| {
        memory.write_slice(&[7; 0x4000], GuestAddress(DATA)).unwrap();
        ring.offer(&[(DATA + 0x1000, 0x2000, true)]);
        serve();
        assert_eq!(ring.try_used(), Some((0, 0)));
        assert_eq!(read(memory, DATA, 0x1000), vec![7; 0x1000]);
        assert_eq!(read(memory, DATA + 0x1000, 0x2000), vec![0; 0x2000]);
        assert_eq!(read(memory, DATA + 0x3000, 0x1000), vec![7; 0x1000]);
    });
}

#[test]
fn only_whole_pages_are_given_back() {
    session(|serve, ring, memory| {
        memory.write_slice(&[7; 0x3000], GuestAddress(DATA)).unwrap();
        ring.offer(&[(DATA + 0x800, 0x2000, true)]);
        serve();
        assert_eq!(read(memory, DATA, 0x1000), vec![7; 0x1000]);
        assert_eq!(read(memory, DATA + 0x1000, 0x1000), vec![0; 0x1000]);
        assert_eq!(read(memory, DATA + 0x2000, 0x1000), vec![7; 0x1000]);
    });
}

#[test]
fn what_the_device_may_not_write_is_not_given_back() {
    session(|serve, ring, memory| {
        memory.write_slice(&[7; 0x1000], GuestAddress(DATA)).unwrap();
        ring.offer(&[(DATA, 0x1000, false)]);
        serve();
        assert_eq!(ring.try_used(), Some((0, 0)));
        assert_eq!(read(memory, DATA, 0x1000), vec![7; 0x1000]);
    });
}

proptest! {
    #[test]
    fn any_report_is_answered_and_touches_nothing_below(
        parts in prop::collection::vec((any::<u64>(), any::<u32>(), any::<bool>(), any::<bool>()), 1..8),
    ) {
        session(|serve, ring, memory| {
            memory.write_slice(&[7; 0x1000], GuestAddress(DATA - 0x1000)).unwrap();
            let parts: Vec<_> = parts
                .iter()
                .map(|(address, length, near, writable)| {
                    // Half of them within memory, or nearly so.
                    let address = if *near { DATA + address % 0x20_0000 } else { address | 1 << 40 };
                    (address, if *near { length % 0x10_0000 } else { *length }, *writable)
                })
                .collect();
            ring.offer(&parts);
            serve();
            assert_eq!(ring.try_used(), Some((0, 0)));
            assert_eq!(read(memory, DATA - 0x1000, 0x1000), vec![7; 0x1000]);
        });
    }
}
