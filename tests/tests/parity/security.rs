//! Capabilities, privileges, device rules.

use husk_tests::parity::Case;
use serde_json::{Value, json};

const SETS: &str = "status CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Uid";

/// What an unprivileged container may not do; also what root in it may not.
const FORBIDDEN: &str = "
try mount mount -t tmpfs tmpfs /mnt
try bind mount -o bind /work /mnt
try unmount umount /proc
try hostname hostname other
try chroot chroot / true
try node mknod /tmp/node c 1 3
try block mknod /tmp/block b 254 0
try fifo mknod /tmp/fifo p
try chown chown 1000 /work/file
try kill kill -0 1
try priority nice -n -5 true
try clock date -s 2030-01-01
try module modprobe loop
try interface ip link add dummy0 type dummy
try address ip addr add 10.9.9.9/32 dev lo
try port sh_ 'timeout 1 nc -l -p 80 </dev/null; [ $? = 143 ]'
try swap swapoff -a
try sysctl put 1 /proc/sys/net/ipv4/ip_forward
try trace cat /proc/1/environ
try memory sh_ 'head -c 1 /dev/mem'
try root ls /proc/1/root/
try reboot reboot -f
try namespace unshare -m true
try user-namespace unshare -U true
try uts unshare -u hostname other
try setuid setpriv --dump
try log dmesg
";

fn capabilities(sets: Value) -> Value {
    json!({"process": {"capabilities": sets}})
}

pub(crate) fn cases() -> Vec<Case> {
    let all: Vec<&str> = include_str!("../../src/behaviour/capabilities.txt").lines().collect();
    let few = ["CAP_NET_BIND_SERVICE", "CAP_KILL"];
    let user = json!({"uid": 1000, "gid": 1000});
    vec![
        Case::new("default", json!({}), SETS),
        Case::new("none", capabilities(Value::Null), SETS),
        Case::new("all", capabilities(json!({"bounding": all, "effective": all, "permitted": all})), SETS),
        Case::new("bounding-only", capabilities(json!({"bounding": few, "effective": Value::Null, "permitted": Value::Null})), SETS),
        Case::new("as-user", json!({"process": {"user": user}}), SETS),
        Case::new(
            "ambient",
            json!({"process": {"user": user, "capabilities": {"bounding": few, "effective": few, "permitted": few, "inheritable": few, "ambient": few}}}),
            SETS,
        ),
        Case::new("inheritable", json!({"process": {"user": user, "capabilities": {"bounding": few, "effective": few, "permitted": few, "inheritable": few}}}), SETS),
        Case::new("new-privileges", json!({"process": {"noNewPrivileges": false}}), SETS),
        Case::new("set-id", json!({"process": {"noNewPrivileges": false, "user": user}}), "say uid sh_ '/work/set-id cat /proc/self/status | grep -c \"^Uid:.*1000.*0.*0\"'"),
        Case::new("set-id-refused", json!({"process": {"user": user}}), "say uid sh_ '/work/set-id cat /proc/self/status | grep ^Uid'"),
        Case::new("forbidden-to-root", json!({}), FORBIDDEN),
        Case::new("forbidden-to-user", json!({"process": {"user": user}}), FORBIDDEN),
        Case::new("forbidden-without-capabilities", capabilities(Value::Null), FORBIDDEN),
        Case::new(
            "devices",
            capabilities(json!({"bounding": all, "effective": all, "permitted": all})),
            "try node mknod /tmp/kmsg c 1 11\ntry kmsg sh_ 'head -c 1 /tmp/kmsg'\ntry mem sh_ 'mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem'
             for disk in '254 0' '253 0' '252 0' '8 0' '7 0' '259 0'; do rm -f /tmp/disk; try \"disk $disk\" sh_ \"mknod /tmp/disk b $disk; head -c 1 /tmp/disk\"; done
             try null sh_ 'mknod /tmp/null c 1 3 && echo x >/tmp/null'\ntry fuse sh_ 'mknod /tmp/fuse c 10 229 && head -c 1 /tmp/fuse'
             try tun sh_ 'mknod /tmp/tun c 10 200 && : </tmp/tun'\ntry kvm sh_ 'mknod /tmp/kvm c 10 232 && : </tmp/kvm'
             try console sh_ 'mknod /tmp/console c 5 1 && : </tmp/console'\ntry serial sh_ 'mknod /tmp/serial c 4 64 && : </tmp/serial'
             try vsock sh_ 'mknod /tmp/vsock c 10 121 && : </tmp/vsock'",
        ),
        Case::exec("exec-capabilities", json!({}), capabilities(json!({"effective": few, "permitted": few, "bounding": few})), SETS),
        Case::exec("exec-no-new-privileges", json!({"process": {"noNewPrivileges": false}}), json!({"noNewPrivileges": true}), SETS),
        Case::new("descriptors", json!({}), "say open sh_ 'ls /proc/1/fd | sort -n'\nsay limits sh_ 'ls -l /proc/1/fd | grep -c -e socket -e anon_inode'"),
        Case::new("signals", json!({"process": {"args": ["/bin/grep", "^Sig[BI]", "/proc/self/status"]}}), ""),
        Case::new("scheduling", json!({}), "say stat sh_ 'cut -d \" \" -f 18-19,40-41 /proc/self/stat'\nsay oom cat /proc/self/oom_score_adj\nsay threads grep Threads /proc/self/status\nsay coredump cat /proc/self/coredump_filter\nsay slack cat /proc/self/timerslack_ns\nsay personality cat /proc/self/personality"),
    ]
}
