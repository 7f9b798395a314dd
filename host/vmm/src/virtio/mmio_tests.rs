//! Tests of transport, state machine and slots together: through the registers, as a driver sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use husk_vmm_control::SlotIndex;
use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use super::register;
use crate::layout::{SLOT_COUNT, slot_address};
use crate::memory::GuestRam;
use crate::virtio::feature;
use crate::virtio::slots::{SlotError, SlotTable, Wiring};
use crate::virtio::state::{DeviceSpec, VirtioDevice, high, low, status};
use crate::virtio::testing::{Ring, ram};
use crate::virtio::worker::{Backend, DeviceError, Session, Worker};

const FEATURE: u64 = 1 << 5;
const INITIAL: u32 = status::ACKNOWLEDGE | status::DRIVER;

/// Counts sessions, and how many are running.
#[derive(Clone, Debug, Default)]
struct Sessions(Arc<(AtomicUsize, AtomicUsize)>);

impl Sessions {
    fn started(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    fn running(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    fn await_started(&self, count: usize) {
        while self.started() < count {
            std::thread::yield_now();
        }
    }
}

struct Recorder(Sessions);

impl Backend for Recorder {
    fn serve(&mut self, session: Session, stop: &EventFd) -> Result<(), DeviceError> {
        assert_eq!(session.queues.len(), 2);
        self.0.0.1.fetch_add(1, Ordering::SeqCst);
        self.0.0.0.fetch_add(1, Ordering::SeqCst);
        while stop.read().is_err() {
            std::thread::yield_now();
        }
        stop.write(1).unwrap();
        self.0.0.1.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Counts live connections to KVM.
#[derive(Clone, Default)]
struct FakeWiring(Arc<AtomicUsize>);

struct FakeWires(Arc<AtomicUsize>);

impl Wiring for FakeWiring {
    fn connect(&self, _: u32, _: &VirtioDevice) -> std::io::Result<Box<dyn Send>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeWires(Arc::clone(&self.0))))
    }
}

impl Drop for FakeWires {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Rig {
    ram: Arc<GuestRam>,
    slots: Arc<SlotTable>,
    sessions: Sessions,
    wires: Arc<AtomicUsize>,
}

impl Rig {
    fn new() -> Self {
        let wiring = FakeWiring::default();
        let wires = Arc::clone(&wiring.0);
        Self { ram: ram(), slots: SlotTable::new(Box::new(wiring)), sessions: Sessions::default(), wires }
    }

    fn plugged() -> Self {
        let rig = Self::new();
        assert_eq!(rig.plug().unwrap(), SlotIndex(0));
        rig
    }

    fn plug(&self) -> Result<SlotIndex, SlotError> {
        let config = vec![1, 2, 3, 4, 5, 6];
        let spec =
            DeviceSpec { name: "test", device_type: 77, features: FEATURE, queues: &[16, 32], config: config.into() };
        let worker = Worker::spawn_unconfined("test", Recorder(self.sessions.clone())).unwrap();
        self.slots.plug(VirtioDevice::new(spec, Arc::clone(&self.ram), worker).unwrap())
    }

    fn get(&self, offset: u64) -> u32 {
        let mut data = [0xee; 4];
        self.slots.read(slot_address(0) + offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&self, offset: u64, value: u32) {
        self.slots.write(slot_address(0) + offset, &value.to_le_bytes());
    }

    fn agree(&self, features: u64) {
        self.set(register::STATUS, status::ACKNOWLEDGE);
        self.set(register::STATUS, INITIAL);
        for (half, bits) in [(0, low(features)), (1, high(features))] {
            self.set(register::DRIVER_FEATURES_SEL, half);
            self.set(register::DRIVER_FEATURES, bits);
        }
        self.set(register::STATUS, INITIAL | status::FEATURES_OK);
    }

    fn set_queue(&self, index: u32, config: super::QueueConfig) {
        self.set(register::QUEUE_SEL, index);
        self.set(register::QUEUE_NUM, u32::from(config.size));
        self.set(register::QUEUE_DESC_LOW, low(config.descriptors));
        self.set(register::QUEUE_DESC_HIGH, high(config.descriptors));
        self.set(register::QUEUE_DRIVER_LOW, low(config.driver));
        self.set(register::QUEUE_DRIVER_HIGH, high(config.driver));
        self.set(register::QUEUE_DEVICE_LOW, low(config.device));
        self.set(register::QUEUE_DEVICE_HIGH, high(config.device));
        self.set(register::QUEUE_READY, u32::from(config.ready));
    }

    fn activate(&self) {
        self.agree(feature::VERSION_1 | FEATURE);
        for (index, address) in [(0, 0x1_0000), (1, 0x2_0000)] {
            self.set_queue(index, Ring::new(&self.ram, address, 16).config());
        }
        self.set(register::STATUS, INITIAL | status::FEATURES_OK | status::DRIVER_OK);
    }

    fn is_active(&self) -> bool {
        self.slots.states()[0].active
    }
}

#[test]
fn an_empty_slot_is_a_placeholder() {
    let rig = Rig::new();
    assert_eq!(rig.get(register::MAGIC).to_le_bytes(), *b"virt");
    assert_eq!(rig.get(register::VERSION), 2);
    assert_eq!(rig.get(register::DEVICE_ID), 0);
    rig.set(register::STATUS, INITIAL);
    assert_eq!(rig.get(register::STATUS), 0);
}

#[test]
fn a_driver_that_follows_the_rules_starts_the_device() {
    let rig = Rig::plugged();
    assert_eq!(rig.get(register::DEVICE_ID), 77);
    rig.activate();
    assert_eq!(rig.get(register::STATUS), INITIAL | status::FEATURES_OK | status::DRIVER_OK);
    assert!(rig.is_active());
    rig.sessions.await_started(1);
}

#[test]
fn features_beyond_the_offer_or_without_version_1_are_not_accepted() {
    for features in [FEATURE, feature::VERSION_1 | 1 << 40, feature::VERSION_1 | 1] {
        let rig = Rig::plugged();
        rig.agree(features);
        assert_eq!(rig.get(register::STATUS), INITIAL);
        rig.set(register::STATUS, INITIAL | status::DRIVER_OK);
        assert!(!rig.is_active());
        assert_ne!(rig.get(register::STATUS) & status::NEEDS_RESET, 0);
    }
}

#[test]
fn queues_are_frozen_at_driver_ok() {
    let rig = Rig::plugged();
    rig.activate();
    rig.set(register::QUEUE_SEL, 0);
    rig.set(register::QUEUE_NUM, 8);
    rig.set(register::QUEUE_READY, 0);
    rig.set(register::QUEUE_DESC_LOW, 0xdead_0000);
    assert_eq!(rig.get(register::QUEUE_READY), 1);
    assert!(rig.is_active());
}

#[test]
fn a_bad_queue_needs_a_reset_and_a_reset_mends_it() {
    let good = Ring::new(&ram(), 0x1_0000, 16).config();
    let bad = [
        super::QueueConfig { ready: false, ..good },
        super::QueueConfig { size: 0, ..good },
        super::QueueConfig { size: 15, ..good },
        super::QueueConfig { size: 64, ..good },
        super::QueueConfig { descriptors: good.descriptors + 1, ..good },
        super::QueueConfig { driver: good.driver + 1, ..good },
        super::QueueConfig { driver: 0, ..good },
        super::QueueConfig { device: good.device + 2, ..good },
        super::QueueConfig { descriptors: !0xf, ..good },
        super::QueueConfig { device: (4 << 20) - 16, ..good },
    ];
    for config in bad {
        let rig = Rig::plugged();
        rig.agree(feature::VERSION_1);
        rig.set_queue(0, config);
        rig.set_queue(1, good);
        rig.set(register::STATUS, INITIAL | status::FEATURES_OK | status::DRIVER_OK);
        assert!(!rig.is_active(), "{config:?}");
        assert_ne!(rig.get(register::STATUS) & status::NEEDS_RESET, 0);
        assert_eq!(rig.get(register::INTERRUPT_STATUS), crate::virtio::interrupt::CONFIG);
        rig.set(register::STATUS, 0);
        assert_eq!((rig.get(register::STATUS), rig.get(register::INTERRUPT_STATUS)), (0, 0));
        rig.activate();
        assert!(rig.is_active());
    }
}

#[test]
fn a_reset_device_is_as_new_and_works_again() {
    let rig = Rig::plugged();
    for round in 1..=3 {
        rig.activate();
        rig.sessions.await_started(round);
        rig.set(register::STATUS, 0);
        assert_eq!(rig.sessions.running(), 0, "the session must be over when the reset is");
        assert_eq!(rig.get(register::STATUS), 0);
        rig.set(register::QUEUE_SEL, 0);
        assert_eq!(rig.get(register::QUEUE_READY), 0);
    }
}

#[test]
fn status_bits_are_never_taken_away_one_by_one() {
    let rig = Rig::plugged();
    rig.activate();
    rig.set(register::STATUS, status::ACKNOWLEDGE);
    assert_eq!(rig.get(register::STATUS), INITIAL | status::FEATURES_OK | status::DRIVER_OK);
    assert!(rig.is_active());
}

#[test]
fn registers_answer_only_whole_accesses() {
    let rig = Rig::plugged();
    for length in [1, 2, 3, 8] {
        let mut data = vec![0xee; length];
        rig.slots.read(slot_address(0), &mut data);
        assert_eq!(data, vec![0; length]);
        rig.slots.write(slot_address(0) + register::STATUS, &vec![1; length]);
        assert_eq!(rig.get(register::STATUS), 0);
    }
    let mut data = [0; 4];
    rig.slots.read(slot_address(0) + 1, &mut data);
    assert_eq!(data, [0; 4]);
}

#[test]
fn configuration_reads_in_any_width_and_ends_in_zeroes() {
    let rig = Rig::plugged();
    let read = |offset, length: usize| {
        let mut data = vec![0xee; length];
        rig.slots.read(slot_address(0) + register::CONFIG + offset, &mut data);
        data
    };
    assert_eq!(read(0, 1), [1]);
    assert_eq!(read(1, 2), [2, 3]);
    assert_eq!(read(2, 8), [3, 4, 5, 6, 0, 0, 0, 0]);
    assert_eq!(read(0xe00, 4), [0; 4]);
}

#[test]
fn slots_fill_from_the_lowest_until_none_is_left() {
    let rig = Rig::new();
    for index in 0..SLOT_COUNT {
        assert_eq!(rig.plug().unwrap(), SlotIndex(index));
    }
    assert!(matches!(rig.plug(), Err(SlotError::Full)));
    rig.slots.unplug(SlotIndex(5), false).unwrap();
    rig.slots.unplug(SlotIndex(9), false).unwrap();
    assert_eq!(rig.plug().unwrap(), SlotIndex(5));
    assert_eq!(rig.wires.load(Ordering::SeqCst), 31);
}

#[test]
fn a_held_device_is_busy_and_force_ends_its_session() {
    let rig = Rig::plugged();
    rig.activate();
    rig.sessions.await_started(1);
    assert!(matches!(rig.slots.unplug(SlotIndex(0), false), Err(SlotError::Busy { .. })));
    rig.slots.unplug(SlotIndex(0), true).unwrap();
    assert_eq!((rig.sessions.running(), rig.wires.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(rig.get(register::DEVICE_ID), 0);
    assert!(matches!(rig.slots.unplug(SlotIndex(0), true), Err(SlotError::Empty(_))));
    assert!(matches!(rig.slots.unplug(SlotIndex(32), true), Err(SlotError::NoSuchSlot(_))));
}

#[test]
fn a_driver_that_let_go_leaves_the_device_unpluggable() {
    let rig = Rig::plugged();
    rig.activate();
    rig.set(register::STATUS, 0);
    // What Linux does after a driver's remove.
    rig.set(register::STATUS, status::ACKNOWLEDGE);
    rig.slots.unplug(SlotIndex(0), false).unwrap();
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_does_harm(
        accesses in prop::collection::vec((0_u64..0x110, prop::sample::select(vec![1_usize, 2, 4, 8]), any::<u32>(), any::<bool>()), 1..200)
    ) {
        let rig = Rig::plugged();
        for (offset, length, value, write) in accesses {
            // Mostly whole registers, mostly small values: they get furthest.
            let offset = if length == 4 { offset & !3 } else { offset };
            let value = if value & 1 == 0 { value >> 24 } else { value };
            let mut data = u64::from(value).to_le_bytes();
            if write {
                rig.slots.write(slot_address(0) + offset, &data[..length]);
            } else {
                rig.slots.read(slot_address(0) + offset, &mut data[..length]);
            }
        }
        rig.set(register::STATUS, 0);
        rig.activate();
        prop_assert!(rig.is_active());
    }
}
