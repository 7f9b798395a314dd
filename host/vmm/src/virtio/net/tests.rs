//! The device through its queues, with a pair of sockets that keep messages apart in place of a tap.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use proptest::prelude::*;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use vm_memory::{Bytes, GuestAddress};

use super::device::Running;
use super::*;
use crate::memory::GuestRam;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::testing::{Part, Ring, ram, read};

const DATA: u64 = 0x20_0000;
/// A frame that lands in the rings breaks them, and so ends the session: the guest's own doing, but no test's.
const CLEAR_OF_RINGS: u64 = 0x10_0000;

fn cable() -> (Tap, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    (Tap::stand_in(ours), theirs)
}

/// Lets a test play driver and network around one session.
fn session(mergeable: bool, test: impl FnOnce(&mut Running<'_>, &mut Ring<'_>, &mut Ring<'_>, &GuestRam, &OwnedFd)) {
    let ram = ram();
    let (tap, network) = cable();
    let (mut rx, mut tx) = (Ring::new(&ram, 0, 64), Ring::new(&ram, 0x1_0000, 64));
    let activate = |ring: &Ring<'_>| ring.activate(&ram, Interrupt::new().unwrap());
    let (rx_queue, tx_queue) = (activate(&rx), activate(&tx));
    let memory: &GuestRam = &Arc::clone(&ram);
    let mut running = Running::new(&tap, memory, rx_queue, tx_queue, mergeable);
    test(&mut running, &mut rx, &mut tx, memory, &network);
}

fn frame(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn arrives(network: &OwnedFd, bytes: &[u8]) {
    send(network, bytes, SendFlags::empty()).unwrap();
}

#[test]
fn the_configuration_space_is_that_of_the_specification() {
    let spec = spec([2, 0, 0, 0, 0, 7], Some(1450)).unwrap();
    assert_eq!(spec.config.bytes(), [2, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0xaa, 5]);
    assert_ne!(spec.features & FEATURE_MTU, 0);
    assert_eq!(super::spec([2; 6], None).unwrap().features & FEATURE_MTU, 0);
    assert!(matches!(super::spec([1; 6], None), Err(NetError::Mac(_))));
    assert!(matches!(super::spec([0; 6], None), Err(NetError::Mac(_))));
    assert!(matches!(super::spec([2; 6], Some(67)), Err(NetError::Mtu(67))));
}

#[test]
fn a_frame_goes_out_as_the_guest_laid_it_out() {
    session(false, |running, _, tx, ram, network| {
        ram.write_slice(&frame(100), GuestAddress(DATA)).unwrap();
        tx.offer(&[(DATA, 12, false), (DATA + 12, 88, false)]);
        running.transmit().unwrap();
        let mut bytes = [0; 200];
        assert_eq!(recv(network, &mut bytes, RecvFlags::empty()).unwrap().0, 100);
        assert_eq!(bytes[..100], frame(100));
        assert_eq!(tx.try_used(), Some((0, 0)));
    });
}

#[test]
fn chains_that_are_no_frame_are_given_back() {
    session(false, |running, _, tx, _, network| {
        let chains: [&[Part]; 4] =
            [&[(DATA, 11, false)], &[(DATA, 100, true)], &[(u64::MAX - 5, 100, false)], &[(DATA, 70_000, false)]];
        for chain in chains {
            tx.offer(chain);
        }
        running.transmit().unwrap();
        assert_eq!(std::iter::from_fn(|| tx.try_used()).count(), 4);
        assert!(recv(network, &mut [0; 10], RecvFlags::empty()).is_err());
    });
}

#[test]
fn a_frame_comes_in_with_its_number_of_buffers() {
    session(true, |running, rx, _, ram, network| {
        for n in 0..3 {
            rx.offer(&[(DATA + n * 0x1000, 60, true)]);
        }
        arrives(network, &frame(100));
        running.receive().unwrap();
        assert_eq!(rx.try_used(), Some((0, 60)));
        assert_eq!(rx.try_used(), Some((1, 40)));
        assert_eq!(rx.try_used(), None);
        let mut expected = frame(100);
        expected[NUM_BUFFERS].copy_from_slice(&2_u16.to_le_bytes());
        assert_eq!([read(ram, DATA, 60), read(ram, DATA + 0x1000, 40)].concat(), expected);
    });
}

#[test]
fn a_frame_waits_for_room_and_is_not_lost() {
    session(true, |running, rx, _, _, network| {
        rx.offer(&[(DATA, 60, true)]);
        arrives(network, &frame(100));
        running.receive().unwrap();
        assert_eq!(rx.try_used(), None);
        rx.offer(&[(DATA + 0x1000, 60, true)]);
        running.receive().unwrap();
        assert_eq!((rx.try_used(), rx.try_used()), (Some((0, 60)), Some((1, 40))));
    });
}

#[test]
fn without_mergeable_buffers_a_frame_that_is_too_long_is_dropped() {
    session(false, |running, rx, _, _, network| {
        rx.offer(&[(DATA, 60, true)]);
        arrives(network, &frame(100));
        arrives(network, &frame(50));
        running.receive().unwrap();
        assert_eq!(rx.try_used(), Some((0, 50)));
    });
}

#[test]
fn a_chain_without_room_is_given_back_empty() {
    session(true, |running, rx, _, _, network| {
        rx.offer(&[(DATA, 60, false)]);
        rx.offer(&[(DATA, 60, true)]);
        arrives(network, &frame(50));
        running.receive().unwrap();
        assert_eq!((rx.try_used(), rx.try_used()), (Some((0, 0)), Some((1, 50))));
    });
}

#[test]
fn chains_without_room_do_not_hold_the_device_up() {
    session(true, |running, rx, _, _, network| {
        arrives(network, &frame(50));
        for _ in 0..3 {
            for _ in 0..64 {
                rx.offer(&[(DATA, 60, false)]);
            }
            running.receive().unwrap();
            assert_eq!(std::iter::from_fn(|| rx.try_used()).count(), 64);
        }
        rx.offer(&[(DATA, 60, true)]);
        running.receive().unwrap();
        assert_eq!(rx.try_used().unwrap().1, 50);
    });
}

#[test]
fn a_frame_waits_for_a_full_tap() {
    session(true, |running, _, tx, _, network| {
        let mut sent = 0;
        while sent < 4000 {
            tx.offer(&[(DATA, 60_000, false)]);
            running.transmit().unwrap();
            if tx.try_used().is_none() {
                break;
            }
            sent += 1;
        }
        assert!(sent > 0);
        while recv(network, &mut [0; 10], RecvFlags::empty()).is_ok() {}
        running.transmit().unwrap();
        assert!(tx.try_used().is_some());
        assert!(recv(network, &mut [0; 10], RecvFlags::empty()).is_ok());
    });
}

#[test]
fn only_a_tap_with_headers_is_taken() {
    let (_, socket) = cable();
    assert!(matches!(Tap::new(socket), Err(NetError::NoTap(_))));
}

proptest! {
    #[test]
    fn no_chain_of_the_guest_does_harm(
        chains in prop::collection::vec((any::<bool>(), CLEAR_OF_RINGS..0x48_0000, 0_u32..0x2_0000, any::<bool>()), 1..60),
        lengths in prop::collection::vec(0_usize..2000, 0..20),
        mergeable: bool,
    ) {
        session(mergeable, |running, rx, tx, _, network| {
            for length in lengths {
                let _ = send(network, &frame(length), SendFlags::empty());
            }
            for (receive, address, length, writable) in chains {
                let part = [(address, length, writable)];
                if receive { rx.offer(&part) } else { tx.offer(&part) };
                running.transmit().unwrap();
                running.receive().unwrap();
            }
        });
    }
}
