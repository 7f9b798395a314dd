//! Disks: block devices of the host in a container, and what becomes of the pod's scratch disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_tests::fixture::{Husk, wait_until};
use tempfile::TempDir;

/// A loop device of the host over a file that begins with a word.
struct Disk {
    device: String,
    image: PathBuf,
    _directory: TempDir,
}

impl Disk {
    const BYTES: u64 = 8 << 20;

    fn new() -> Self {
        let directory = TempDir::with_prefix("disk-").unwrap();
        let image = directory.path().join("image");
        fs::write(&image, "the first word").unwrap();
        File::options().write(true).open(&image).unwrap().set_len(Self::BYTES).unwrap();
        let output = Command::new("losetup").args(["-f", "--show"]).arg(&image).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Self { device, image, _directory: directory }
    }

    fn flag(&self, rest: &str) -> String {
        format!("--device={}:/dev/data{rest}", self.device)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["-d", &self.device]).status();
        assert!(std::thread::panicking() || detached.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_block_device_of_the_host_is_a_disk_in_the_container() {
    let husk = Husk::new();
    let disk = Disk::new();
    let script = "head -c 14 /dev/data; echo; blockdev --getsize64 /dev/data; stat -c %F /dev/data
        echo written | dd of=/dev/data bs=512 seek=100 conv=notrunc,fsync 2>/dev/null && echo done";
    let output = husk.ok(&["run", "--rm", &disk.flag(""), "busybox", "sh", "-c", script]);
    assert_eq!(output, format!("the first word\n{}\nblock special file\ndone", Disk::BYTES));
    assert_eq!(fs::read(&disk.image).unwrap()[51_200..51_208], *b"written\n");

    // Read-only is the device's, whatever a process may do.
    let script = "head -c 14 /dev/data; echo x | dd of=/dev/data 2>/dev/null || echo refused";
    let arguments = ["run", "--rm", &disk.flag(":r"), "--cap-add", "SYS_ADMIN", "busybox", "sh", "-c", script];
    assert_eq!(husk.ok(&arguments), "the first wordrefused");

    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: disk}}\nspec:\n  restartPolicy: Never\n  containers:\n  - \
         {{name: c, image: busybox, command: [head, -c, '14', /dev/block], volumeDevices: [{{name: d, devicePath: \
         /dev/block}}]}}\n  volumes: [{{name: d, hostPath: {{path: {}, type: BlockDevice}}}}]\n",
        disk.device
    );
    let file = husk.play_text(&manifest);
    assert_eq!(husk.wait_for_exit("disk-c").exit_code(), 0);
    assert_eq!(husk.ok(&["logs", "disk-c"]), "the first word");
    husk.down(&file);
}

#[test]
fn devices_that_cannot_be_given_are_refused() {
    let husk = Husk::new();
    let run = |flag: &str| husk.run(&["run", "--rm", flag, "busybox", "true"]);
    run("--device=/dev/null").fails_saying(&["/dev/null", "no block device"]);
    run("--device=/dev/none").fails_saying(&["/dev/none", "no such file"]);
    run("--device=/dev/null:/data").fails_saying(&["/data", "below /dev"]);
    let disk = Disk::new();
    let formatted = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image).status().unwrap();
    let place = TempDir::with_prefix("mounted-").unwrap();
    let mounted = Command::new("mount").args([Path::new(&disk.device), place.path()]).status().unwrap();
    assert!(formatted.success() && mounted.success());
    let refused = run(&disk.flag(""));
    assert!(Command::new("umount").arg(place.path()).status().unwrap().success());
    refused.fails_saying(&[&disk.device, "in use on the host", "unmount"]);
}

/// The one scratch disk that there is, in 512-byte blocks on the host.
fn scratch_blocks(husk: &Husk) -> u64 {
    let pods = husk.root().join("pods");
    let output = Command::new("find").arg(&pods).args(["-name", "scratch.img"]).output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    let [image] = found.lines().collect::<Vec<_>>()[..] else { panic!("one scratch disk, not {found:?}") };
    fs::metadata(image).unwrap().blocks()
}

#[test]
fn what_containers_delete_goes_back_to_the_host() {
    const MIB: u64 = 32;
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "c", "busybox", "sleep", "100000"]);
    let before = scratch_blocks(&husk);
    husk.sh("c", &format!("dd if=/dev/urandom of=/big bs=1M count={MIB} 2>/dev/null; sync"));
    let full = scratch_blocks(&husk);
    assert!(full >= before + MIB * 2048, "{before} blocks before, {full} after {MIB} MiB");
    husk.sh("c", "rm /big; sync");
    wait_until("the scratch disk to shrink", 20, || scratch_blocks(&husk) < full - (MIB - 8) * 2048);
    husk.ok(&["rm", "-f", "c"]);
}

#[test]
fn a_full_scratch_disk_is_full_inside_alone() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "c", "busybox", "sleep", "100000"]);
    let before = scratch_blocks(&husk);
    let script = "size=$(df -k / | awk 'NR == 2 { print $2 }'); fallocate -l $((size - 65536))k /most
        dd if=/dev/zero of=/rest bs=1M 2>&1 | grep -o 'No space left on device'; rm /most /rest; echo x >/file && cat /file";
    assert_eq!(husk.sh("c", script), "No space left on device\nx");
    // What is only reserved in the guest takes nothing of the host.
    assert!(scratch_blocks(&husk) < before + (160 << 20) / 512);
    husk.ok(&["rm", "-f", "c"]);
}
