//! Connections to ports of the pod.

use husk_pod::{ErrorKind, FORWARDS_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{Fixture, LONG};

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_and_half_closes() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    let mut forward = pod.forward(80).await.unwrap();
    forward.write_all(b"hello").await.unwrap();
    forward.shutdown().await.unwrap();
    let mut echo = String::new();
    forward.read_to_string(&mut echo).await.unwrap();
    assert_eq!(echo, "hello");
    pod.stop(LONG).await;
    assert_eq!(pod.forward(80).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_a_listener_is_named() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    let error = pod.forward(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("port 1 "), "{error}");
    assert_eq!(pod.forward(0).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_their_places_come_back() {
    let fixture = Fixture::new("");
    let pod = fixture.start().await.unwrap();
    let mut all = Vec::new();
    for _ in 0..FORWARDS_MAX {
        all.push(pod.forward(80).await.unwrap());
    }
    let error = pod.forward(80).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    drop(all);
    let again = async {
        while pod.forward(80).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, again).await.unwrap();
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_refuses_or_lies_is_an_error() {
    for behaviour in ["refuse=forward", "unknown-streams", "odd-streams"] {
        let fixture = Fixture::new(behaviour);
        let pod = fixture.start().await.unwrap();
        let error = pod.forward(80).await.unwrap_err();
        assert!(error.to_string().contains("port 80"), "{behaviour}: {error}");
        assert!(!error.to_string().contains(['\x1b', '\n']), "{behaviour}: {error:?}");
        pod.stop(LONG).await;
    }
}
