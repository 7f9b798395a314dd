//! Devices come to a running VM and leave it, many times over, and nothing of them stays: neither in the guest nor as
//! an open file of the processes around it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use husk_tests::fixture::{Husk, wait_until};

const ROUNDS: usize = 100;

/// The processes of the pod: VMM and shim.
fn processes(names: &[&str]) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    all.filter(|proc| fs::read_to_string(proc.join("comm")).is_ok_and(|comm| names.contains(&comm.trim_end())))
        .collect()
}

/// What a process holds open, by kind, without the numbers that differ from one moment to the next.
fn open_files(proc: &Path) -> Vec<String> {
    let descriptors = fs::read_dir(proc.join("fd")).unwrap().flatten();
    let mut open: Vec<String> = descriptors
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .map(|target| target.to_string_lossy().split('[').next().unwrap_or_default().to_owned())
        .collect();
    open.sort();
    open
}

#[test]
fn a_hundred_disks_come_and_go_in_one_vm_without_a_trace() {
    let husk = Husk::new();
    // Pulled beforehand: the rounds are about devices.
    husk.ok(&["pull", "husk-test/zstd"]);
    husk.ok(&["run", "-d", "--pod", "new:rounds", "--name", "keeper", "busybox", "sleep", "100000"]);
    // The second image is on a disk of its own, plugged for the container and unplugged after it.
    let round = || husk.ok(&["run", "--rm", "--pod", "rounds", "husk-test/zstd", "cat", "/proc/mounts"]);
    let disks = || husk.sh("keeper", "ls /sys/class/block | sort");
    let drivers = || husk.sh("keeper", "ls /sys/bus/virtio/devices | sort");
    let guest_mounts = || husk.sh("keeper", "wc -l </proc/mounts");

    // The first round may make what stays: caches, worker threads, connections.
    round();
    let before = (disks(), drivers(), guest_mounts());
    let around = processes(&["husk-vmm", "containerd-shim"]);
    assert_eq!(around.len(), 2, "one VMM and one shim: {around:?}");
    let files_before: Vec<Vec<String>> = around.iter().map(|proc| open_files(proc)).collect();

    for _ in 0..ROUNDS {
        round();
    }

    assert_eq!((disks(), drivers(), guest_mounts()), before);
    for (proc, before) in around.iter().zip(&files_before) {
        wait_until(&format!("{} to close what it opened, down to {before:#?}", proc.display()), 2, || {
            open_files(proc) == *before
        });
    }
    husk.ok(&["pod", "rm", "-f", "rounds"]);
}

#[test]
fn several_images_are_plugged_at_once() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--pod", "new:many", "--name", "keeper", "busybox", "sleep", "100000"]);
    let disks = || husk.sh("keeper", "ls /sys/class/block").lines().count();
    let before = disks();
    let others =
        ["husk-test/zstd", "husk-test/user", "husk-test/workdir", "husk-test/stop-signal", "geektime/sample:v2"];
    for image in others {
        husk.ok(&[
            "run",
            "-d",
            "--pod",
            "many",
            "--user",
            "0",
            "--name",
            &image.replace(['/', ':'], "-"),
            image,
            "sleep",
            "1000",
        ]);
    }
    // Images with the same content are one image: three of these differ in their configuration alone, which has its
    // own id and its own disk.
    assert_eq!(disks(), before + others.len());
    for image in others {
        husk.ok(&["rm", "-f", &image.replace(['/', ':'], "-")]);
    }
    wait_until("the disks to be unplugged", 5, || disks() == before);
    husk.ok(&["pod", "rm", "-f", "many"]);
}
