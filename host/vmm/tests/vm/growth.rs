//! Machines that grow and shrink while they run.

use std::fs::File;

use husk_vmm_control::{Call, ErrorKind, SlotIndex};

use super::cases::{disk, kib};
use super::vmm::{Vmm, boot_request};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("vcpus_stay_offline_until_the_guest_wants_them", vcpus_stay_offline_until_the_guest_wants_them),
    ("memory_is_plugged_used_and_given_back", memory_is_plugged_used_and_given_back),
    ("a_vm_with_room_for_memory_refuses_more_than_that", a_vm_with_room_for_memory_refuses_more_than_that),
];

fn vcpus_stay_offline_until_the_guest_wants_them() {
    let mut request = boot_request("serve");
    (request.vcpus, request.online_vcpus) = (4, 1);
    let mut vmm = Vmm::boot(request);
    vmm.wait_ready();
    let mut guest = vmm.guest();
    assert_eq!(guest.ask("cpus"), "0");
    for _ in 0..3 {
        assert_eq!(guest.ask("switch-cpu 1 1"), "ok");
        assert_eq!(guest.ask("switch-cpu 3 1"), "ok");
        assert_eq!(guest.ask("cpus"), "0-1,3");
        assert_eq!(guest.ask("switch-cpu 3 0"), "ok");
        assert_eq!(guest.ask("switch-cpu 1 0"), "ok");
        assert_eq!(guest.ask("cpus"), "0");
    }
}

fn memory_is_plugged_used_and_given_back() {
    let mut request = boot_request("serve");
    // Less than three times its memory: all of it is movable.
    (request.memory_mib, request.hotplug_mib) = (512, 4096);
    let mut vmm = Vmm::boot(request);
    vmm.wait_ready();
    let mut guest = vmm.guest();
    let before = kib(&guest.ask("memory"));
    let resident = vmm.resident();
    // Not a multiple of what Linux adds at once.
    vmm.request_memory(1026);
    let grown = kib(&guest.ask("memory"));
    assert!((1000 << 10..=1026 << 10).contains(&(grown - before)), "{before} {grown}");
    assert_eq!(guest.ask("touch 900"), "900");
    assert!(vmm.resident() >= resident + (900 << 20));
    // Buffers of devices lie in it, too.
    vmm.plug(&disk(64), false, "").unwrap();
    assert_eq!(guest.ask("bind 1"), "ok");
    assert_eq!(guest.ask("sum vda"), (64 << 20).to_string());
    vmm.request_memory(0);
    assert_eq!(kib(&guest.ask("memory")), before);
    assert!(vmm.resident() < resident + (150 << 20), "{} {resident}", vmm.resident());
    vmm.request_memory(256);
    assert_eq!(guest.ask("touch 600"), "600");
    assert_eq!(vmm.unplug(SlotIndex(30), true).unwrap_err().kind, ErrorKind::Invalid);
}

fn a_vm_with_room_for_memory_refuses_more_than_that() {
    let mut request = boot_request("serve");
    request.hotplug_mib = 128;
    let mut vmm = Vmm::boot(request);
    vmm.wait_ready();
    for mib in [1, 130, u64::MAX] {
        let error = vmm.call(Call::RequestMemory { mib }, &[]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{mib}: {error}");
    }
    assert_eq!(vmm.status().hotplug.unwrap().requested_mib, 0);
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let error = vmm.call(Call::RequestMemory { mib: 0 }, &[]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::State, "{error}");
    let mut request = boot_request("serve");
    request.online_vcpus = 2;
    let error = Vmm::spawn().try_boot(request, File::open("/dev/null").unwrap()).unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("2 vCPUs"), "{error}");
}
