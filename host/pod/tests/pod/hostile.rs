//! Guests that lie, hang and flood.

use husk_pod::{ContainerState, ErrorKind, StdioWanted};

use crate::fixture::{ALL_STDIO, Fixture, LONG, NO_STDIO, SHORT, container_spec, process};

#[tokio::test(flavor = "multi_thread")]
async fn forged_events_change_nothing() {
    let fixture = Fixture::new("forge-events");
    let pod = fixture.running().await;
    // A true event behind the forged ones: once it is seen, they have been.
    pod.exec("web", "e", &process(), NO_STDIO).await.unwrap();
    pod.signal("web", Some("e"), 1, false).await.unwrap();
    tokio::time::timeout(LONG, pod.wait("web", Some("e"))).await.unwrap().unwrap();
    let containers = pod.info().containers;
    assert_eq!(containers.len(), 1);
    assert_eq!(containers.first().unwrap().state, ContainerState::Running);
    assert_eq!(containers.first().unwrap().oom_kills, 0);
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_answer_is_an_error() {
    let fixture = Fixture::new("huge-list");
    let pod = fixture.running().await;
    let error = pod.pids("web").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    assert_eq!(pod.stats(Some("web")).await.unwrap().memory_usage, 4096, "other calls go on");
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_creation_fails_leaves_nothing_in_the_pod() {
    for behaviour in ["refuse=create", "unknown-streams", "odd-streams"] {
        let fixture = Fixture::new(behaviour);
        let pod = fixture.start().await.unwrap();
        let error = pod.create_container("web", &container_spec(), &fixture.rootfs(), ALL_STDIO).await.unwrap_err();
        assert!(error.to_string().contains("web"), "{behaviour}: {error}");
        assert!(!error.to_string().contains(['\x1b', '\n']), "{behaviour}: {error:?}");
        assert!(pod.info().containers.is_empty(), "{behaviour}");
        assert_eq!(pod.vmm_status().await.unwrap().slots.len(), 1, "{behaviour}: only the scratch disk");
        pod.stop(LONG).await;
        fixture.assert_nothing_is_left(false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_never_attached_meet_their_deadline() {
    let mut fixture = Fixture::new("silent-streams");
    fixture.deadlines.stream = SHORT;
    let pod = fixture.start().await.unwrap();
    let wanted = StdioWanted { stdout: true, ..NO_STDIO };
    let error = pod.create_container("web", &container_spec(), &fixture.rootfs(), wanted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert!(pod.info().containers.is_empty());
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_dies_while_a_container_is_made_says_so() {
    for step in ["create", "start"] {
        let fixture = Fixture::new(&format!("die={step}"));
        let pod = fixture.start().await.unwrap();
        let created = pod.create_container("web", &container_spec(), &fixture.rootfs(), NO_STDIO).await;
        let (kind, message) = match created {
            Err(error) => (error.kind(), error.to_string()),
            Ok(_) => {
                let error = pod.start_container("web").await.unwrap_err();
                (error.kind(), error.to_string())
            }
        };
        assert_eq!(kind, ErrorKind::Unavailable, "{step}: {message}");
        assert!(message.contains("exit status: 3"), "{step}: {message}");
        pod.stop(LONG).await;
        fixture.assert_nothing_is_left(false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_creation_still_comes_to_its_end() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    let (spec, rootfs) = (container_spec(), fixture.rootfs());
    // Polled once, then dropped, as when a client hangs up.
    let creation = pod.create_container("web", &spec, &rootfs, NO_STDIO);
    let _ = tokio::time::timeout(std::time::Duration::ZERO, creation).await;
    crate::fixture::wait_until("the container is created", || {
        pod.info().containers.first().is_some_and(|container| container.state == ContainerState::Created)
    })
    .await;
    pod.remove_container("web").await.unwrap();
    assert_eq!(pod.vmm_status().await.unwrap().slots.len(), 1);
    pod.stop(LONG).await;
}
