//! What a container may not do: system call filters, capabilities, and what even a privileged one does not reach.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use husk_tests::fixture::Husk;

/// System calls that no shell has. Debian's perl runs from the host's /usr.
const PERL: [&str; 2] = ["-v", "/usr:/usr:ro"];
const PERL_READY: &str = "ln -s usr/lib /lib; ln -s usr/lib64 /lib64; ";

#[test]
fn system_calls_are_filtered_unless_the_manifest_says_otherwise() {
    let husk = Husk::new();
    let profiles = tempfile::tempdir().unwrap();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    fs::write(profiles.path().join("no-mkdir.json"), profile).unwrap();
    let container = |name: &str, context: &str| {
        format!("\n  - {{name: {name}, image: busybox, command: [sleep, '100000'], securityContext: {{{context}}}}}")
    };
    let manifest = husk_tests::fixture::manifest_file(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:{}{}{}{}{}{}",
        container("default", ""),
        container("user", "runAsUser: 1000, seccompProfile: {type: RuntimeDefault}"),
        container("strict", "runAsUser: 1000, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}"),
        container("open", "seccompProfile: {type: Unconfined}, procMount: Unmasked"),
        container("local", "seccompProfile: {type: Localhost, localhostProfile: no-mkdir.json}"),
        container("god", "privileged: true"),
    ));
    let (root, file) = (profiles.path().display().to_string(), manifest.display().to_string());
    husk.ok(&["kube", "play", "--network", "none", "--seccomp-profile-root", &root, &file]);
    let status = |name: &str| {
        let status = husk.sh(&format!("p-{name}"), "grep -hE '^(NoNewPrivs|Seccomp)' /proc/1/status /proc/self/status");
        status.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let both = |one: &str| format!("{one} {one}");
    assert_eq!(status("default"), both("NoNewPrivs: 0 Seccomp: 2 Seccomp_filters: 1"));
    assert_eq!(status("user"), both("NoNewPrivs: 0 Seccomp: 2 Seccomp_filters: 1"));
    assert_eq!(status("strict"), both("NoNewPrivs: 1 Seccomp: 2 Seccomp_filters: 1"));
    assert_eq!(status("open"), both("NoNewPrivs: 0 Seccomp: 0 Seccomp_filters: 0"));
    assert_eq!(status("local"), both("NoNewPrivs: 0 Seccomp: 2 Seccomp_filters: 1"));
    assert_eq!(status("god"), both("NoNewPrivs: 0 Seccomp: 0 Seccomp_filters: 0"));

    // A namespace of one's own needs no capability where nothing filters.
    let unshare = |name: &str| husk.sh(&format!("p-{name}"), "unshare -U true 2>&1 && echo done");
    assert_eq!(unshare("open"), "done");
    for name in ["default", "user", "strict"] {
        let refused = husk.run(&["exec", &format!("p-{name}"), "unshare", "-U", "true"]);
        refused.fails_saying(&["Operation not permitted"]);
    }
    husk.run(&["exec", "p-local", "mkdir", "/x"]).fails_saying(&["No space left on device"]);

    let masked = |name: &str| husk.sh(&format!("p-{name}"), "grep -c ' /proc/' /proc/self/mountinfo || :");
    assert!(masked("default").parse::<u32>().unwrap() >= 5);
    assert_eq!((masked("open"), masked("god")), ("0".to_owned(), "0".to_owned()));

    // What a privileged container is for.
    let script = "mkdir /sys/fs/cgroup/mine && echo $$ >/sys/fs/cgroup/mine/cgroup.procs &&
        echo 77 >/proc/sys/net/core/somaxconn && mkdir /m && mount -t tmpfs none /m &&
        ls /dev/kmsg /dev/net/tun /dev/fuse /dev/loop-control && dd if=/dev/kmsg bs=8192 count=1 of=/dev/null 2>&1 &&
        dd if=/dev/zero of=/disk bs=1M count=1 2>&1 && losetup /dev/loop0 /disk && losetup -d /dev/loop0 && echo done";
    assert!(husk.sh("p-god", script).ends_with("done"));
    assert_eq!(husk.sh("p-god", "grep CapEff /proc/1/status"), "CapEff:\t000001fffffdfffb");
    husk.down(&manifest);
}

#[test]
fn a_profile_of_ones_own_and_options_that_cannot_be_had() {
    let husk = Husk::new();
    let profiles = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = profiles.path().join(name);
        fs::write(&path, text).unwrap();
        format!("seccomp={}", path.display())
    };
    // All that the shell and the launch of it need, and no more: what is not named fails, what is newer does not exist.
    let strict = file(
        "strict.json",
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": [
        {"names": ["read", "write", "open", "openat", "close", "stat", "fstat", "newfstatat", "lstat", "poll", "lseek", "mmap",
            "mprotect", "munmap", "brk", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "ioctl", "access", "dup2", "getpid",
            "fork", "clone", "vfork", "execve", "exit", "wait4", "uname", "fcntl", "getcwd", "chdir", "readlink", "getuid",
            "getgid", "geteuid", "getegid", "getppid", "getpgrp", "prctl", "capset", "arch_prctl", "set_tid_address",
            "set_robust_list", "rseq", "prlimit64", "getrandom", "exit_group", "gettid", "tgkill", "setuid", "setgid"],
         "action": "SCMP_ACT_ALLOW"},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
         "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
        {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_NE"}]}]}"#,
    );
    let script = "mkdir /x; kill -USR1 $$; kill -0 $$ && echo alive";
    let output =
        husk.run(&["run", "--rm", "--network", "none", "--security-opt", &strict, "busybox", "sh", "-c", script]);
    let output = output.success();
    assert_eq!(output.text(), "alive");
    assert!(output.stderr.contains("Permission denied"), "{}", output.stderr);
    assert!(output.stderr.contains("I/O error") || output.stderr.contains("Input/output error"), "{}", output.stderr);

    let notify = file("notify.json", r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#);
    let misspelt = file("misspelt.json", r#"{"defaultAction": "SCMP_ACT_ALLOW", "sycalls": []}"#);
    for (option, told) in [
        (notify.as_str(), "SCMP_ACT_NOTIFY"),
        (misspelt.as_str(), "sycalls"),
        ("seccomp=/no/such/file", "/no/such/file"),
        ("apparmor=mine", "no such security module"),
        ("label=type:spc_t", "no such security module"),
    ] {
        husk.run(&["run", "--rm", "--security-opt", option, "busybox", "true"]).fails_saying(&[told]);
    }
}

/// Each line that is printed is an escape.
const ATTEMPTS: &str = r#"
    exec 2>/dev/null
    mkdir -p /m /d
    # The pod's disks: by a node of one's own, by the kernel's, and mounted without ever opening them.
    for device in $(cat /sys/class/block/vd*/dev); do
        mknod /dev/d b ${device%:*} ${device#*:} && echo "node of $device"
        head -c 1 /dev/d | grep -q . && echo "read $device"
        for type in ext4 erofs; do mount -t $type /dev/d /m && { echo "mounted $device"; umount /m; }; done
        rm -f /dev/d
    done
    if mount -t devtmpfs none /d; then
        for disk in /d/vd*; do
            test -b $disk || continue
            head -c 1 $disk | grep -q . && echo "read $disk"
            for type in ext4 erofs; do mount -t $type $disk /m && { echo "mounted $disk"; umount /m; }; done
        done
        for device in /d/ttyS0 /d/cpu/0/msr /d/mem /d/port; do
            test -e $device && head -c 1 $device | grep -q . && echo "read $device"
        done
    fi
    # Programs that the kernel runs in the agent's root.
    mount -t proc none /m && cd /m || cd /proc
    echo '|/proc/1/root/bin/sh' >sys/kernel/core_pattern && echo 'core_pattern'
    for set in bset inheritable; do
        echo '4294967295 511' >sys/kernel/usermodehelper/$set
        test "$(cat sys/kernel/usermodehelper/$set)" = '0	0' || echo "helpers have capabilities: $set"
    done
    for file in modprobe hotplug; do test -e sys/kernel/$file && echo "$file exists"; done
    cd /; umount /m
    test -e /sys/kernel/uevent_helper && echo 'uevent_helper exists'
    mount -t cgroup -o none,name=x none /m && { echo 'cgroup v1 with a release agent'; umount /m; }
    # The control groups of others.
    mount -t cgroup2 none /m && { ls -d /m/agent /m/pod /m/reaper; umount /m; }
    ls -d /sys/fs/cgroup/../../../agent /sys/fs/cgroup/agent
    # PID 1 of the guest and its root.
    grep -q husk-agent /proc/1/comm && echo 'PID 1 is the agent'
    ls -d /proc/1/root/run/husk
    insmod /bin/sh && echo 'a module'
"#;

/// The same for what needs system calls by their numbers.
const CALLS: &str = r#"
    use strict; no warnings;
    my ($BPF, $HANDLE, $KEXEC, $IOPL) = (321, 304, 246, 172);
    # The agent's ports, on this machine and by way of the host; nor may one sit in its place.
    for my $cid (1, 2, 3, 0xffffffff) { for my $port (1024, 1025) {
        socket(my $s, 40, 1, 0) or next;
        connect($s, pack('SSLLL', 40, 0, $port, $cid, 0)) and print "vsock $cid:$port\n";
        socket(my $l, 40, 1, 0) or next;
        bind($l, pack('SSLLL', 40, 0, $port, $cid, 0)) and listen($l, 1) and print "vsock listens on $port\n";
    } }
    # Out of the cgroup by the number of the root's inode.
    if (open(my $cgroup, '<', '/sys/fs/cgroup')) {
        for my $flags (0, 0200000) {
            my $handle = pack('LlQ', 8, 0xfe, 1);
            my $fd = syscall($HANDLE, fileno($cgroup), $handle, $flags);
            $fd >= 0 and -e "/proc/self/fd/$fd/agent" and print "cgroup root by handle\n";
        }
        # The device rules taken off.
        my $id = 0;
        while (1) {
            my $next = pack('LLL', $id, 0, 0) . "\0" x 116;
            syscall($BPF, 11, $next, 128) == 0 or last;
            $id = (unpack('LL', $next))[1];
            my $by_id = pack('L', $id) . "\0" x 124;
            my $program = syscall($BPF, 13, $by_id, 128);
            $program >= 0 or next;
            for my $type (6, 18) {
                my $detach = pack('LLLL', fileno($cgroup), $program, $type, 0) . "\0" x 112;
                syscall($BPF, 9, $detach, 128) == 0 and print "detached program $id\n";
            }
        }
    } else { print "no cgroup directory: $!\n" }
    syscall($KEXEC, 0, 0, 0, 0) == 0 and print "kexec\n";
    syscall($IOPL, 3) == 0 and print "iopl\n";
"#;

#[test]
fn nobody_gets_out_of_a_container() {
    let husk = Husk::new();
    for privileges in [&[][..], &["--privileged"]] {
        let script = format!("{ATTEMPTS}\n{PERL_READY}cat >/calls <<'END'\n{CALLS}\nEND\nperl /calls; echo tried");
        let arguments =
            [&["run", "--rm", "--network", "none"][..], &PERL, privileges, &["busybox", "sh", "-c", &script]].concat();
        assert_eq!(husk.run(&arguments).success().text(), "tried", "{privileges:?}");
    }
}

/// `god` is privileged, `other` is not.
fn pod(spec: &str) -> tempfile::TempPath {
    husk_tests::fixture::manifest_file(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  restartPolicy: Never
  {spec}
  volumes: [{{name: usr, hostPath: {{path: /usr}}}}]
  containers:
  - {{name: other, image: busybox, command: [sleep, '100000']}}
  - name: god
    image: busybox
    command: [sleep, '100000']
    securityContext: {{privileged: true}}
    volumeMounts: [{{name: usr, mountPath: /usr, readOnly: true}}]"
    ))
}

#[test]
fn a_privileged_container_ends_itself_and_not_its_pod() {
    let husk = Husk::new();
    let manifest = pod("");
    husk.ok(&["kube", "play", "--network", "none", &manifest.display().to_string()]);
    let _ = husk.run(&["exec", "p-god", "reboot", "-f"]);
    let _ = husk.wait_for_exit("p-god");
    assert_eq!(husk.sh("p-other", "echo here"), "here");
    husk.down(&manifest);
}

/// Containers that share processes see the pod's reaper, which may lead them nowhere.
#[test]
fn the_reaper_of_a_pod_is_no_door_to_the_agent() {
    let husk = Husk::new();
    let manifest = pod("shareProcessNamespace: true");
    husk.ok(&["kube", "play", "--network", "none", &manifest.display().to_string()]);
    let script = r#"open my $cgroup, '<', '/proc/1/ns/cgroup' or die; syscall(308, fileno $cgroup, 0) == 0 or die "setns: $!";
        exec 'mkdir /m; mount -t cgroup2 none /m && ls -d /m/*/ 2>/dev/null; cat /m/cgroup.procs; ls -A /proc/1/root'"#;
    let script = format!("{PERL_READY}cat >/calls <<'END'\n{script}\nEND\nperl /calls");
    assert_eq!(husk.sh("p-god", &script), "1");
    husk.down(&manifest);
}
