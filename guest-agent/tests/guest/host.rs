//! The host's side: images, initramfs, QEMU, and reading the results from the console.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// Seconds that one guest may take, emulated on a busy machine.
const LIMIT_SECONDS: &str = "420";

pub(crate) fn main() {
    let kernel = std::env::var_os("HUSK_KERNEL").expect("HUSK_KERNEL names the guest kernel");
    assert!(is_static(), "this test has to be a static executable: see the head of tests/guest.rs");
    // Two guests: what a pod is, is decided once in its life.
    let verdicts = ["own", "shared"].map(|pod| boot(Path::new(&kernel), pod));
    let passed: usize = verdicts.iter().map(|verdict| verdict.passed).sum();
    let failed: usize = verdicts.iter().map(|verdict| verdict.failed).sum();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored");
    std::process::exit(i32::from(failed > 0));
}

/// How the cases of one guest ended.
#[derive(Default)]
struct Verdict {
    passed: usize,
    failed: usize,
}

/// Whether this executable runs where there is no dynamic loader.
fn is_static() -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    !maps.contains("/ld-linux") && !maps.contains("/libc.so")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Boots a guest and counts its cases.
fn boot(kernel: &Path, pod: &str) -> Verdict {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    initramfs(dir.path());
    base_image(&at("base"));
    upper_image(&at("upper"));
    for image in ["base", "upper"] {
        run(Command::new("mkfs.erofs").arg("--quiet").arg(at(&format!("{image}.erofs"))).arg(at(image)));
    }
    std::fs::File::create(at("scratch")).unwrap().set_len(64 << 20).unwrap();
    // With project quotas, as the host makes it.
    let quota = ["-q", "-O", "quota,project", "-E", "quotatype=prjquota"];
    run(Command::new("mkfs.ext4").args(quota).arg(at("scratch")));
    let mut qemu = Command::new("timeout");
    qemu.args([
        LIMIT_SECONDS,
        "qemu-system-x86_64",
        "-M",
        "microvm,acpi=off,rtc=on",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-m",
        "384",
    ]);
    qemu.args(["-smp", "2", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"]);
    qemu.args(["-global", "virtio-mmio.force-legacy=false"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(at("initramfs"));
    qemu.arg("-append").arg(format!("console=ttyS0 quiet panic=-1 reboot=k husk.test={pod}"));
    for (name, file, read_only) in [("a", "base.erofs", "on"), ("b", "upper.erofs", "on"), ("c", "scratch", "off")] {
        qemu.arg("-drive")
            .arg(format!("if=none,id={name},format=raw,readonly={read_only},file={}", at(file).display()));
        qemu.arg("-device").arg(format!("virtio-blk-device,drive={name}"));
    }
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut verdict, mut finished) = (Verdict::default(), false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = String::from_utf8_lossy(line.unwrap_or_default().as_bytes()).into_owned();
        println!("{} (pod: {pod})", line.trim_end());
        verdict.passed += usize::from(line.trim_end().ends_with("... ok"));
        verdict.failed += usize::from(line.contains("... FAILED"));
        finished |= line.contains("all cases run");
    }
    child.wait().unwrap();
    if !finished {
        println!("test guest {pod} ... FAILED: the guest ended before its last case");
        verdict.failed += 1;
    }
    verdict
}

fn initramfs(dir: &Path) {
    let root = dir.join("initramfs.d");
    std::fs::create_dir(&root).unwrap();
    run(Command::new("strip").arg("-o").arg(root.join("init")).arg(std::env::current_exe().unwrap()));
    std::fs::set_permissions(root.join("init"), PermissionsExt::from_mode(0o755)).unwrap();
    let pack = format!("cd {} && echo init | cpio -o -H newc --quiet > ../initramfs", root.display());
    run(Command::new("sh").args(["-c", &pack]));
}

/// A small but usual image, with some malice in it.
fn base_image(root: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "sys", "root", "tmp", "home/web", "evil"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let applets = "sh cat echo ls id tty stty sleep grep tail kill ps readlink mount umount stat dd touch true false \
                   mkdir wc head printf env pwd nproc md5sum hostname mknod chroot ln rm cut sort seq tr";
    for applet in applets.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n").unwrap();
    // As Debian with systemd-resolved has it: dangling.
    symlink("../run/resolve/stub.conf", root.join("etc/resolv.conf")).unwrap();
    symlink("/../../../..", root.join("evil/up")).unwrap();
    symlink("/proc/self/exe", root.join("evil/agent")).unwrap();
    std::fs::write(root.join("evil/script"), "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(root.join("evil/script"), PermissionsExt::from_mode(0o755)).unwrap();
    run(Command::new("mknod").arg(root.join("evil/kmsg")).args(["c", "1", "11"]));
    std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
}

/// A second layer, to lie over the first.
fn upper_image(root: &Path) {
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/layer"), "upper\n").unwrap();
}
