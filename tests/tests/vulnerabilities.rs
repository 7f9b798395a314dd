//! What was once wrong with runtimes of Husk's kind and may not be with Husk: one test for each published
//! vulnerability that concerns mounts, volumes, devices and what is read-only. Those inside one crate are tested there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use husk_tests::fixture::Husk;
use tempfile::TempDir;

fn volume(directory: &Path, rest: &str) -> String {
    format!("{}{rest}", directory.display())
}

/// A directory of the host with one inside to share and a file outside of that.
fn host() -> (TempDir, PathBuf) {
    let host = TempDir::with_prefix("host-").unwrap();
    let shared = host.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(host.path().join("secret"), "the host's\n").unwrap();
    (host, shared)
}

/// CVE-2020-2023: a container made a node of the guest's root disk and wrote to it.
#[test]
fn disks_of_the_guest_are_not_the_containers() {
    let husk = Husk::new();
    let script = "for device in $(cat /sys/class/block/*/dev); do
            mknod /dev/d b ${device%:*} ${device#*:} && head -c 1 /dev/d && echo read
            rm -f /dev/d
        done
        for device in '1 1' '1 11' '10 229'; do
            mknod /dev/d c $device && head -c 1 /dev/d && echo read
            rm -f /dev/d
        done; ls -d /sys/class/block/vd* | wc -l";
    let output = husk.run(&["run", "--rm", "--cap-add", "MKNOD", "busybox", "sh", "-c", script]);
    assert_eq!(output.success().text(), "2");
}

/// CVE-2020-2024 and CVE-2020-2026: the guest put a symbolic link where the host mounted or unmounted next.
#[test]
fn links_that_a_container_leaves_do_not_lead_the_host() {
    let husk = Husk::new();
    let (host, shared) = host();
    let outside = host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let whole = volume(&shared, ":/data");
    let script = format!("ln -s {} /data/absolute; ln -s ../outside /data/relative", outside.display());
    husk.ok(&["run", "--rm", "-v", &whole, "busybox", "sh", "-c", &script]);
    assert_eq!(fs::read_link(shared.join("relative")).unwrap(), Path::new("../outside"));
    for link in ["absolute", "relative", "absolute/new", "relative/new"] {
        let mount = format!("type=bind,src={},dst=/x,subpath={link}", shared.display());
        let refused = husk.run(&["run", "--rm", "--mount", &mount, "busybox", "touch", "/x/touched"]);
        refused.fails_saying(&[link, "leads out of it"]);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// CVE-2020-2025: what a guest wrote went to the image that all share.
#[test]
fn an_image_stays_as_it_is_whatever_a_container_writes() {
    let husk = Husk::new();
    let script = "mount -o remount,rw / ; echo changed >/etc/passwd; rm -r /bin/sh; sync; echo done";
    for _ in 0..2 {
        let arguments = ["run", "--rm", "--cap-add", "SYS_ADMIN", "busybox", "sh", "-c"];
        let passwd = husk.ok(&[&arguments[..], &[&format!("head -n 1 /etc/passwd; {script}")]].concat());
        assert!(passwd.starts_with("root:") && passwd.ends_with("done"), "{passwd}");
    }
}

/// CVE-2020-28914: a read-only host directory was writable for whoever removed the guest's flag.
#[test]
fn read_only_is_enforced_on_the_host() {
    let husk = Husk::new();
    let (_host, shared) = host();
    fs::write(shared.join("file"), "as it was\n").unwrap();
    let script = "mount -o remount,bind,rw /ro; mkdir /m; mount -t virtiofs husk /m;
        for at in /ro /m/*; do echo x >$at/file; echo x >$at/new; rm $at/file; chmod 0 $at/file; done; cat /ro/file";
    let (ro, capability) = (volume(&shared, ":/ro:ro"), ["--cap-add", "SYS_ADMIN"]);
    let output = husk.run(&[&["run", "--rm", "-v", &ro][..], &capability, &["busybox", "sh", "-c", script]].concat());
    assert_eq!(output.success().text(), "as it was");
    assert_eq!(fs::read_to_string(shared.join("file")).unwrap(), "as it was\n");
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 1);
}

/// CVE-2026-24054: an empty bind mount was taken for a block device, and the host's disk was plugged in.
#[test]
fn an_empty_directory_is_a_directory() {
    let husk = Husk::new();
    let (_host, shared) = host();
    let disks = "ls -d /sys/class/block/vd* | wc -l; ls -A /x | wc -l";
    let empty = volume(&shared, ":/x");
    let output = husk.ok(&["run", "--rm", "-v", &empty, "busybox", "sh", "-c", disks]);
    // The image and the scratch disk.
    assert_eq!(output, "2\n0");
}

/// CVE-2026-47243: symbolic links in a shared directory were followed on the host by a file server without walls.
#[test]
fn links_in_a_shared_directory_lead_into_the_container() {
    let husk = Husk::new();
    let (host, shared) = host();
    symlink(host.path().join("secret"), shared.join("absolute")).unwrap();
    symlink("../secret", shared.join("relative")).unwrap();
    symlink("/", shared.join("root")).unwrap();
    let script =
        "cat /data/absolute /data/relative 2>/dev/null; cat /data/../secret 2>/dev/null; cat /data/root/marker";
    let command = format!("echo inside >/marker; {script}");
    let output = husk.run(&["run", "--rm", "-v", &volume(&shared, ":/data"), "busybox", "sh", "-c", &command]);
    assert_eq!(output.success().text(), "inside");
}

/// CVE-2026-47243, its other half: the file server ran without seccomp and with every capability to gain more.
#[test]
fn every_thread_of_the_monitor_has_a_filter() {
    let husk = Husk::new();
    let (_host, shared) = host();
    let data = volume(&shared, ":/data");
    husk.ok(&["run", "-d", "--name", "c", "-v", &data, "busybox", "sleep", "100000"]);
    husk.ok(&["exec", "c", "touch", "/data/file"]);
    let is_monitor = |status: &str| status.starts_with("Name:\thusk-vmm\n");
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let monitor = processes
        .filter(|process| fs::read_to_string(process.join("status")).is_ok_and(|status| is_monitor(&status)))
        .collect::<Vec<_>>();
    let [monitor] = monitor.as_slice() else { panic!("one monitor, not {monitor:?}") };
    let mut threads = 0;
    for thread in fs::read_dir(monitor.join("task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("\nSeccomp:\t2\n") && status.contains("\nNoNewPrivs:\t1\n"), "{status}");
        threads += 1;
    }
    assert!(threads > 3, "{threads} threads");
    husk.ok(&["rm", "-f", "c"]);
}
