//! `husk run` and what one does with its container: streams, terminals, signals, limits, users, removal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{SystemTime, UNIX_EPOCH};

use husk_tests::fixture::{Husk, wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Says "ready", then ends with code 9 when the given signal comes.
fn waiting_for(signal: &str) -> String {
    format!("trap 'exit 9' {signal}; echo ready; while :; do sleep 1; done")
}

/// The entry of `husk ps` for one container.
fn listed(husk: &Husk, name: &str) -> Option<Value> {
    let list = husk.run(&["ps", "-a", "--format", "json"]).success().json();
    let named = |entry: &&Value| match entry.get("Names").or_else(|| entry.get("Name")) {
        Some(Value::Array(names)) => names.iter().any(|n| n == name),
        Some(Value::String(n)) => n == name,
        _ => false,
    };
    list.as_array().and_then(|entries| entries.iter().find(named)).cloned()
}

#[test]
fn the_exit_code_of_the_command_is_that_of_husk() {
    let husk = Husk::new();
    husk.run(&["run", "--rm", "busybox", "sh", "-c", "exit 7"]).exits(7);
    husk.run(&["run", "--rm", "busybox", "true"]).exits(0);
}

#[test]
fn standard_input_reaches_the_command_and_ends() {
    let husk = Husk::new();
    let output = husk.run_with_input(&["run", "-i", "--rm", "busybox", "cat"], "hi\n").success();
    assert_eq!(output.stdout, b"hi\n");
    let script = "cat >/dev/null; echo the input has ended";
    let output = husk.run_with_input(&["run", "-i", "--rm", "busybox", "sh", "-c", script], "hi\n").success();
    assert_eq!(output.text(), "the input has ended");
}

#[test]
fn without_i_the_command_has_nothing_to_read() {
    let husk = Husk::new();
    let output = husk.run_with_input(&["run", "--rm", "busybox", "cat"], "not for the container").success();
    assert_eq!(output.stdout, b"");
}

#[test]
fn sixty_four_mebibytes_pass_through_unchanged() {
    let husk = Husk::new();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()) | 1;
    let mut state = seed;
    let mut data = Vec::with_capacity(64 << 20);
    while data.len() < 64 << 20 {
        // xorshift64: bytes that repeat nowhere, so that a lost or doubled block shows.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    let sent = Sha256::digest(&data);
    let output = husk.run_with_input(&["run", "-i", "--rm", "busybox", "cat"], data).success();
    assert_eq!(output.stdout.len(), 64 << 20, "seed {seed}");
    assert_eq!(Sha256::digest(&output.stdout), sent, "seed {seed}");
}

#[test]
fn standard_output_and_standard_error_stay_apart() {
    let husk = Husk::new();
    let output = husk.run(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]).success();
    assert_eq!((output.text().as_str(), output.stderr.trim_end()), ("out", "err"));
}

#[test]
fn a_terminal_has_our_size_and_follows_it() {
    let husk = Husk::new();
    let mut terminal = husk.at_terminal(&["run", "-it", "--rm", "busybox", "sh"]);
    terminal.shows("# ");
    terminal.types("tty; echo size: $(stty size)\n");
    terminal.shows("/dev/pts/");
    terminal.shows("size: 24 80");
    terminal.resize(40, 100);
    // The arithmetic keeps the echo of the typed line from being taken for the answer.
    terminal.types("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; echo resized-$((1 + 1))\n");
    terminal.shows("resized-2");
    terminal.types("exit 3\n");
    assert_eq!(terminal.ends(), 3);
}

#[test]
fn control_c_at_a_terminal_interrupts_the_process() {
    let husk = Husk::new();
    let mut terminal = husk.at_terminal(&["run", "-it", "--rm", "busybox", "sh", "-c", &waiting_for("INT")]);
    terminal.shows("ready");
    terminal.types("\x03");
    assert_eq!(terminal.ends(), 9);
}

#[test]
fn signals_to_husk_reach_the_process() {
    let husk = Husk::new();
    for (name, signal) in [("INT", Signal::INT), ("TERM", Signal::TERM), ("HUP", Signal::HUP)] {
        let running = husk.start(&["run", "--rm", "busybox", "sh", "-c", &waiting_for(name)]);
        running.wait_for_stdout("ready");
        running.signal(signal);
        running.finish().exits(9);
    }
}

#[test]
fn a_container_killed_by_its_memory_limit_says_so() {
    let husk = Husk::new();
    husk.run(&["run", "--name", "greedy", "--memory", "16m", "busybox", "tail", "/dev/zero"]).exits(137);
    let state = husk.container("greedy");
    assert!(state.oom_killed());
    assert_eq!((state.status().as_str(), state.exit_code()), ("exited", 137));
    husk.ok(&["rm", "greedy"]);
}

#[test]
fn a_container_killed_by_a_signal_was_not_killed_by_its_limit() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "killed", "--memory", "64m", "busybox", "sleep", "1000"]);
    husk.ok(&["kill", "killed"]);
    let state = husk.wait_for_exit("killed");
    assert!(!state.oom_killed());
    assert_eq!(state.exit_code(), 137);
    husk.ok(&["rm", "killed"]);
}

#[test]
fn limits_are_those_of_the_containers_control_group() {
    let husk = Husk::new();
    let script = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max";
    let limits = ["--memory", "96m", "--cpus", "0.5", "--pids-limit", "77"];
    let command = [&["run", "--rm"], &limits[..], &["busybox", "sh", "-c", script]].concat();
    assert_eq!(husk.ok(&command), "100663296\n50000 100000\n77");
}

#[test]
fn a_fork_bomb_stops_at_the_process_limit() {
    let husk = Husk::new();
    // Only builtins after the bomb: there is no process left to be had.
    let script = "(while :; do sleep 1000 & done) 2>/dev/null
        cd /sys/fs/cgroup; read current <pids.current; read max <pids.max; read events <pids.events
        echo $current $max $events";
    let answer = husk.ok(&["run", "--rm", "--pids-limit", "32", "busybox", "sh", "-c", script]);
    let words: Vec<&str> = answer.split(' ').collect();
    let [current, "32", "max", events] = words.as_slice() else { panic!("{answer}") };
    assert!((16..=32).contains(&current.parse::<u32>().unwrap()), "{answer}");
    assert!(events.parse::<u32>().unwrap() >= 1, "{answer}");
}

#[test]
fn environment_variables_come_from_image_flags_and_our_own_environment() {
    let mut husk = Husk::new();
    husk.set("FROM_OUTSIDE", "inherited by name");
    let script = "echo $COLOUR/$SIZE/$FROM_OUTSIDE/$PATH";
    let command = ["run", "--rm", "-e", "SIZE=a b=c", "-e", "FROM_OUTSIDE", "husk-test/workdir", "sh", "-c", script];
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(husk.ok(&command), format!("green/a b=c/inherited by name/{path}"));
    assert_eq!(husk.ok(&["run", "--rm", "-e", "COLOUR=red", "husk-test/workdir", "sh", "-c", "echo $COLOUR"]), "red");
}

#[test]
fn the_working_directory_is_the_images_or_the_flags_and_is_made() {
    let husk = Husk::new();
    assert_eq!(husk.ok(&["run", "--rm", "husk-test/workdir"]), "/srv/made/by/the/runtime");
    assert_eq!(husk.ok(&["run", "--rm", "-w", "/some/where", "husk-test/workdir"]), "/some/where");
}

#[test]
fn the_user_is_the_images_or_the_flags_with_its_groups() {
    let husk = Husk::new();
    assert_eq!(
        husk.ok(&["run", "--rm", "husk-test/user"]),
        "uid=1234(alice) gid=1000(users) groups=29(audio),44(video),1000(users)"
    );
    let id = |user: &str| husk.ok(&["run", "--rm", "-u", user, "busybox", "sh", "-c", "id -u; id -g; id -G"]);
    assert_eq!(id("www-data"), "33\n33\n33");
    assert_eq!(id("70000:80000"), "70000\n80000\n80000");
    husk.run(&["run", "--rm", "-u", "nobody-knows-me", "busybox", "id"]).fails_saying(&["nobody-knows-me"]);
}

#[test]
fn arguments_follow_the_images_entrypoint_unless_it_is_replaced() {
    let husk = Husk::new();
    assert_eq!(husk.ok(&["run", "--rm", "husk-test/entrypoint"]), "from the entrypoint: default words");
    assert_eq!(husk.ok(&["run", "--rm", "husk-test/entrypoint", "mine"]), "from the entrypoint: mine");
    assert_eq!(husk.ok(&["run", "--rm", "--entrypoint", "printf", "husk-test/entrypoint", "%s", "x"]), "x");
}

#[test]
fn a_command_that_cannot_run_is_told_apart_from_one_that_fails() {
    let husk = Husk::new();
    let missing = husk.run(&["run", "--rm", "busybox", "no-such-command"]).exits(127);
    missing.fails_saying(&["no-such-command"]);
    let not_executable = husk.run(&["run", "--rm", "busybox", "/etc/passwd"]).exits(126);
    not_executable.fails_saying(&["/etc/passwd"]);
}

#[test]
fn a_detached_container_is_followed_stopped_and_removed() {
    let husk = Husk::new();
    let script = "trap 'echo asked to stop; exit 5' TERM; echo started; while :; do sleep 1; done";
    let id = husk.ok(&["run", "-d", "--name", "service", "busybox", "sh", "-c", script]);
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "not an id: {id}");
    let follower = husk.start(&["logs", "-f", "service"]);
    follower.wait_for_stdout("started");
    husk.ok(&["stop", "service"]);
    assert_eq!(follower.finish().success().text(), "started\nasked to stop");
    let entry = listed(&husk, "service").expect("an ended container stays listed");
    assert_eq!(entry.get("ExitCode").and_then(Value::as_i64), Some(5), "{entry:#}");
    assert_eq!(husk.ok(&["logs", "service"]), "started\nasked to stop");
    husk.ok(&["rm", "service"]);
    assert_eq!(listed(&husk, "service"), None);
}

#[test]
fn a_container_that_ignores_the_stop_signal_is_killed() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "stubborn", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
    husk.ok(&["stop", "-t", "1", "stubborn"]);
    assert_eq!(husk.wait_for_exit("stubborn").exit_code(), 137);
    husk.ok(&["rm", "stubborn"]);
}

#[test]
fn stop_sends_the_signal_that_the_image_names() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "polite", "husk-test/stop-signal"]);
    husk.wait_for_log("polite", "ready");
    husk.ok(&["stop", "polite"]);
    assert_eq!(husk.wait_for_exit("polite").exit_code(), 42);
    husk.ok(&["rm", "polite"]);
}

#[test]
fn kill_sends_any_signal() {
    let husk = Husk::new();
    let script = "trap 'echo got USR1' USR1; trap 'exit 9' USR2; echo ready; while :; do sleep 1; done";
    husk.ok(&["run", "-d", "--name", "target", "busybox", "sh", "-c", script]);
    husk.wait_for_log("target", "ready");
    husk.ok(&["kill", "-s", "USR1", "target"]);
    husk.wait_for_log("target", "got USR1");
    husk.ok(&["kill", "-s", "SIGUSR2", "target"]);
    assert_eq!(husk.wait_for_exit("target").exit_code(), 9);
    husk.ok(&["rm", "target"]);
}

#[test]
fn exec_runs_beside_the_command_with_its_own_streams_and_exit_code() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "host", "-e", "COLOUR=green", "busybox", "sleep", "1000"]);
    husk.run(&["exec", "host", "sh", "-c", "exit 12"]).exits(12);
    assert_eq!(husk.sh("host", "echo $COLOUR; ps -o args | grep -c '^sleep 1000'"), "green\n1");
    let output = husk.run_with_input(&["exec", "-i", "host", "sha256sum"], vec![b'x'; 3 << 20]).success();
    let expected = hex::encode(Sha256::digest(vec![b'x'; 3 << 20]));
    assert_eq!(output.text(), format!("{expected}  -"));
    let script = "id -u; pwd; echo $SIZE";
    let command = ["exec", "-u", "nobody", "-w", "/etc", "-e", "SIZE=xl", "host", "sh", "-c", script];
    assert_eq!(husk.ok(&command), "65534\n/etc\nxl");
    husk.run(&["exec", "host", "no-such-command"]).exits(127);
    // Asked once, at once: the terminal has its size before the process starts.
    let mut terminal = husk.at_terminal(&["exec", "-it", "host", "sh", "-c", "stty size; read line; exit 4"]);
    terminal.shows("24 80");
    terminal.types("\n");
    assert_eq!(terminal.ends(), 4);
    husk.ok(&["rm", "-f", "host"]);
    husk.run(&["exec", "host", "true"]).fails_saying(&["host"]);
}

#[test]
fn a_read_only_root_refuses_writes_and_a_tmpfs_takes_them() {
    let husk = Husk::new();
    let script = "touch /file 2>&1; mkdir /etc/dir 2>&1; echo x >/dev/shm/x && cat /dev/shm/x";
    let answer = husk.ok(&["run", "--rm", "--read-only", "busybox", "sh", "-c", script]);
    assert_eq!(answer.matches("Read-only file system").count(), 2, "{answer}");
    assert!(answer.ends_with("\nx"), "{answer}");
}

#[test]
fn a_container_has_podmans_default_capabilities_and_masked_paths() {
    let husk = Husk::new();
    let script = "grep -E 'CapEff|CapBnd' /proc/self/status; wc -c </proc/kcore; ls /proc/acpi /sys/firmware | wc -l
        echo x 2>/dev/null >/proc/sys/kernel/hostname || echo read-only; mount -t tmpfs x /mnt 2>/dev/null || echo denied";
    let answer = husk.ok(&["run", "--rm", "busybox", "sh", "-c", script]);
    // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot setfcap, by
    // capability(7).
    assert!(answer.contains("CapEff:\t00000000800405fb"), "{answer}");
    assert!(answer.contains("CapBnd:\t00000000800405fb"), "{answer}");
    assert!(answer.contains("read-only\ndenied"), "{answer}");
}

#[test]
fn a_named_volume_outlives_its_containers() {
    let husk = Husk::new();
    husk.ok(&["run", "--rm", "-v", "kept:/data", "busybox", "sh", "-c", "echo remembered >/data/file"]);
    assert_eq!(husk.ok(&["run", "--rm", "-v", "kept:/data:ro", "busybox", "cat", "/data/file"]), "remembered");
    let output = husk.run(&["run", "--rm", "-v", "kept:/data:ro", "busybox", "touch", "/data/file"]).exits(1);
    output.fails_saying(&["read-only"]);
    husk.ok(&["volume", "rm", "kept"]);
}

#[test]
fn containers_that_share_a_pod_share_localhost_and_names() {
    let husk = Husk::new();
    let pod = ["run", "-d", "--pod", "new:pair", "--domainname", "nis.example", "--name", "first"];
    husk.ok(&[&pod[..], &["busybox", "nc", "-ll", "-p", "99", "-e", "hostname"]].concat());
    let script = "until nc localhost 99; do sleep 1; done; hostname; cat /proc/sys/kernel/domainname";
    let answer = husk.ok(&["run", "--rm", "--pod", "pair", "busybox", "sh", "-c", script]);
    let names: Vec<&str> = answer.lines().collect();
    assert!(matches!(names.as_slice(), [first, second, "nis.example"] if first == second), "{answer}");
    husk.ok(&["pod", "rm", "-f", "pair"]);
}

#[test]
fn a_name_belongs_to_one_container() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "only", "busybox", "sleep", "1000"]);
    husk.run(&["run", "-d", "--name", "only", "busybox", "true"]).fails_saying(&["only", "in use"]);
    husk.ok(&["rm", "-f", "only"]);
    husk.ok(&["run", "--rm", "--name", "only", "busybox", "true"]);
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "busy", "busybox", "sleep", "1000"]);
    husk.run(&["rm", "busy"]).fails_saying(&["busy", "running"]);
    husk.ok(&["rm", "-f", "busy"]);
}

/// The VMM's process, found as an operator would: there is one in this test.
fn process_named(name: &str) -> Pid {
    wait_for(&format!("a process named {name}"), 5, || {
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes.into_iter().find_map(|entry| {
            let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (comm.trim_end() == name).then(|| Pid::from_raw(pid)).flatten()
        })
    })
}

#[test]
fn when_the_vmm_dies_husk_run_ends_and_leaves_nothing() {
    let husk = Husk::new();
    let running = husk.start(&["run", "--rm", "busybox", "sh", "-c", "echo ready; sleep 1000"]);
    running.wait_for_stdout("ready");
    kill_process(process_named("husk-vmm"), Signal::KILL).unwrap();
    let output = running.finish();
    assert_ne!(output.code, 0, "{output}");
}

#[test]
fn when_the_shim_dies_the_container_can_still_be_removed() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "orphan", "busybox", "sleep", "1000"]);
    // The kernel cuts a process's name after 15 characters.
    kill_process(process_named("containerd-shim"), Signal::KILL).unwrap();
    wait_until("husk to notice", 10, || {
        listed(&husk, "orphan").and_then(|e| e.get("State").cloned()).is_none_or(|state| state != "running")
    });
    husk.ok(&["rm", "-f", "orphan"]);
}
