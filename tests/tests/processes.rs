//! Processes of containers while they run: looking at them, pausing and limiting them, many at once, many in a row, and
//! those that misbehave; and joining one that runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::process::Stdio;

use husk_tests::fixture::{Husk, Running, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// The only entry of `husk stats` for a container.
fn stats(husk: &Husk, container: &str) -> Value {
    husk.run(&["stats", "--no-stream", "--format", "json", container]).success().json()[0].clone()
}

fn lines(husk: &Husk, container: &str) -> usize {
    husk.ok(&["logs", container]).lines().count()
}

/// Ticks for ever, so that who has attached can be told, and answers words of its input until `stop`.
const ANSWERING: &str = "(while :; do echo tick; sleep 1; done) &
    while read word; do echo got $word; [ $word = stop ] && exit 6; done; exit 1";

fn attach(husk: &Husk, container: &str, input: &str) -> Running {
    Running::start(&mut husk.command(["attach", container]), Some(input.into()))
}

#[test]
fn several_can_attach_to_a_detached_container() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "-i", "--name", "joined", "busybox", "sh", "-c", ANSWERING]);
    let watching = husk.start(&["attach", "--no-stdin", "joined"]);
    let leaving = husk.start(&["attach", "--sig-proxy=false", "joined"]);
    for client in [&watching, &leaving] {
        client.wait_for_stdout("tick");
    }
    leaving.signal(Signal::INT);
    leaving.finish().exits(130);
    // The end of one client's input is not the container's.
    let first = attach(&husk, "joined", "one\n");
    for client in [&first, &watching] {
        client.wait_for_stdout("got one");
    }
    let last = attach(&husk, "joined", "stop\n").finish().exits(6);
    assert!(last.text().contains("got stop") && !last.text().contains("got one"), "{last}");
    for client in [first, watching] {
        assert!(client.finish().exits(6).text().contains("got stop"));
    }
    let log = husk.ok(&["logs", "joined"]);
    assert!(log.contains("got one") && log.contains("got stop"), "{log}");
    husk.run(&["attach", "joined"]).fails_saying(&["joined", "not running"]);
    husk.ok(&["rm", "joined"]);
}

#[test]
fn a_detached_terminal_is_attached_to_and_signals_reach_what_has_none() {
    let husk = Husk::new();
    husk.ok(&["run", "-dit", "--name", "typed", "busybox", "sh"]);
    let mut terminal = husk.at_terminal(&["attach", "typed"]);
    // The arithmetic keeps the echo of the typed line from being taken for the answer.
    terminal.types("until [ \"$(stty size)\" = '24 80' ]; do sleep 0.1; done; echo sized-$((1 + 1))\n");
    terminal.shows("sized-2");
    terminal.types("exit 3\n");
    assert_eq!(terminal.ends(), 3);
    assert_eq!(husk.wait_for_exit("typed").exit_code(), 3);
    husk.ok(&["rm", "typed"]);

    let script = "trap 'exit 9' TERM; while :; do echo tick; sleep 1; done";
    husk.ok(&["run", "-d", "--rm", "--name", "deaf", "busybox", "sh", "-c", script]);
    let client = husk.start(&["attach", "deaf"]);
    client.wait_for_stdout("tick");
    client.signal(Signal::TERM);
    client.finish().exits(9);
}

#[test]
fn a_paused_container_stands_still_and_can_be_ended() {
    let husk = Husk::new();
    let script = "trap 'exit 9' TERM; while :; do echo line; sleep 0.1; done";
    husk.ok(&["run", "-d", "--name", "clock", "busybox", "sh", "-c", script]);
    husk.wait_for_log("clock", "line");
    husk.run(&["unpause", "clock"]).fails_saying(&["clock", "not paused but running"]);
    husk.ok(&["pause", "clock"]);
    assert_eq!(husk.container("clock").status(), "paused");
    assert!(husk.ok(&["ps"]).contains("(Paused)"));
    husk.run(&["exec", "clock", "true"]).fails_saying(&["clock", "not running but paused"]);
    husk.run(&["pause", "clock"]).fails_saying(&["clock", "paused"]);
    // Everything that was on its way has arrived once two looks agree.
    let mut before = lines(&husk, "clock");
    wait_until("the last line of a paused container", 10, || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = lines(&husk, "clock");
        now == std::mem::replace(&mut before, now)
    });
    assert!(husk.ok(&["top", "clock", "pid", "args"]).contains("sleep 0.1"));
    assert!(stats(&husk, "clock")["pids_current"].as_u64().unwrap() >= 1);
    assert_eq!(lines(&husk, "clock"), before);
    husk.ok(&["unpause", "clock"]);
    wait_until("a further line", 10, || lines(&husk, "clock") > before);
    assert_eq!(husk.container("clock").status(), "running");

    husk.ok(&["pause", "clock"]);
    husk.ok(&["stop", "-t", "1000", "clock"]);
    // Its own code: the signal was taken, though only after the pause.
    assert_eq!(husk.container("clock").exit_code(), 9);
    husk.ok(&["rm", "clock"]);
    husk.ok(&["run", "-d", "--name", "frozen", "busybox", "sleep", "1000"]);
    husk.ok(&["pause", "frozen"]);
    husk.ok(&["rm", "-f", "frozen"]);
}

#[test]
fn processes_use_and_limits_are_shown_and_changed_while_a_container_runs() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "busy", "--memory", "96m", "busybox", "sleep", "1000"]);
    husk.ok(&["exec", "-d", "-u", "7:8", "busy", "sh", "-c", "sleep 2000; true"]);
    let top = husk.ok(&["top", "busy", "user,pid,ppid", "args"]);
    let shown: Vec<_> = top.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(shown[..2], ["USER PID PPID COMMAND", "root 1 0 sleep 1000"], "{top}");
    assert!(shown.iter().any(|line| line.starts_with("7 ") && line.ends_with(" 0 sh -c sleep 2000; true")), "{top}");
    let json = husk.run(&["top", "--format", "json", "busy", "hpid", "gid"]).success().json();
    assert!(json.as_array().unwrap().iter().any(|process| process["gid"] == "8"), "{json}");
    husk.run(&["top", "busy", "nonsense"]).fails_saying(&["\"nonsense\"", "pcpu"]);

    let used = stats(&husk, "busy");
    for figure in ["memory_bytes", "cpu_usage_us", "vmm_resident_bytes", "vmm_cpu_ms"] {
        assert!(used[figure].as_u64().unwrap() > 0, "{figure}: {used:#}");
    }
    assert_eq!((used["name"].as_str(), used["pids_current"].as_u64()), (Some("busy"), Some(3)), "{used:#}");
    assert_eq!(used["memory_limit_bytes"].as_u64(), Some(96 << 20));
    assert!(husk.ok(&["stats", "--no-stream"]).lines().any(|line| line.contains(" busy ") && line.contains("101 MB")));

    let change = ["--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "50", "--cpus", "0.5"];
    husk.ok(&[&["update"], &change[..], &["--cpu-shares", "512", "busy"]].concat());
    let limits = husk.sh("busy", "cd /sys/fs/cgroup; cat memory.max memory.low pids.max cpu.max cpu.weight");
    let limits: Vec<_> = limits.lines().collect();
    assert_eq!(limits[..4], ["67108864", "33554432", "50", "50000 100000"]);
    assert_eq!(husk.run(&["inspect", "busy"]).success().json()[0]["HostConfig"]["Memory"], 64 << 20);
    husk.run(&["update", "--memory", "100g", "busy"]).fails_saying(&["busy", "104096 MiB", "at most"]);
    husk.run(&["update", "busy"]).fails_saying(&["nothing to change"]);

    // Several names, one of which there is not.
    assert_eq!(husk.ok(&["wait", "--condition", "running", "--ignore", "busy", "nobody"]), "-1\n-1");
    let waiting = husk.start(&["wait", "busy", "busy"]);
    husk.ok(&["kill", "-s", "KILL", "busy"]);
    assert_eq!(waiting.finish().success().text(), "137\n137");
    husk.ok(&["rm", "busy"]);
}

#[test]
fn two_hundred_commands_at_once_each_return_their_own_code() {
    const COUNT: usize = 200;
    let mut husk = Husk::new();
    // The last has to wait for all others, where CPUs are emulated longer than anything takes elsewhere.
    husk.set("HUSK_TIMEOUT_SCALE", "30");
    husk.ok(&["run", "-d", "--name", "many", "busybox", "sleep", "1000"]);
    let script = |n: usize| format!("echo {n}; exit {n}");
    let running: Vec<Running> = (0..COUNT).map(|n| husk.start(&["exec", "many", "sh", "-c", &script(n)])).collect();
    for (n, running) in running.into_iter().enumerate() {
        let output = running.finish_within(120).exits(i32::try_from(n).unwrap());
        assert_eq!(output.text(), n.to_string());
    }
    // Nothing of them is left in the container.
    assert_eq!(stats(&husk, "many")["pids_current"], 1);
    husk.ok(&["rm", "-f", "many"]);
}

#[test]
fn output_that_nobody_reads_holds_nothing_else_up() {
    let husk = Husk::new();
    let mut unread = husk.command(["run", "--name", "loud", "busybox", "sh", "-c", "yes full"]);
    let mut unread = unread.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    wait_until("the container to run", 30, || husk.run(&["exec", "loud", "true"]).code == 0);
    // It stands still once every pipe on the way is full.
    let mut before = stats(&husk, "loud")["cpu_usage_us"].clone();
    wait_until("a writer that waits", 30, || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = stats(&husk, "loud")["cpu_usage_us"].clone();
        now == std::mem::replace(&mut before, now.clone())
    });
    let pod = husk.ok(&["inspect", "loud"]);
    assert!(pod.contains("running"), "{pod}");
    husk.run(&["exec", "loud", "sh", "-c", "seq 1 1000; exit 3"]).exits(3);
    assert!(husk.ok(&["top", "loud"]).contains("yes full"));
    husk.ok(&["run", "--rm", "--name", "other", "busybox", "true"]);
    husk.ok(&["rm", "-f", "loud"]);
    drop(unread.stdout.take());
    unread.wait().unwrap();
}

#[test]
fn each_process_that_the_limit_kills_is_counted_and_the_first_process_lives_on() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "small", "--memory", "32m", "busybox", "sleep", "1000"]);
    for kills in 1..=3 {
        husk.run(&["exec", "small", "tail", "/dev/zero"]).exits(137);
        assert_eq!(stats(&husk, "small")["oom_kills"], kills);
    }
    assert_eq!(husk.container("small").status(), "running");
    husk.run(&["exec", "small", "sh", "-c", "exit 4"]).exits(4);
    husk.ok(&["rm", "-f", "small"]);
}

#[test]
fn exit_codes_tell_the_signal_and_orphans_are_collected() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "init", "busybox", "sleep", "1000"]);
    for (name, number) in [("HUP", 1), ("INT", 2), ("KILL", 9), ("SEGV", 11), ("TERM", 15), ("RTMIN", 34)] {
        let number_text = number.to_string();
        let signal = if name == "RTMIN" { number_text.as_str() } else { name };
        husk.run(&["exec", "init", "sh", "-c", &format!("kill -{signal} $$; sleep 100")]).exits(128 + number);
    }
    // Orphans of an exec belong to the container's own first process, which here collects nothing: they stay zombies
    // of it, as under runc. Those of a pod with one process namespace are the agent's.
    let orphan = "sh -c 'sleep 0.1 &' ; sleep 0.5";
    let manifest = husk.play_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: shared}\nspec:\n  shareProcessNamespace: true\n  containers:\n  \
         - {name: a, image: busybox, command: [sleep, '1000']}\n",
    );
    husk.sh("shared-a", orphan);
    wait_until("no zombie in the pod", 10, || !husk.ok(&["top", "shared-a", "state", "comm"]).contains('Z'));
    // As many as may be, with settings of its own.
    let own = "echo $(id -u):$(id -g) $PWD $A; ulimit -n";
    let flags = ["exec", "-u", "5:6", "-w", "/tmp", "-e", "A=b"];
    assert_eq!(husk.ok(&[&flags[..], &["init", "sh", "-c", own]].concat()), "5:6 /tmp b\n1048576");
    husk.down(&manifest);
    husk.ok(&["rm", "-f", "init"]);
}

/// Seconds since the epoch.
fn host_time() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}

/// Moves the clock of the machine that the tests run in.
fn move_host_time(seconds: i64) {
    let mut time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec += seconds;
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, time).unwrap();
}

#[test]
fn the_clock_is_right_at_start_and_after_a_pause_and_follows_the_hosts() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "clock", "busybox", "sleep", "100000"]);
    let right = || {
        let before = host_time();
        let shown: i64 = husk.sh("clock", "date +%s").parse().unwrap();
        (before - 1..=host_time() + 1).contains(&shown)
    };
    assert!(right());
    husk.ok(&["pause", "clock"]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    husk.ok(&["unpause", "clock"]);
    assert!(right());
    // As when the host has slept, or somebody sets its clock.
    for hours in [1, -1] {
        move_host_time(hours * 3600);
        wait_until("the guest's clock to follow", 10, right);
    }
    husk.ok(&["rm", "-f", "clock"]);
}

/// What a pod holds in its guest, and on the host.
#[derive(Debug)]
struct Held {
    guest: BTreeMap<&'static str, i64>,
    host_files: usize,
}

fn held(husk: &Husk, container: &str, pod: &str) -> Held {
    let script = "cut -f 1 /proc/sys/fs/file-nr; awk '$1 == \"memory\" {print $3}' /proc/cgroups; \
                  awk '/^MemAvailable/ {print $2}' /proc/meminfo";
    let text = husk.sh(container, script);
    let numbers: Vec<i64> = text.lines().map(|line| line.trim().parse().unwrap()).collect();
    let vmm = husk.inspect(pod)["VM"]["VmmPid"].as_u64().unwrap_or_else(|| panic!("no VMM: {:#}", husk.inspect(pod)));
    let host_files = std::fs::read_dir(format!("/proc/{vmm}/fd")).unwrap().count();
    Held { guest: ["files", "control groups", "memory"].into_iter().zip(numbers).collect(), host_files }
}

#[test]
fn a_container_that_crashes_again_and_again_leaves_nothing_in_the_guest() {
    const WARM_UP: u64 = 10;
    const CRASHES: u64 = 1000;
    let mut husk = Husk::new();
    husk.set("HUSK_BACKOFF_SCALE", "0");
    let manifest = husk.play_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: unlucky}\nspec:\n  containers:\n  \
         - {name: witness, image: busybox, command: [sleep, '100000']}\n  \
         - {name: crash, image: busybox, command: [sh, -c, 'echo crash; exit 3']}\n",
    );
    let crashes = || husk.container("unlucky-crash").restarts();
    wait_until("the first crashes", 60, || crashes() >= WARM_UP);
    let before = held(&husk, "unlucky-witness", "unlucky");
    let from = crashes();
    wait_until("many crashes", 600, || crashes() >= from + CRASHES);
    let after = held(&husk, "unlucky-witness", "unlucky");
    println!("{before:?} became {after:?}");
    let grown = |what: &str| after.guest[what] - before.guest[what];
    // One run more or less may be under way at either look.
    assert!(grown("files").abs() < 64, "{before:?} {after:?}");
    // The kernel counts one that is removed until its last cached page has been taken back.
    assert!(grown("control groups").unsigned_abs() < CRASHES / 10, "{before:?} {after:?}");
    assert!(-grown("memory") < 8 << 10, "{before:?} {after:?}");
    assert!(after.host_files.abs_diff(before.host_files) < 16, "{before:?} {after:?}");
    husk.down(&manifest);
}

/// Half a million short lines and 100 MB of long ones, each beginning with its number.
#[test]
fn a_hundred_megabytes_of_lines_arrive_whole_and_in_their_order() {
    const SHORT: usize = 500_000;
    const LONG: usize = 100_000;
    let husk = Husk::new();
    let script = format!(
        "BEGIN {{ for (i = 1; i <= {SHORT}; i++) print i; p = sprintf(\"%01000d\", 0); \
         for (; i <= {SHORT} + {LONG}; i++) print i, p }}"
    );
    husk.ok(&["run", "-d", "--name", "writer", "busybox", "awk", &script]);
    assert_eq!(husk.wait_for_exit("writer").exit_code(), 0);
    let state = husk.run(&["inspect", "writer"]).success().json()[0]["State"].clone();
    println!("written from {} to {}", state["StartedAt"], state["FinishedAt"]);
    let output = husk.start(&["logs", "writer"]).finish_within(120).success();
    let mut count = 0;
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        count += 1;
        let (number, padding) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
        assert_eq!(number, count.to_string().as_bytes(), "line {count}");
        assert_eq!(padding.len(), if count > SHORT { 1001 } else { 0 }, "line {count}");
    }
    assert_eq!(count, SHORT + LONG);
    husk.ok(&["rm", "writer"]);
}
