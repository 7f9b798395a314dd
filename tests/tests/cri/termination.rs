//! How containers end: exit codes, reasons and the termination message.

use std::fs;

use husk_cri::api::{ContainerState, ContainerStatus};
use husk_tests::fixture::wait_for;

use super::node::Node;
use super::pod::{MIB, Pod};

#[test]
fn the_end_of_a_container_has_its_code_its_reason_and_its_message() {
    let node = Node::start();
    let kubelet = &node.kubelet;
    let pod = Pod::prepare(&node, "ends");
    let sandbox = pod.run();

    // The bytes are there before the status says EXITED, or kubelet reads too early; several times, for it is a race.
    for attempt in 0..3 {
        let message = format!("attempt {attempt} could not go on");
        let config = pod.container("fails", attempt, &format!("printf '{message}' >/dev/termination-log; exit 3"));
        let id = pod.start(&sandbox, &config);
        let (status, told) = wait_for("the end of the container", 20, || {
            let status = kubelet.container(&id).unwrap();
            let exited = status.state() == ContainerState::ContainerExited;
            exited.then(|| (status, fs::read_to_string(pod.termination("fails", attempt)).unwrap()))
        });
        assert_eq!((told, ends(&status)), (message, (3, "Error".to_owned())));
        assert!(status.started_at > 0 && status.finished_at >= status.started_at, "{status:?}");
    }

    let mut greedy = pod.container("greedy", 0, "head -c 100000000 /dev/zero | tail");
    greedy.linux.as_mut().unwrap().resources.as_mut().unwrap().memory_limit_in_bytes = 16 * MIB;
    let id = pod.start(&sandbox, &greedy);
    assert_eq!(ends(&pod.ended(&id)), (137, "OOMKilled".to_owned()));

    let mut absent = pod.container("absent", 0, "");
    absent.command = vec!["/no/such/program".into()];
    let id = kubelet.create(&sandbox, &absent, &pod.config).unwrap();
    let refused = kubelet.start(&id).unwrap_err();
    assert!(refused.message().contains("/no/such/program"), "{refused}");
    let status = kubelet.container(&id).unwrap();
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!(ends(&status), (128, "StartError".to_owned()));
    assert!(status.message.contains("/no/such/program"), "{status:?}");
    assert!(kubelet.start(&id).is_err(), "a container that has ended was started");

    // Restarted as the next attempt, in the same sandbox and with a new log.
    let first = pod.container("again", 0, "echo first; exit 1");
    let id = pod.start(&sandbox, &first);
    assert_eq!(ends(&pod.ended(&id)), (1, "Error".to_owned()));
    let again = kubelet.create(&sandbox, &first, &pod.config).unwrap_err();
    assert!(again.message().contains("again"), "the name of a container that is there was given away: {again}");
    let second = pod.container("again", 1, "echo second; exit 0");
    let again = pod.start(&sandbox, &second);
    assert_eq!(ends(&pod.ended(&again)), (0, "Completed".to_owned()));
    pod.logged(&first, "first");
    pod.logged(&second, "second");
    pod.collect(&sandbox);
}

fn ends(status: &ContainerStatus) -> (i32, String) {
    (status.exit_code, status.reason.clone())
}
