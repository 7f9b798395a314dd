//! Cases of containers' lives: start, end, exec, signals, limits.

use std::time::Duration;

use husk_agent_api::v1::{
    ContainerStatsRequest, IoMax, ListProcessesRequest, PidMode, Process, Resources, RootFs, SignalProcessRequest,
    UnplugDeviceRequest, UpdateContainerRequest, event,
};
use tonic::Code;

use super::case;
use crate::client::{Client, SLOTS, container, refused, shell, token};

pub(crate) async fn cases(client: &Client) {
    case("exit code and output are the program's", exit(client.clone())).await;
    case("a program that does not exist is named", missing_program(client.clone())).await;
    case("a container that cannot be made leaves its id free", failed_creation(client.clone())).await;
    case("an init waits for Start and may be killed before", killed_before_start(client.clone())).await;
    case("further processes run in the container", exec(client.clone())).await;
    case("signals reach one process or all", signals(client.clone())).await;
    case("a container without Start or with a lost end can be removed twice", removal(client.clone())).await;
    case("every OOM kill is told, and the end says so", oom(client.clone())).await;
    case("pids are limited, limits are updated, counters are read", limits(client.clone())).await;
    case("a container's disk, files and waiting are counted", usage(client.clone())).await;
    case("every control file of a container can be set, and nothing else", all_limits(client.clone())).await;
    case("orphans are collected", orphans(client.clone())).await;
    case("a container joins the pid namespace of another or of the guest", pid_modes(client.clone())).await;
    case("images are overlaid and their slots are free afterwards", images(client.clone())).await;
    case("many short processes lose no exit", many(client.clone())).await;
}

fn limited(memory_max: i64) -> Option<Resources> {
    Some(Resources { memory_max: Some(memory_max), memory_swap_max: Some(0), ..Resources::default() })
}

async fn exit(client: Client) {
    let outcome = client.run(container("exit", shell("echo out; echo err >&2; exit 7"))).await;
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "err\n"));
    assert!(!outcome.oom_killed);
    let outcome = client.run(container("exit", shell("kill -9 $$; kill -TERM $$; exit 3"))).await;
    // Its own kernel protects PID 1 from itself.
    assert_eq!(outcome.code, 3);
    let mut plain = container("exit", Process { args: vec!["true".to_owned()], env: vec![], ..shell("") });
    plain.process.as_mut().unwrap().cwd = String::new();
    assert_eq!(client.run(plain).await.code, 0);
}

async fn missing_program(client: Client) {
    let process = Process { args: vec!["nosuch".to_owned()], ..shell("") };
    client.create(container("nosuch", process.clone())).await.unwrap();
    let mark = client.mark().await;
    refused(client.start("nosuch").await, Code::FailedPrecondition, "exec \"nosuch\": not found");
    assert_eq!(client.wait("nosuch", "", mark).await.exit_code, 127);
    client.remove("nosuch").await;
    client.create(container("host", shell("sleep 1000"))).await.unwrap();
    refused(client.exec("host", "x", shell("true")).await, Code::FailedPrecondition, "not running");
    client.start("host").await.unwrap();
    refused(client.exec("host", "x", process).await, Code::FailedPrecondition, "exec \"nosuch\": not found");
    // The id is free again.
    assert_eq!(client.run_exec("host", "x", shell("exit 4")).await.code, 4);
    client.remove("host").await;
}

async fn failed_creation(client: Client) {
    let mut request = container("fails", shell("true"));
    request.mounts.push(crate::client::kernel("tmpfs", "/bin/busybox/x", 0, ""));
    refused(client.create(request).await, Code::Internal, "/bin/busybox/x");
    let mut request = container("fails", shell("true"));
    request.mounts.push(crate::client::kernel("tmpfs", "/x", 0, "nosuchoption=1"));
    refused(client.create(request).await, Code::Internal, "nosuchoption");
    let mut request = container("fails", shell("true"));
    request.root_fs = Some(RootFs { lower_slots: vec![31], read_only: false });
    assert!(client.create(request).await.is_err());
    assert_eq!(client.run(container("fails", shell("true"))).await.code, 0);
}

async fn killed_before_start(client: Client) {
    let mark = client.mark().await;
    client.create(container("early", shell("true"))).await.unwrap();
    refused(client.create(container("early", shell("true"))).await, Code::AlreadyExists, "early");
    signal(&client, "early", "", 9, false).await.unwrap();
    assert_eq!(client.wait("early", "", mark).await.exit_code, 137);
    refused(client.start("early").await, Code::FailedPrecondition, "has ended");
    client.remove("early").await;
}

async fn exec(client: Client) {
    client.create(container("exec", shell("hostname > /tmp/h; sleep 1000"))).await.unwrap();
    client.start("exec").await.unwrap();
    let script =
        "until [ -s /tmp/h ]; do sleep 0.1; done; cat /tmp/h; readlink /proc/self/ns/pid; readlink /proc/1/ns/pid";
    let outcome = client.run_exec("exec", "e1", shell(script)).await;
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!((lines[0], lines[1] == lines[2]), ("pod-1", true), "{outcome:?}");
    let outcome = client.run_exec("exec", "e2", shell("for n in mnt cgroup net ipc uts; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done; cat /proc/self/cgroup")).await;
    assert_eq!(outcome.stdout, "0::/\n", "{outcome:?}");
    refused(client.exec("nothing", "e", shell("true")).await, Code::NotFound, "nothing");
    let mut process = shell("true");
    process.cwd = "/nowhere".to_owned();
    refused(client.exec("exec", "e", process).await, Code::FailedPrecondition, "working directory /nowhere: not found");
    client.remove("exec").await;
}

async fn signal(client: &Client, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<(), tonic::Status> {
    let (container_id, exec_id) = (id.to_owned(), exec_id.to_owned());
    let request = SignalProcessRequest { container_id, exec_id, signal, all };
    client.agent.clone().signal_process(request).await.map(drop)
}

async fn signals(client: Client) {
    let mark = client.mark().await;
    let trap = shell("trap 'exit 5' TERM; while true; do sleep 0.1; done");
    client.create(container("signals", trap)).await.unwrap();
    client.start("signals").await.unwrap();
    client.exec("signals", "s1", shell("sleep 1000")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    signal(&client, "signals", "s1", 15, false).await.unwrap();
    assert_eq!(client.wait("signals", "s1", mark).await.exit_code, 143);
    refused(signal(&client, "signals", "s1", 15, false).await, Code::NotFound, "s1");
    refused(signal(&client, "signals", "", 65, false).await, Code::InvalidArgument, "signal");
    client.exec("signals", "s2", shell("sleep 1000")).await.unwrap();
    signal(&client, "signals", "", 15, true).await.unwrap();
    assert_eq!(client.wait("signals", "", mark).await.exit_code, 5);
    let code = client.wait("signals", "s2", mark).await.exit_code;
    assert!(code == 143 || code == 137, "{code}");
    refused(signal(&client, "signals", "", 9, false).await, Code::NotFound, "ended");
    client.remove("signals").await;
}

async fn removal(client: Client) {
    client.create(container("gone", shell("true"))).await.unwrap();
    client.remove("gone").await;
    client.remove("gone").await;
    let mark = client.mark().await;
    client.create(container("gone", shell("sleep 1000 & sleep 1000"))).await.unwrap();
    client.start("gone").await.unwrap();
    let (first, second) = (client.clone(), client.clone());
    tokio::join!(first.remove("gone"), second.remove("gone"));
    assert_eq!(client.wait("gone", "", mark).await.exit_code, 137);
}

async fn oom(client: Client) {
    let mark = client.mark().await;
    let mut request = container("oom", shell("for i in 1 2 3; do tail /dev/zero; done; exit 0"));
    request.resources = limited(24 << 20);
    let outcome = client.run(request).await;
    assert_eq!((outcome.code, outcome.oom_killed), (0, true), "{outcome:?}");
    let exited = |event: &event::Kind| matches!(event, event::Kind::Exited(_));
    let events = client.events(mark, |event| event.kind.as_ref().is_some_and(exited)).await;
    let kills: Vec<u64> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Some(event::Kind::Oom(oom)) => Some(oom.oom_kill),
            _ => None,
        })
        .collect();
    assert_eq!(kills, [1, 2, 3]);
    let mut request = container("oom", Process { args: vec!["tail".to_owned(), "/dev/zero".to_owned()], ..shell("") });
    request.resources = limited(24 << 20);
    let outcome = client.run(request).await;
    assert_eq!((outcome.code, outcome.oom_killed), (137, true), "{outcome:?}");
}

async fn limits(client: Client) {
    let mut request = container("limits", shell("sleep 1000"));
    request.resources =
        Some(Resources { pids_max: Some(20), cpu_quota_us: Some(50_000), ..limited(64 << 20).unwrap() });
    client.create(request).await.unwrap();
    client.start("limits").await.unwrap();
    let outcome = client
        .run_exec("limits", "fork", shell("for i in $(seq 40); do sleep 1000 >/dev/null 2>&1 & done; true"))
        .await;
    assert!(outcome.stderr.contains("fork"), "{outcome:?}");
    let mut agent = client.agent.clone();
    let stats_request = ContainerStatsRequest { container_id: "limits".to_owned(), ..Default::default() };
    let stats = agent.container_stats(stats_request.clone()).await.unwrap().into_inner();
    assert_eq!((stats.memory_limit, stats.pids_limit), (64 << 20, 20), "{stats:?}");
    assert!(stats.memory_usage > 0 && stats.cpu_usage_us > 0 && stats.pids_current > 1, "{stats:?}");
    let resources = Some(Resources { memory_max: Some(80 << 20), pids_max: Some(-1), ..Resources::default() });
    agent.update_container(UpdateContainerRequest { container_id: "limits".to_owned(), resources }).await.unwrap();
    let stats = agent.container_stats(stats_request).await.unwrap().into_inner();
    assert_eq!((stats.memory_limit, stats.pids_limit), (80 << 20, u64::MAX));
    let pod = agent.container_stats(ContainerStatsRequest::default()).await.unwrap().into_inner();
    assert!(pod.memory_usage >= stats.memory_usage / 2, "{pod:?}");
    let list = ListProcessesRequest { container_id: "limits".to_owned(), ..Default::default() };
    assert!(agent.list_processes(list).await.unwrap().into_inner().pids.len() > 1);
    client.remove("limits").await;
}

async fn usage(client: Client) {
    client.create(container("usage", shell("sleep 1000"))).await.unwrap();
    client.start("usage").await.unwrap();
    let mut agent = client.agent.clone();
    let request = ContainerStatsRequest { container_id: "usage".to_owned() };
    let before = agent.container_stats(request.clone()).await.unwrap().into_inner();
    // Copied up from the image, written, and moved between directories, which a project's border would refuse.
    let script = "chmod 700 /bin/busybox && mkdir /one /other && dd if=/dev/zero of=/one/file bs=1M count=3 2>/dev/null \
                  && mv /one/file /other/file && mv /other /one/other && sync && stat -c %s /one/other/file";
    let outcome = client.run_exec("usage", "write", shell(script)).await;
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "3145728"), "{outcome:?}");
    let after = agent.container_stats(request).await.unwrap().into_inner();
    let (old, new) = (before.layer.unwrap(), after.layer.clone().unwrap());
    assert!(new.used_bytes - old.used_bytes >= 3 << 20 && new.used_bytes < 16 << 20, "{old:?} {new:?}");
    assert!(new.inodes_used >= old.inodes_used + 4, "{old:?} {new:?}");
    assert!(new.device.starts_with("vd") && new.disk_bytes > 32 << 20, "{new:?}");
    assert!(new.disk_inodes > new.disk_inodes_free && new.disk_inodes_free > 0, "{new:?}");
    assert!(after.processes >= 1 && after.descriptors > Some(2) && after.sockets.is_some(), "{after:?}");
    assert!(after.memory_peak >= after.memory_usage / 2 && after.memory_peak > 0, "{after:?}");
    for pressure in [after.cpu_pressure, after.memory_pressure, after.io_pressure] {
        assert!(pressure.is_some_and(|pressure| pressure.some.is_some()), "{pressure:?}");
    }
    assert!(after.io.iter().all(|io| !io.device.is_empty()), "{:?}", after.io);
    client.remove("usage").await;
}

async fn all_limits(client: Client) {
    let files = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut request = container("all-limits", shell("sleep 1000"));
    request.resources = Some(Resources {
        memory_high: Some(60 << 20),
        memory_low: Some(8 << 20),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        cpu_burst_us: Some(20_000),
        cpu_weight: Some(59),
        cpuset_cpus: Some("0".to_owned()),
        cpuset_mems: Some("0".to_owned()),
        files: files(&[
            ("memory.min", "4194304"),
            ("memory.oom.group", "1"),
            ("hugetlb.2MB.max", "4194304"),
            ("hugetlb.16MB.max", "0"),
            ("io.weight", "default 50"),
        ]),
        ..limited(64 << 20).unwrap()
    });
    client.create(request).await.unwrap();
    client.start("all-limits").await.unwrap();
    let script = "cd /sys/fs/cgroup; cat memory.high memory.low cpu.max cpu.max.burst cpu.weight cpuset.cpus cpuset.mems \
        memory.min memory.oom.group hugetlb.2MB.max io.weight";
    let outcome = client.run_exec("all-limits", "look", shell(script)).await;
    let expected =
        ["62914560", "8388608", "50000 100000", "20000", "59", "0", "0", "4194304", "1", "4194304", "default 50"];
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected, "{outcome:?}");

    let update = |resources: Resources| {
        let mut agent = client.agent.clone();
        let request = UpdateContainerRequest { container_id: "all-limits".to_owned(), resources: Some(resources) };
        async move { agent.update_container(request).await }
    };
    update(Resources { cpu_idle: Some(true), cpu_quota_us: Some(-1), cpu_burst_us: Some(0), ..Resources::default() })
        .await
        .unwrap();
    let [_, _, scratch] = *SLOTS.get().unwrap();
    let rates =
        IoMax { slot: scratch, write_bytes: Some(1 << 20), read_operations: Some(u64::MAX), ..IoMax::default() };
    update(Resources { io_max: vec![rates], ..Resources::default() }).await.unwrap();
    let script = "cd /sys/fs/cgroup; cat cpu.idle cpu.max; grep -o 'rbps.*' io.max";
    let outcome = client.run_exec("all-limits", "look", shell(script)).await;
    assert_eq!(outcome.stdout, "1\nmax 100000\nrbps=max wbps=1048576 riops=max wiops=max\n", "{outcome:?}");

    for (bad, text) in [
        (Resources { cpuset_cpus: Some("0-63".to_owned()), ..Resources::default() }, "cpuset.cpus"),
        (Resources { cpuset_mems: Some("1".to_owned()), ..Resources::default() }, "cpuset.mems"),
        (Resources { files: files(&[("cgroup.kill", "1")]), ..Resources::default() }, "cgroup.kill"),
        (Resources { files: files(&[("memory.nosuch", "1")]), ..Resources::default() }, "memory.nosuch"),
        (Resources { files: files(&[("memory.min", "much")]), ..Resources::default() }, "memory.min"),
        (Resources { files: files(&[("hugetlb.16MB.max", "1")]), ..Resources::default() }, "hugetlb.16MB.max"),
    ] {
        refused(update(bad).await, Code::InvalidArgument, text);
    }
    let tight = Resources { memory_max: Some(4096), check_memory: true, ..Resources::default() };
    refused(update(tight).await, Code::FailedPrecondition, "in use");
    client.remove("all-limits").await;
}

async fn orphans(client: Client) {
    let outcome = client.run(container("orphans", shell("(sleep 0.2 &) ; (sleep 1000 &) ; sleep 0.5; exit 2"))).await;
    assert_eq!(outcome.code, 2);
}

async fn pid_modes(client: Client) {
    client.create(container("target", shell("sleep 1234"))).await.unwrap();
    client.start("target").await.unwrap();
    let mut joined = container("joined", shell("ps -o args"));
    joined.pid_mode = PidMode::Target.into();
    joined.pid_target = "target".to_owned();
    assert!(client.run(joined).await.stdout.contains("sleep 1234"));
    let mut node = container("node", shell("ps -o args | head -3"));
    node.pid_mode = PidMode::Node.into();
    assert!(client.run(node).await.stdout.contains("/init"));
    client.remove("target").await;
    let mut late = container("late", shell("true"));
    late.pid_mode = PidMode::Target.into();
    late.pid_target = "target".to_owned();
    refused(client.create(late).await, Code::NotFound, "target");
}

async fn images(client: Client) {
    let [base, upper, _] = *SLOTS.get().unwrap();
    let mut request = container("layers", shell("cat /etc/layer /etc/passwd; echo new > /etc/layer; cat /etc/layer"));
    request.root_fs = Some(RootFs { lower_slots: vec![upper, base], read_only: false });
    let id = request.container_id.clone();
    let (stdout, mark) = (request.process.as_ref().unwrap().stdio.unwrap().stdout, client.mark().await);
    client.create(request).await.unwrap();
    let unplug = UnplugDeviceRequest { slot: upper };
    refused(client.agent.clone().unplug_device(unplug).await, Code::FailedPrecondition, "image of 1");
    client.start(&id).await.unwrap();
    let output = crate::client::read_all(stdout).await;
    assert!(output.starts_with("upper\nroot:x") && output.ends_with("new\n"), "{output}");
    client.wait(&id, "", mark).await;
    client.remove(&id).await;
    client.agent.clone().unplug_device(unplug).await.unwrap();
}

async fn many(client: Client) {
    client.create(container("many", shell("sleep 1000"))).await.unwrap();
    client.start("many").await.unwrap();
    let mark = client.mark().await;
    let mut waits = Vec::new();
    for n in 0..30_u32 {
        let process = Process { stdio: None, ..shell(&format!("exit {n}")) };
        let exec_id = format!("n{n}");
        client.exec("many", &exec_id, process).await.unwrap();
        waits.push((n, exec_id));
    }
    for (n, exec_id) in waits {
        assert_eq!(client.wait("many", &exec_id, mark).await.exit_code, n);
    }
    client.remove("many").await;
    let _ = token();
}
