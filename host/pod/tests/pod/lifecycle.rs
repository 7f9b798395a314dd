//! Pods that go well, and their ends.

use std::time::Duration;

use husk_pod::{ContainerState, CreateError, ErrorKind, PodEvent, StdioWanted, VmEndReason, teardown};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{ALL_STDIO, Fixture, LONG, NO_STDIO, container_spec, container_with_mount, process, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_starts_runs_containers_and_stops() {
    let fixture = Fixture::new("");
    let pod = fixture.running().await;
    let info = pod.info();
    assert_eq!(info.size.memory_mib, 640);
    assert_eq!(info.kernel_release, "6.12.0\\u{1b}[31m");
    assert!(info.timeline.scratch_us >= info.timeline.hello_us);
    assert_eq!(info.slots.len(), 2, "scratch and image");
    assert_eq!(info.containers.first().unwrap().state, ContainerState::Running);
    pod.stop(LONG).await;
    pod.stop(LONG).await;
    assert!(pod.has_ended() && pod.ended().await.is_orderly());
    fixture.assert_nothing_is_left(false).await;
    let config = fixture.config();
    assert!(config.state_dir.join("console.log").exists(), "the console outlives the VM");
    for _ in 0..2 {
        teardown("ns", "p1", &config.state_dir, &config.data_dir).unwrap();
    }
    fixture.assert_nothing_is_left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_streams_are_connected_and_half_close() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    let (pid, streams) = pod.create_container("web", &container_spec(), &fixture.rootfs(), ALL_STDIO).await.unwrap();
    assert_eq!(pid, 7);
    let mut stdin = streams.stdin.unwrap();
    assert!(streams.stdout.is_some() && streams.stderr.is_some());
    stdin.write_all(b"hello").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut echo = String::new();
    stdin.read_to_string(&mut echo).await.unwrap();
    assert_eq!(echo, "hello");
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_are_seen_by_waiters_and_subscribers() {
    let fixture = Fixture::new("break-events");
    let pod = fixture.running().await;
    let mut events = pod.events();
    pod.exec("web", "e1", &process(), NO_STDIO).await.unwrap();
    pod.signal("web", Some("e1"), 15, false).await.unwrap();
    assert_eq!(tokio::time::timeout(LONG, pod.wait("web", Some("e1"))).await.unwrap().unwrap().code, 143);
    // The stream was broken after the first event; the second is replayed.
    pod.signal("web", None, 9, true).await.unwrap();
    assert_eq!(tokio::time::timeout(LONG, pod.wait("web", None)).await.unwrap().unwrap().code, 137);
    assert!(matches!(events.recv().await.unwrap(), PodEvent::Exited { exec: Some(_), .. }));
    assert!(matches!(events.recv().await.unwrap(), PodEvent::Exited { exec: None, .. }));
    assert_eq!(pod.remove_exec("web", "e1").unwrap().code, 143);
    assert_eq!(pod.remove_exec("web", "e1").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(pod.exec("web", "e2", &process(), NO_STDIO).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_plugged_once_for_all_its_containers() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    for id in ["a", "b"] {
        pod.create_container(id, &container_spec(), &fixture.rootfs(), NO_STDIO).await.unwrap();
    }
    let slots = pod.info().slots;
    assert_eq!(slots.iter().map(|slot| slot.users).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(pod.vmm_status().await.unwrap().slots.len(), 2);
    pod.remove_container("a").await.unwrap();
    assert_eq!(pod.info().slots.len(), 2);
    pod.remove_container("b").await.unwrap();
    pod.remove_container("b").await.unwrap();
    assert_eq!(pod.vmm_status().await.unwrap().slots.len(), 1, "only the scratch disk is left");
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_containers_leave_no_slot_filled() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    for _ in 0..100 {
        pod.create_container("web", &container_spec(), &fixture.rootfs(), NO_STDIO).await.unwrap();
        pod.remove_container("web").await.unwrap();
    }
    assert_eq!(pod.vmm_status().await.unwrap().slots.len(), 1);
    assert!(pod.info().containers.is_empty());
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_holds_on_to_a_device_loses_it() {
    let fixture = Fixture::new("busy-devices");
    let pod = fixture.running().await;
    pod.remove_container("web").await.unwrap();
    assert_eq!(pod.vmm_status().await.unwrap().slots.len(), 1);
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_made_once_and_must_agree() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    let mount = |options: &[&str]| {
        container_with_mount(json!({"destination": "/v", "type": "husk.volume", "source": "v", "options": options}))
    };
    let memory = mount(&["medium=memory", "size=1048576"]);
    pod.create_container("a", &memory, &fixture.rootfs(), NO_STDIO).await.unwrap();
    pod.create_container("b", &mount(&["ro"]), &fixture.rootfs(), NO_STDIO).await.unwrap();
    let error = pod.create_container("c", &mount(&["medium=disk"]), &fixture.rootfs(), NO_STDIO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_one_pods_at_a_time() {
    let fixture = Fixture::new("");
    let other = Fixture::new("");
    let disk = fixture.path("disk.img");
    std::fs::write(&disk, vec![0; 4096]).unwrap();
    let mount = |options: &[&str]| {
        container_with_mount(json!({"destination": "/d", "type": "husk.disk", "source": disk, "options": options}))
    };
    let pod = fixture.start().await.unwrap();
    let rival = other.start().await.unwrap();
    pod.create_container("a", &mount(&["rw"]), &fixture.rootfs(), NO_STDIO).await.unwrap();
    pod.create_container("b", &mount(&["ro"]), &fixture.rootfs(), NO_STDIO).await.unwrap();
    for options in [["rw"], ["ro"]] {
        let error = rival.create_container("a", &mount(&options), &other.rootfs(), NO_STDIO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(error.to_string().contains("in use by another pod"), "{error}");
    }
    pod.stop(LONG).await;
    rival.create_container("a", &mount(&["rw"]), &other.rootfs(), NO_STDIO).await.unwrap();
    rival.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_doubled_ids_are_errors() {
    let fixture = Fixture::new("");
    let pod = fixture.running().await;
    let again = pod.create_container("web", &container_spec(), &fixture.rootfs(), NO_STDIO).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(pod.start_container("none").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(pod.signal("none", None, 9, false).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(pod.start_container("web").await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert_eq!(pod.exec("web", "../e", &process(), NO_STDIO).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let terminal = StdioWanted { terminal: true, ..NO_STDIO };
    let mismatch = pod.create_container("tty", &container_spec(), &fixture.rootfs(), terminal).await.unwrap_err();
    assert!(mismatch.to_string().contains("process.terminal"), "{mismatch}");
    let none = pod.create_container("bare", &container_spec(), &[], NO_STDIO).await.unwrap_err();
    assert!(matches!(none, CreateError::NoRootfs { .. }), "{none}");
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pod_of_the_same_id_is_refused() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    assert_eq!(fixture.start().await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(pod.vmm_status().await.is_ok(), "the first lives on");
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vmm_ends_all_waits_and_the_rest_still_succeeds() {
    let fixture = Fixture::new("");
    let pod = fixture.running().await;
    let mut events = pod.events();
    let waiter = tokio::spawn({
        let pod = pod.clone();
        async move { pod.wait("web", None).await }
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(pod.vmm_pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(tokio::time::timeout(LONG, waiter).await.unwrap().unwrap().unwrap().code, 137);
    assert!(matches!(events.recv().await.unwrap(), PodEvent::Exited { .. }));
    let PodEvent::VmEnded(end) = events.recv().await.unwrap() else { panic!("the VM's end follows") };
    assert_eq!(end.reason, VmEndReason::Process("signal: 9 (SIGKILL)".into()));
    assert_eq!(pod.signal("web", None, 9, false).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let late = pod.create_container("late", &container_spec(), &fixture.rootfs(), NO_STDIO).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unavailable, "{late}");
    assert!(late.to_string().contains("SIGKILL"), "{late}");
    pod.remove_container("web").await.unwrap();
    pod.stop(LONG).await;
    fixture.assert_nothing_is_left(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_pod_kills_its_vm() {
    let fixture = Fixture::new("");
    drop(fixture.start().await.unwrap());
    wait_until("the VMM process is gone", || !fixture.vmm_runs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn teardown_ends_a_pod_that_nobody_stopped() {
    let fixture = Fixture::new("outlive-socket");
    let pod = fixture.running().await;
    // As when the shim was killed: nothing of it runs any more.
    std::mem::forget(pod);
    let config = fixture.config();
    let removed = tokio::task::spawn_blocking(move || teardown("ns", "p1", &config.state_dir, &config.data_dir)).await;
    removed.unwrap().unwrap();
    fixture.assert_nothing_is_left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_will_not_stop_is_killed() {
    let mut fixture = Fixture::new("hang=shutdown hang=vmm-shutdown");
    fixture.deadlines.vmm = Duration::from_millis(200);
    let pod = fixture.running().await;
    pod.stop(Duration::from_millis(200)).await;
    assert!(pod.has_ended());
    fixture.assert_nothing_is_left(false).await;
}
