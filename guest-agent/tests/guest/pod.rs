//! Cases of the pod: identity, devices, volumes, the end.

use husk_agent_api::v1::{
    CreateContainerRequest, CreateVolumeRequest, HelloRequest, ListProcessesRequest, MountScratchRequest, PidMode,
    PlugDeviceRequest, RemoveVolumeRequest, ResumeRequest, ScratchDirectory, ShutdownRequest, Tmpfs,
    UnplugDeviceRequest, Version, create_volume_request::Source,
};
use tonic::Code;

use super::case;
use crate::client::{Client, SLOTS, container, read_all, refused, shell};

pub(crate) async fn cases(client: &Client, shared: bool) {
    case("another major version is refused", hello(client.clone())).await;
    case("nothing happens before Resume, and Resume happens once", resume(client.clone())).await;
    case("devices are plugged at run time", plug(client.clone())).await;
    if shared {
        case("containers share one pid namespace with a reaper", shared_pids(client.clone())).await;
        return;
    }
    case("an empty slot is a clear error", empty_slot(client.clone())).await;
    case("plugging and unplugging a hundred times leaks nothing", many_plugs(client.clone())).await;
    case("volumes are made and removed", volumes(client.clone())).await;
}

async fn hello(client: Client) {
    let mut agent = client.agent;
    let wrong = HelloRequest { version: Some(Version { major: 9, minor: 0 }) };
    refused(agent.hello(wrong).await, Code::FailedPrecondition, "version 9.0");
    let hello = agent.hello(HelloRequest { version: Some(husk_agent_api::VERSION) }).await.unwrap().into_inner();
    assert!(hello.kernel_release.starts_with("6."), "{hello:?}");
    assert!(hello.memory_bytes > 100 << 20 && hello.listening_at_us >= hello.main_at_us, "{hello:?}");
}

async fn resume(client: Client) {
    let mut agent = client.agent;
    refused(agent.plug_device(PlugDeviceRequest { slot: 0 }).await, Code::FailedPrecondition, "Resume");
    let request = ResumeRequest {
        entropy: vec![42; 64],
        wall_clock_ns: 1_800_000_000_000_000_000,
        hostname: "pod-1".to_owned(),
        hosts: b"127.0.0.1 localhost\n".to_vec(),
        resolv_conf: b"nameserver 10.0.0.1\n".to_vec(),
        sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into(),
        ..ResumeRequest::default()
    };
    let bad = ResumeRequest { sysctls: [("net/../../etc/x".to_owned(), "1".to_owned())].into(), ..request.clone() };
    refused(agent.resume(bad).await, Code::InvalidArgument, "sysctls");
    agent.resume(request.clone()).await.unwrap();
    refused(agent.resume(request).await, Code::FailedPrecondition, "already");
    assert!(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() >= 1_800_000_000);
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap(), "0\n");
}

async fn plug(client: Client) {
    let mut agent = client.agent;
    for slot in SLOTS.get().unwrap() {
        let name = agent.plug_device(PlugDeviceRequest { slot: *slot }).await.unwrap().into_inner().name;
        assert!(name.starts_with("vd"), "{name}");
        // Again is only an answer.
        assert_eq!(agent.plug_device(PlugDeviceRequest { slot: *slot }).await.unwrap().into_inner().name, name);
    }
    let slot = SLOTS.get().unwrap()[2];
    agent.mount_scratch(MountScratchRequest { slot, fs_type: "ext4".to_owned() }).await.unwrap();
    refused(agent.unplug_device(UnplugDeviceRequest { slot }).await, Code::FailedPrecondition, "mounted as scratch");
}

async fn empty_slot(client: Client) {
    let mut agent = client.agent;
    refused(agent.plug_device(PlugDeviceRequest { slot: 1000 }).await, Code::InvalidArgument, "no slot 1000");
}

async fn many_plugs(client: Client) {
    let mut agent = client.agent;
    let slot = SLOTS.get().unwrap()[1];
    for _ in 0..100 {
        agent.unplug_device(UnplugDeviceRequest { slot }).await.unwrap();
        agent.plug_device(PlugDeviceRequest { slot }).await.unwrap();
    }
}

async fn volumes(client: Client) {
    let mut agent = client.agent;
    let scratch = Some(Source::Scratch(ScratchDirectory::default()));
    let create = |name: &str, source| CreateVolumeRequest { name: name.to_owned(), source, gid: None };
    agent.create_volume(create("data", scratch.clone())).await.unwrap();
    refused(agent.create_volume(create("data", scratch.clone())).await, Code::AlreadyExists, "data");
    refused(agent.create_volume(create("../x", scratch)).await, Code::InvalidArgument, "name");
    agent.create_volume(create("mem", Some(Source::Tmpfs(Tmpfs { size_bytes: 1 << 20 })))).await.unwrap();
    for name in ["data", "mem", "mem", "never"] {
        agent.remove_volume(RemoveVolumeRequest { name: name.to_owned() }).await.unwrap();
    }
}

async fn shared_pids(client: Client) {
    let container = |id: &str, process| {
        let pid_mode = PidMode::Pod.into();
        CreateContainerRequest { pid_mode, ..container(id, process) }
    };
    let first = container("first", shell("sleep 1000"));
    client.create(first).await.unwrap();
    client.start("first").await.unwrap();
    // A grandchild whose parent ends becomes the reaper's, and is collected by it.
    let script = "(sleep 0.1 & ) ; sleep 1; ps -o pid,ppid,stat,args; readlink /proc/1/ns/pid || true";
    let outcome = client.run(container("second", shell(script))).await;
    assert!(outcome.stdout.contains("sleep 1000"), "{outcome:?}");
    assert!(!outcome.stdout.contains("Z"), "{outcome:?}");
    assert!(outcome.stdout.contains("husk-reaper") || outcome.stdout.contains("1     0"), "{outcome:?}");
    // PID 1 is out of reach.
    let attack = "ls /proc/1/root/ 2>&1; kill -9 1; echo $?; echo done";
    let outcome = client.run(container("third", shell(attack))).await;
    assert!(outcome.stdout.contains("done") && !outcome.stdout.contains("proc\n"), "{outcome:?}");
    // One that wants its own still gets it.
    let mut own = container("own", shell("echo $$"));
    own.pid_mode = PidMode::Container.into();
    assert_eq!(client.run(own).await.stdout, "1\n");
    let mark = client.mark().await;
    client.remove("first").await;
    assert_eq!(client.wait("first", "", mark).await.exit_code, 137);
    refused(
        client
            .agent
            .clone()
            .list_processes(ListProcessesRequest { container_id: "first".to_owned(), ..Default::default() })
            .await,
        Code::NotFound,
        "first",
    );
    let process = shell("true");
    let unread = process.stdio.unwrap().stdout;
    client.run(container("fourth", process)).await;
    assert!(crate::client::attach(unread).await.is_err());
    let _ = read_all(0).await;
}

pub(crate) async fn shut_down(client: &Client) {
    client.agent.clone().shutdown(ShutdownRequest {}).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    println!("test guest the VM ends after Shutdown ... FAILED: it is still running");
}
