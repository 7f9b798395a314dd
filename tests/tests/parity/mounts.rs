//! The root file system, kernel file systems, devices, masked and read-only paths.

use husk_tests::parity::Case;
use serde_json::{Value, json};

fn mount(mount: Value) -> Value {
    // Lists replace lists, so what every container needs is said again.
    json!({"mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        mount,
    ]})
}

/// Options, type and propagation of one mount.
fn shown(path: &str) -> &'static str {
    match path {
        "/mnt" => {
            "say mount sh_ 'grep \" /mnt \" /proc/self/mountinfo | cut -d \" \" -f 5-6'
             say kind sh_ 'grep \" /mnt \" /proc/self/mountinfo | sed \"s/.* - //\" | cut -d \" \" -f 1'
             say state stat -c '%a %u %g %F' /mnt
             try write touch /mnt/file\ntry execute sh_ 'cp /bin/busybox /mnt/busybox && /mnt/busybox true'
             try device sh_ 'mknod /mnt/null c 1 3'"
        }
        _ => "",
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let tmpfs = |options: &[&str]| {
        mount(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options}))
    };
    vec![
        Case::new(
            "table",
            json!({}),
            "say points sh_ 'cut -d \" \" -f 5 /proc/self/mountinfo | sort'
             for point in /proc /dev /dev/pts /dev/shm /dev/mqueue /sys /sys/fs/cgroup /proc/sys /proc/kcore /proc/keys /sys/firmware; do
                 say options$point sh_ \"grep ' $point ' /proc/self/mountinfo | cut -d ' ' -f 6\"
                 say kind$point sh_ \"grep ' $point ' /proc/self/mountinfo | sed 's/.* - //' | cut -d ' ' -f 1\"
             done
             say propagation sh_ 'grep -c shared: /proc/self/mountinfo'
             say root-options sh_ 'grep \" / / \\|/rootfs / \" /proc/self/mountinfo | cut -d \" \" -f 6'",
        ),
        Case::new(
            "devices",
            json!({}),
            "say names ls /dev\nfor node in null zero full random urandom tty; do say $node stat -c '%F %a %u %g %t %T' /dev/$node; done
             for link in fd stdin stdout stderr ptmx core; do say $link readlink /dev/$link; done
             say zeros sh_ 'head -c 4 /dev/zero | od -An -tx1'\ntry full sh_ 'echo x >/dev/full'
             try random sh_ 'head -c 8 /dev/urandom >/dev/null'\nsay pts ls /dev/pts
             say shm stat -c '%a %u %g' /dev/shm\nsay shm-size sh_ 'df -k /dev/shm | tail -n 1 | tr -s \" \" | cut -d \" \" -f 2'
             try shm-write touch /dev/shm/x\ntry dev-write touch /dev/x",
        ),
        Case::new(
            "masked",
            json!({}),
            "for file in kcore keys timer_list; do say $file cat /proc/$file; done\nsay firmware ls -A /sys/firmware\ntry unmask umount /proc/kcore",
        ),
        Case::new(
            "read-only-paths",
            json!({}),
            "for path in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do try $path put 1 $path; done
             try sysfs mkdir /sys/fs/x\ntry remount mount -o remount,rw /proc/sys",
        ),
        Case::new("unmasked", json!({"linux": {"maskedPaths": [], "readonlyPaths": []}}), "say keys sh_ 'head -c 0 /proc/keys'\ntry hostname put parity /proc/sys/kernel/hostname"),
        Case::new("own-masks", json!({"linux": {"maskedPaths": ["/work/secret", "/home", "/no/such"], "readonlyPaths": ["/work", "/no/such"]}}), "say file cat /work/secret\nsay directory ls -A /home\ntry write touch /work/x\nsay read cat /work/file"),
        Case::new("read-only-root", json!({"root": {"readonly": true}}), "try write touch /x\ntry tmp touch /tmp/x\ntry dev touch /dev/x\ntry shm touch /dev/shm/x\ntry remove rm /work/file"),
        Case::new("writable-root", json!({}), "try write sh_ 'echo new >/work/file'\nsay read cat /work/file\ntry remove rm /work/script\nsay list ls /work\nsay size stat -c '%a %u %g %s' /work/file /work/secret\nsay state stat -c '%a %u %g' /home/user /tmp\ntry execute /work/set-id true"),
        Case::new("tmpfs", tmpfs(&["nosuid", "nodev", "noexec", "size=1m", "mode=1750"]), shown("/mnt")),
        Case::new("tmpfs-plain", tmpfs(&[]), shown("/mnt")),
        Case::new("tmpfs-read-only", tmpfs(&["ro"]), shown("/mnt")),
        Case::new("tmpfs-owner", tmpfs(&["uid=1000", "gid=1000", "mode=700", "noatime"]), shown("/mnt")),
        Case::new("tmpfs-size", tmpfs(&["size=64k"]), "try much dd if=/dev/zero of=/mnt/f bs=1k count=100\nsay size stat -c %s /mnt/f"),
        Case::new("tmpfs-missing", mount(json!({"destination": "/new/place", "type": "tmpfs", "source": "tmpfs"})), "say made stat -c '%a %u %g %F' /new /new/place\ntry write touch /new/place/x"),
        Case::new("tmpfs-through-link", mount(json!({"destination": "/proc/self/cwd", "type": "tmpfs", "source": "tmpfs"})), "say cwd pwd"),
        Case::new("second-proc", mount(json!({"destination": "/mnt", "type": "proc", "source": "proc", "options": ["ro"]})), "try write put x /mnt/sys/kernel/hostname\nsay init cat /mnt/1/comm"),
        Case::new("propagation-slave", json!({"linux": {"rootfsPropagation": "rslave"}}), "say shared sh_ 'grep -c shared: /proc/self/mountinfo'"),
        Case::new(
            "extra-device",
            json!({"linux": {"devices": [{"path": "/dev/nothing", "type": "c", "major": 1, "minor": 3, "fileMode": 384, "uid": 7, "gid": 8}],
                             "resources": {"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]}}}),
            "say node stat -c '%F %a %u %g %t %T' /dev/nothing\ntry write sh_ 'echo x >/dev/nothing'",
        ),
        Case::new("cgroup-mount", json!({}), "say type stat -f -c %T /sys/fs/cgroup\ntry write mkdir /sys/fs/cgroup/x\nsay procs sh_ 'grep -c . /sys/fs/cgroup/cgroup.procs'"),
    ]
}
