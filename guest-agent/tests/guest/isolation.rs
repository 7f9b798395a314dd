//! Cases of what a container can see and do.

use husk_agent_api::v1::{
    Capabilities, CreateVolumeRequest, DeviceNode, Mount, PodFile, Process, RemoveVolumeRequest, Rlimit, RootFs,
    ScratchDirectory, SharedMemory, Tmpfs, User, VolumeMount, create_volume_request::Source, mount::Kind,
};
use tonic::Code;

use super::case;
use crate::client::{Client, SLOTS, container, refused, shell};

pub(crate) async fn cases(client: &Client) {
    case("net, ipc and uts are shared; mnt, pid and cgroup are not", namespaces(client.clone())).await;
    case("the root holds the image and nothing of the agent", root(client.clone())).await;
    case("a read-only root refuses writes and still has its mount points", read_only(client.clone())).await;
    case("masked and read-only paths are protected", protected_paths(client.clone())).await;
    case("default devices work, those of an image do not", devices(client.clone())).await;
    case("user, groups, capabilities, limits and umask are as asked for", identity(client.clone())).await;
    case("volumes, pod files and shared memory are shared", sharing(client.clone())).await;
    case("links of an image lead nowhere else", links(client.clone())).await;
    case("the agent's own file cannot be run or written", own_file(client.clone())).await;
    case("no descriptor of the agent is inherited", descriptors(client.clone())).await;
}

async fn namespaces(client: Client) {
    let script = "for n in net ipc uts mnt pid cgroup; do readlink /proc/self/ns/$n; done";
    let mut all = Vec::new();
    for id in ["ns1", "ns2"] {
        client.create(container(id, shell("sleep 1000"))).await.unwrap();
        client.start(id).await.unwrap();
    }
    for id in ["ns1", "ns2"] {
        all.push(client.run_exec(id, "x", shell(script)).await.stdout);
        client.remove(id).await;
    }
    let (first, second): (Vec<_>, Vec<_>) = (all[0].lines().collect(), all[1].lines().collect());
    assert_eq!(first[..3], second[..3]);
    for (a, b) in first[3..].iter().zip(&second[3..]) {
        assert_ne!(a, b);
    }
}

async fn root(client: Client) {
    let script = "ls /; cat /proc/self/mountinfo; cat /proc/self/cgroup; echo $$; cat /proc/self/oom_score_adj";
    let outcome = client.run(container("root", shell(script))).await;
    for secret in ["husk", "init"] {
        let lines: Vec<_> = outcome.stdout.lines().filter(|line| line.contains(secret)).collect();
        let options = |line: &&&str| !line.contains("lowerdir");
        assert!(lines.iter().filter(options).count() == 0, "{lines:?}");
    }
    assert!(outcome.stdout.ends_with("0::/\n1\n0\n"), "{outcome:?}");
}

async fn read_only(client: Client) {
    let mut request = container("ro", shell("echo x > /x; echo y > /data/y && cat /data/y; touch /bin/z"));
    request.root_fs = Some(RootFs { lower_slots: vec![SLOTS.get().unwrap()[0]], read_only: true });
    request.mounts.push(crate::client::kernel("tmpfs", "/data", 0, "mode=1777"));
    let outcome = client.run(request).await;
    assert_eq!(outcome.stdout, "y\n");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{outcome:?}");
}

async fn protected_paths(client: Client) {
    let script = "wc -c < /proc/timer_list; ls /proc/acpi /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/sysrq; \
                  echo x > /proc/sysrq-trigger; touch /sys/firmware/x; echo done";
    let mut request = container("masks", shell(script));
    request.masked_paths = ["/proc/timer_list", "/sys/firmware", "/proc/kcore", "/nothing"].map(str::to_owned).to_vec();
    request.readonly_paths = ["/proc/sys", "/proc/sysrq-trigger", "/proc/bus"].map(str::to_owned).to_vec();
    let outcome = client.run(request).await;
    assert!(outcome.stdout.starts_with("0\n") && outcome.stdout.ends_with("done\n"), "{outcome:?}");
    assert!(outcome.stderr.matches("Read-only file system").count() >= 3, "{outcome:?}");
}

async fn devices(client: Client) {
    let script = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c; \
                  stat -c %a /dev/null; readlink /dev/ptmx; readlink /dev/fd; cat /dev/extra 2>&1 | head -c 0; \
                  stat -c '%t %T %a %u' /dev/extra; mknod /dev/disk b 254 0 && head -c 1 /dev/disk; \
                  head -c 1 /evil/kmsg";
    let mut request = container("dev", shell(script));
    request.devices.push(DeviceNode {
        path: "/dev/extra".to_owned(),
        r#type: "c".to_owned(),
        major: 1,
        minor: 7,
        mode: 0o640,
        uid: 1000,
        gid: 1000,
        slot: None,
    });
    let outcome = client.run(request).await;
    assert_eq!(outcome.stdout, "3\n8\n666\npts/ptmx\n/proc/self/fd\n1 7 640 1000\n", "{outcome:?}");
    assert!(outcome.stderr.contains("/dev/disk: Operation not permitted"), "{outcome:?}");
    assert!(outcome.stderr.contains("/evil/kmsg: Operation not permitted"), "{outcome:?}");
}

async fn identity(client: Client) {
    let script = "id -u; id -g; id -G; umask; ulimit -n; pwd; grep -E 'Cap|NoNewPrivs' /proc/self/status";
    let net_bind = 1 << 10;
    let mut process = shell(script);
    process.user = Some(User { uid: 1000, gid: 1001, additional_gids: vec![7, 8], umask: Some(0o27) });
    process.capabilities = Some(Capabilities {
        bounding: net_bind | 1,
        effective: net_bind,
        inheritable: net_bind,
        permitted: net_bind,
        ambient: net_bind,
    });
    process.rlimits = vec![Rlimit { resource: 7, soft: 100, hard: 200 }];
    process.no_new_privileges = true;
    process.cwd = "/new/work".to_owned();
    let outcome = client.run(container("who", process)).await;
    let expected = "1000\n1001\n1001 7 8\n0027\n100\n/new/work\nCapInh:\t0000000000000400\nCapPrm:\t0000000000000400\n\
                    CapEff:\t0000000000000400\nCapBnd:\t0000000000000401\nCapAmb:\t0000000000000400\nNoNewPrivs:\t1\n";
    assert_eq!(outcome.stdout, expected, "{outcome:?}");
    let outcome =
        client.run(container("who", shell("grep CapEff /proc/self/status; chroot / true && echo root"))).await;
    assert_eq!(outcome.stdout, "CapEff:\t00000000a80425fb\nroot\n");
    let process = Process { capabilities: None, ..shell("grep CapEff /proc/self/status") };
    assert_eq!(client.run(container("who", process)).await.stdout, "CapEff:\t0000000000000000\n");
}

fn mount(destination: &str, flags: u64, kind: Kind) -> Mount {
    Mount { destination: destination.to_owned(), flags, kind: Some(kind), ..Mount::default() }
}

fn volume(name: &str, sub_path: &str) -> Kind {
    Kind::Volume(VolumeMount { name: name.to_owned(), sub_path: sub_path.to_owned() })
}

async fn sharing(client: Client) {
    let mut agent = client.agent.clone();
    let scratch = Some(Source::Scratch(ScratchDirectory::default()));
    agent.create_volume(CreateVolumeRequest { name: "disk".to_owned(), source: scratch, gid: None }).await.unwrap();
    let tmpfs = Some(Source::Tmpfs(Tmpfs { size_bytes: 1 << 20 }));
    agent
        .create_volume(CreateVolumeRequest { name: "mem".to_owned(), source: tmpfs.clone(), gid: None })
        .await
        .unwrap();
    let mounts = |flags| {
        vec![
            mount("/disk", flags, volume("disk", "")),
            mount("/sub", flags, volume("disk", "a/b")),
            mount("/mem", flags, volume("mem", "")),
            mount("/etc/resolv.conf", 0, Kind::PodFile(PodFile { name: "resolv.conf".to_owned() })),
            mount("/etc/hosts", 1, Kind::PodFile(PodFile { name: "hosts".to_owned() })),
            mount("/dev/shm", 0, Kind::SharedMemory(SharedMemory {})),
        ]
    };
    let mut request = container(
        "writer",
        shell(
            "echo one > /disk/f; echo two > /sub/g; echo three > /mem/h; echo four > /dev/shm/s; stat -c %a /disk /disk/a/b; cat /disk/a/b/g; dd if=/dev/zero of=/mem/big bs=1M count=2",
        ),
    );
    request.mounts.extend(mounts(0));
    request.process.as_mut().unwrap().user = Some(User { uid: 1000, gid: 1000, ..User::default() });
    let outcome = client.run(request).await;
    // The sub-path has the volume's mode, so the user may write there too.
    assert_eq!(outcome.stdout, "777\n777\ntwo\n", "{outcome:?}");
    assert!(outcome.stderr.contains("No space left"), "{outcome:?}");
    let mut request = container(
        "reader",
        shell("cat /disk/f /mem/h /dev/shm/s /etc/resolv.conf /etc/hosts; touch /disk/x /etc/hosts"),
    );
    request.mounts.extend(mounts(1));
    let in_use = agent.remove_volume(RemoveVolumeRequest { name: "mem".to_owned() });
    in_use.await.unwrap();
    refused(client.create(request.clone()).await, Code::NotFound, "volume mem");
    agent.create_volume(CreateVolumeRequest { name: "mem".to_owned(), source: tmpfs, gid: None }).await.unwrap();
    request.process = Some(shell("cat /disk/f /dev/shm/s /etc/resolv.conf /etc/hosts; touch /disk/x /etc/hosts"));
    let outcome = client.run(request).await;
    assert_eq!(outcome.stdout, "one\nfour\nnameserver 10.0.0.1\n127.0.0.1 localhost\n");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{outcome:?}");
    for name in ["disk", "mem"] {
        agent.remove_volume(RemoveVolumeRequest { name: name.to_owned() }).await.unwrap();
    }
}

async fn links(client: Client) {
    let mut request = container("links", shell("ls /evil/up/landed; cat /landed/x 2>&1; ls -d /landed"));
    request.mounts.push(crate::client::kernel("tmpfs", "/evil/up/landed", 0, ""));
    let outcome = client.run(request).await;
    assert!(outcome.stdout.contains("/landed\n"), "{outcome:?}");
    assert!(!std::path::Path::new("/landed").exists());
    let mut request = container("links", shell("true"));
    request.mounts.push(crate::client::kernel("proc", "/evil/up/proc", 0, ""));
    refused(client.create(request).await, Code::Internal, "symbolic links");
    let mut process = shell("true");
    process.cwd = "/proc/self/fd/7".to_owned();
    assert!(client.create(container("links", process)).await.is_err());
}

async fn own_file(client: Client) {
    for program in ["/proc/self/exe", "/evil/agent", "/evil/script"] {
        let process = Process { args: vec![program.to_owned()], ..shell("") };
        client.create(container("self", process)).await.unwrap();
        refused(client.start("self").await, Code::FailedPrecondition, "permission denied");
        client.remove("self").await;
    }
}

async fn descriptors(client: Client) {
    client.create(container("fds", shell("ls -l /proc/self/fd; sleep 1000"))).await.unwrap();
    client.start("fds").await.unwrap();
    let outcome = client.run_exec("fds", "x", shell("ls /proc/self/fd")).await;
    // 3 is the directory being listed.
    assert_eq!(outcome.stdout, "0\n1\n2\n3\n");
    let outcome = client.run_exec("fds", "x", shell("ls /proc/1/fd")).await;
    assert_eq!(outcome.stdout, "0\n1\n2\n");
    client.remove("fds").await;
}
