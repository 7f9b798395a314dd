//! The tests.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;

use husk_vmm_control::{Call, Device, ErrorKind, ExitReason, SlotIndex};
use rustix::fd::AsFd;

use super::guest::{ECHO, GREETER, GREETING, NOBODY};
use super::vmm::{Vmm, boot_request};

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const ALL: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}

cases![
    a_guest_becomes_ready_once_and_exits_with_its_code,
    four_vcpus_come_online,
    a_reset_ends_the_vm,
    a_triple_fault_is_told_from_a_reset,
    a_kernel_panic_is_a_reset_with_a_log,
    memory_beyond_the_gap_is_usable,
    a_file_that_is_no_kernel_is_refused,
    calls_out_of_order_are_refused,
    a_closed_control_socket_ends_the_process,
    shutdown_ends_a_running_guest,
    the_console_is_bounded,
    disks_come_and_go_a_hundred_times_and_leave_nothing,
    a_read_only_disk_refuses_writes,
    a_writable_disk_keeps_what_is_written,
    a_disk_in_use_is_busy_unless_forced,
    many_disks_share_interrupt_lines,
    a_stream_echoes_64_mib,
    streams_close_by_halves,
    many_streams_at_once_stay_apart,
    a_port_where_nobody_listens_is_refused,
    broken_clients_are_turned_away,
    last_words_before_the_exit_arrive,
];

fn a_guest_becomes_ready_once_and_exits_with_its_code() {
    let mut vmm = Vmm::boot(boot_request("exit"));
    let timeline = vmm.wait_ready();
    println!("{timeline:?}");
    let steps =
        [timeline.requested_us, timeline.vm_created_us, timeline.loaded_us, timeline.started_us, timeline.ready_us];
    assert!(steps.is_sorted(), "{timeline:?}");
    let (reason, status, _) = vmm.wait_exit();
    assert_eq!(reason, ExitReason::Exit { code: 42 });
    assert!(status.success(), "{status}");
}

fn four_vcpus_come_online() {
    let mut request = boot_request("serve");
    (request.vcpus, request.online_vcpus) = (4, 4);
    let mut vmm = Vmm::boot(request);
    vmm.wait_ready();
    assert_eq!(vmm.guest().ask("cpus"), "0-3");
}

fn a_reset_ends_the_vm() {
    let mut vmm = Vmm::boot(boot_request("reset"));
    vmm.wait_ready();
    let (reason, status, _) = vmm.wait_exit();
    assert_eq!(reason, ExitReason::Reset);
    assert!(status.success(), "{status}");
}

fn a_triple_fault_is_told_from_a_reset() {
    let mut request = boot_request("reset");
    request.cmdline.push_str(" reboot=t");
    let mut vmm = Vmm::boot(request);
    vmm.wait_ready();
    let (reason, status, _) = vmm.wait_exit();
    assert_eq!(reason, ExitReason::TripleFault);
    assert!(status.success(), "{status}");
}

fn a_kernel_panic_is_a_reset_with_a_log() {
    let vmm = Vmm::boot(boot_request("panic"));
    let (reason, status, console) = vmm.wait_exit();
    assert_eq!(reason, ExitReason::Reset);
    assert!(status.success(), "{status}");
    assert!(console.contains("Kernel panic"), "{console}");
}

/// The number in a line of /proc/meminfo.
pub(crate) fn kib(line: &str) -> u64 {
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn memory_beyond_the_gap_is_usable() {
    let mut request = boot_request("serve");
    request.memory_mib = 4096;
    let mut vmm = Vmm::boot(request);
    vmm.wait_ready();
    let line = vmm.guest().ask("memory");
    assert!(kib(&line) > 3900 * 1024, "{line}");
}

fn a_file_that_is_no_kernel_is_refused() {
    let mut vmm = Vmm::spawn();
    let mut script = tempfile::tempfile().unwrap();
    script.write_all(b"#!/bin/sh\necho no kernel\n").unwrap();
    let error = vmm.try_boot(boot_request("exit"), script).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Image);
    assert!(error.message.contains("vmlinux"), "{error}");
}

fn calls_out_of_order_are_refused() {
    let mut vmm = Vmm::spawn();
    let image = disk(1);
    assert_eq!(vmm.plug(&image, false, "").unwrap_err().kind, ErrorKind::State);
    assert_eq!(vmm.call(Call::Status, &[]).unwrap_err().kind, ErrorKind::State);
    let without = vmm.call(Call::Boot(boot_request("exit")), &[]).unwrap_err();
    assert_eq!(without.kind, ErrorKind::Invalid);
    assert!(without.message.contains("0 file descriptors, 5 are needed"), "{without}");
    let mut request = boot_request("exit");
    request.vcpus = 0;
    let error = vmm.try_boot(request, File::open("/dev/null").unwrap()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
}

fn a_closed_control_socket_ends_the_process() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let status = vmm.hang_up();
    assert!(status.success(), "{status}");
}

fn shutdown_ends_a_running_guest() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    vmm.call(Call::Shutdown, &[]).unwrap();
    let (reason, status, _) = vmm.wait_exit();
    assert_eq!(reason, ExitReason::Requested);
    assert!(status.success(), "{status}");
}

fn the_console_is_bounded() {
    let mut request = boot_request("serve");
    request.console_limit = 1000;
    let mut vmm = Vmm::boot(request);
    vmm.wait_ready();
    let mut guest = vmm.guest();
    assert_eq!(guest.ask("print 3000"), "ok");
    // The guest's tty sends when it likes.
    while vmm.status().console_dropped < 2000 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(vmm.console().len(), 1000);
}

/// An image of `mib` MiB whose bytes sum up to its size.
pub(crate) fn disk(mib: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![1; mib << 20]).unwrap();
    file
}

fn read_only(file: &File) -> File {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

fn disks_come_and_go_a_hundred_times_and_leave_nothing() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let mut guest = vmm.guest();
    let image = read_only(&disk(1));
    let before = vmm.footprint();
    for round in 0..100 {
        let slot = vmm.plug(&image, true, "round").unwrap();
        assert_eq!(slot, SlotIndex(1));
        assert_eq!(guest.ask("bind 1"), "ok", "round {round}");
        assert_eq!(guest.ask("disks"), "vda");
        assert_eq!(guest.ask("attribute vda serial"), "round");
        assert_eq!(guest.ask("sum vda"), (1 << 20).to_string());
        assert_eq!(guest.ask("unbind 1"), "ok");
        assert_eq!(guest.ask("disks"), "");
        vmm.unplug(slot, false).unwrap();
        // A joined thread stays listed in /proc for a moment.
        let mut looks = 0;
        while vmm.footprint() != before {
            looks += 1;
            assert!(looks < 1000, "round {round}: {:?} descriptors and threads, not {before:?}", vmm.footprint());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    assert_eq!(vmm.unplug(SlotIndex(1), false).unwrap_err().kind, ErrorKind::EmptySlot);
    assert_eq!(vmm.unplug(SlotIndex(0), true).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(vmm.unplug(SlotIndex(99), true).unwrap_err().kind, ErrorKind::Invalid);
    // An empty slot cannot be bound, and says so without harm.
    assert!(guest.ask("bind 1").contains("error"), "an empty slot was bound");
}

fn a_read_only_disk_refuses_writes() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let mut guest = vmm.guest();
    let image = disk(1);
    let device = Device::Blk { read_only: true, serial: String::new() };
    let writable = vmm.call(Call::Plug(device), &[image.as_fd()]).unwrap_err();
    assert_eq!(writable.kind, ErrorKind::Invalid, "{writable}");
    vmm.plug(&read_only(&image), true, "").unwrap();
    assert_eq!(guest.ask("bind 1"), "ok");
    assert_eq!(guest.ask("attribute vda ro"), "1");
    assert!(guest.ask("write vda 0 changed").contains("error"));
    // Even a guest that overrides its own block layer does not get through.
    guest.ask("make-writable vda");
    assert!(guest.ask("write vda 0 changed").contains("error"));
    let mut first = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&image, &mut first, 0).unwrap();
    assert_eq!(first, [1; 8]);
}

fn a_writable_disk_keeps_what_is_written() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let mut guest = vmm.guest();
    let image = disk(2);
    vmm.plug(&image, false, "scratch").unwrap();
    assert_eq!(guest.ask("bind 1"), "ok");
    assert_eq!(guest.ask("attribute vda size"), (4 << 10).to_string());
    assert_eq!(guest.ask("write vda 1048570 changed-across-blocks"), "ok");
    let mut text = [0; 21];
    std::os::unix::fs::FileExt::read_exact_at(&image, &mut text, 1_048_570).unwrap();
    assert_eq!(&text, b"changed-across-blocks");
}

fn a_disk_in_use_is_busy_unless_forced() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let mut guest = vmm.guest();
    let slot = vmm.plug(&disk(1), false, "").unwrap();
    assert_eq!(guest.ask("bind 1"), "ok");
    let error = vmm.unplug(slot, false).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy);
    assert!(error.message.contains("virtio-mmio.1"), "{error}");
    assert_eq!(vmm.status().slots.len(), 3);
    vmm.unplug(slot, true).unwrap();
    assert_eq!(vmm.status().slots.len(), 2);
    // The guest lives on; only that disk is gone.
    assert_eq!(guest.ask("cpus"), "0");
}

fn many_disks_share_interrupt_lines() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let mut guest = vmm.guest();
    let image = read_only(&disk(1));
    // The last slot is the balloon's.
    for index in 1..31 {
        assert_eq!(vmm.plug(&image, true, "").unwrap(), SlotIndex(index));
        assert_eq!(guest.ask(&format!("bind {index}")), "ok");
    }
    assert_eq!(vmm.plug(&image, true, "").unwrap_err().kind, ErrorKind::NoFreeSlot);
    let disks = guest.ask("disks");
    assert_eq!(disks.split(',').count(), 30);
    for disk in disks.split(',') {
        assert_eq!(guest.ask(&format!("sum {disk}")), (1 << 20).to_string(), "{disk}");
    }
}

/// Bytes that repeat late, so that a lost or doubled piece shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 24).to_le_bytes()
    });
    words.flatten().take(length).collect()
}

fn exchange(stream: std::os::unix::net::UnixStream, bytes: &[u8]) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        (&stream).read_to_end(&mut received).unwrap();
    });
    received
}

fn a_stream_echoes_64_mib() {
    let mut request = boot_request("serve");
    (request.vcpus, request.online_vcpus) = (2, 2);
    let mut vmm = Vmm::boot(request);
    vmm.wait_ready();
    let bytes = pattern(64 << 20);
    let start = std::time::Instant::now();
    let received = exchange(vmm.connect(ECHO).unwrap(), &bytes);
    println!("64 MiB there and back in {:?}", start.elapsed());
    assert!(received == bytes, "{} bytes came back", received.len());
}

fn streams_close_by_halves() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    // The guest ends its side first; ours still works.
    let mut stream = vmm.connect(GREETER).unwrap();
    let mut greeting = Vec::new();
    stream.read_to_end(&mut greeting).unwrap();
    assert_eq!(greeting, GREETING);
    stream.write_all(&pattern(100_000)).unwrap();
    drop(stream);
    let mut guest = vmm.guest();
    while guest.ask("received") != "100000" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // We end ours first; all of the guest's answer comes.
    let stream = vmm.connect(ECHO).unwrap();
    assert_eq!(exchange(stream, b"short"), b"short");
    drop(guest);
    while vmm.status().vsock_connections != 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn many_streams_at_once_stay_apart() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let vmm = &vmm;
    std::thread::scope(|scope| {
        for index in 0..64 {
            scope.spawn(move || {
                let bytes = pattern(10_000 + 1_000 * index);
                let received = exchange(vmm.connect(ECHO).unwrap(), &bytes);
                assert!(received == bytes, "stream {index}");
            });
        }
    });
}

fn a_port_where_nobody_listens_is_refused() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    assert!(vmm.connect(NOBODY).is_none());
    assert_eq!(exchange(vmm.connect(ECHO).unwrap(), b"alive"), b"alive");
}

fn broken_clients_are_turned_away() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    for line in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"CONNECT x\n", b"CONNECT 99999999999999999999999999999999"] {
        let mut client = vmm.raw_client();
        client.write_all(line).unwrap();
        let mut answer = Vec::new();
        // The end of the stream, or a reset because the rest of our line was not read.
        let _ = client.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    // Gone in the middle of the line.
    let mut client = vmm.raw_client();
    client.write_all(b"CONN").unwrap();
    drop(client);
    // One byte at a time is slow, not wrong.
    let mut client = vmm.raw_client();
    for byte in format!("CONNECT {ECHO}\n").bytes() {
        client.write_all(&[byte]).unwrap();
    }
    let mut answer = [0; 3];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK ");
}

fn last_words_before_the_exit_arrive() {
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let mut stream = vmm.connect(super::guest::LAST_WORDS).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), super::guest::LAST_WORDS_LEN);
    let (reason, ..) = vmm.wait_exit();
    assert_eq!(reason, ExitReason::Exit { code: 5 });
}
