//! Users, names, environment, namespaces, kernel parameters.

use husk_tests::parity::Case;
use serde_json::json;

const WHO: &str = "
say id id
status Uid Gid Groups
say umask umask
say cwd pwd
say environment env
say arguments cat /proc/1/cmdline
say sessions sh_ 'cut -d \" \" -f 4-8 /proc/1/stat'
";

pub(crate) fn cases() -> Vec<Case> {
    let user = |user| json!({"process": {"user": user}});
    vec![
        Case::new("root", json!({}), WHO),
        Case::new("user", user(json!({"uid": 1000, "gid": 1000})), WHO),
        Case::new("groups", user(json!({"uid": 1000, "gid": 50, "additionalGids": [7, 60, 2_000_000_000]})), WHO),
        Case::new("unknown-user", user(json!({"uid": 123_456, "gid": 654_321})), WHO),
        Case::new("umask", user(json!({"uid": 0, "gid": 0, "umask": 63})), "say umask umask\n: >/tmp/file\nsay mode stat -c %a /tmp/file"),
        Case::new(
            "environment",
            json!({"process": {"cwd": "/work", "env": ["PATH=/bin", "EMPTY=", "SPACES=a b  c", "TWICE=1", "TWICE=2", "UNICODE=äöü", "HOME=/here"]}}),
            "say environment sh_ 'env | grep -v ^SHLVL'\nsay twice sh_ 'tr \"\\0\" \"\\n\" </proc/1/environ | grep TWICE'\nsay cwd pwd",
        ),
        Case::new("missing-cwd", json!({"process": {"cwd": "/made/for/it"}}), "say cwd pwd\nsay mode stat -c '%a %u %g' /made /made/for/it"),
        Case::new("owned-cwd", json!({"process": {"cwd": "/home/user", "user": {"uid": 1000, "gid": 1000}}}), "say cwd pwd\ntry write touch file"),
        Case::new(
            "names",
            json!({}),
            "say hostname hostname\nsay sysctl cat /proc/sys/kernel/hostname\nsay domain cat /proc/sys/kernel/domainname
             say nodename uname -n\nsay system uname -s\nsay machine uname -m\ntry rename hostname other",
        ),
        Case::new(
            "namespaces",
            json!({}),
            "say processes sh_ 'ls /proc | grep -c ^[0-9]'\nsay links ls /sys/class/net
             say addresses sh_ 'ip -o addr | sed \"s/ valid_lft.*//;s/  */ /g\"'\nsay loopback sh_ 'ip -o link show lo | sed \"s/.*lo: //;s/ qdisc.*//\"'
             say routes ip route\nsay ping sh_ 'ping -c 1 -W 5 127.0.0.1 | grep -c \"1 packets received\"'
             say queues sh_ 'ls /dev/mqueue | wc -l'\nsay semaphores sh_ 'wc -l </proc/sysvipc/sem'\nsay cgroup cat /proc/self/cgroup
             say uid-map sh_ 'sed \"s/  */ /g\" /proc/self/uid_map'\nsay gid-map sh_ 'sed \"s/  */ /g\" /proc/self/gid_map'
             say setgroups cat /proc/self/setgroups\nsay inits sh_ 'cat /proc/1/comm'\nsay kinds ls /proc/self/ns
             say time-offsets cat /proc/self/timens_offsets",
        ),
        Case::exec("exec", json!({}), json!({}), "status Uid Gid Groups\nsay environment env\nsay cwd pwd\nsay parent sh_ 'cut -d \" \" -f 4 /proc/self/stat | grep -vc ^0'\nsay init cat /proc/1/comm\nsay cgroup cat /proc/self/cgroup\nsay hostname hostname"),
        Case::exec(
            "exec-user",
            json!({}),
            json!({"user": {"uid": 1000, "gid": 1000, "additionalGids": [5]}, "cwd": "/tmp", "env": ["PATH=/bin", "ONE=1"]}),
            "status Uid Gid Groups CapEff CapBnd CapPrm\nsay environment env\nsay cwd pwd\ntry kill kill -0 1",
        ),
    ]
}

/// Kernel parameters and the name are the pod's.
pub(crate) fn alone() -> Vec<Case> {
    let sysctl = json!({
        "net.ipv4.ip_unprivileged_port_start": "0", "net.core.somaxconn": "777", "net.ipv4.ping_group_range": "0 1000",
        "net.ipv4.tcp_syncookies": "0", "net.ipv4.ip_local_port_range": "40000 41000",
        "kernel.shmmax": "1234567", "kernel.shmall": "4321", "kernel.sem": "100 2000 50 60", "kernel.msgmax": "5000",
        "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "33", "fs.mqueue.queues_max": "44",
    });
    vec![Case::new(
        "sysctl",
        json!({"hostname": "alone", "linux": {"sysctl": sysctl}}),
        "say hostname hostname
         for name in net/ipv4/ip_unprivileged_port_start net/core/somaxconn net/ipv4/ping_group_range net/ipv4/tcp_syncookies \\
             net/ipv4/ip_local_port_range kernel/shmmax kernel/shmall kernel/sem kernel/msgmax kernel/shm_rmid_forced \\
             fs/mqueue/msg_max fs/mqueue/queues_max; do say $name cat /proc/sys/$name; done",
    )]
}
