//! Ends that kubelet asks for, and those that it finds.

use husk_cri::api::{ContainerState, PodSandboxState};
use husk_tests::fixture::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use super::kubelet::is_not_found;
use super::node::Node;
use super::pod::Pod;

#[test]
fn a_container_is_asked_to_end_and_killed_after_its_grace() {
    let node = Node::start();
    let kubelet = &node.kubelet;
    let pod = Pod::prepare(&node, "grace");
    let sandbox = pod.run();
    let ends = |name: &str, script: &str, grace: i64| {
        let config = pod.container(name, 0, script);
        let id = pod.start(&sandbox, &config);
        pod.logged(&config, "ready");
        kubelet.stop(&id, grace).unwrap();
        let status = kubelet.container(&id).unwrap();
        assert_eq!(status.state(), ContainerState::ContainerExited, "StopContainer answers after the end");
        kubelet.stop(&id, grace).unwrap();
        (status.exit_code, id)
    };
    let polite = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let (code, removed) = ends("polite", polite, 300);
    assert_eq!(code, 7);
    let (code, _) = ends("deaf", "trap '' TERM; echo ready; while :; do sleep 0.1; done", 1);
    assert_eq!(code, 137);
    let (code, _) = ends("at-once", polite, 0);
    assert_eq!(code, 137);

    kubelet.remove(&removed).unwrap();
    kubelet.remove(&removed).unwrap();
    is_not_found(kubelet.container(&removed));
    // One that runs is killed with its removal.
    let running = pod.start(&sandbox, &pod.container("running", 0, "sleep 100000"));
    kubelet.remove(&running).unwrap();
    is_not_found(kubelet.container(&running));

    for _ in 0..3 {
        kubelet.stop_pod(&sandbox).unwrap();
        assert_eq!(kubelet.pod_status(&sandbox).unwrap().state(), PodSandboxState::SandboxNotready);
    }
    for _ in 0..3 {
        kubelet.remove_pod(&sandbox).unwrap();
    }
    assert_eq!((kubelet.pods().len(), kubelet.containers().len()), (0, 0));
    for missing in ["none", &sandbox] {
        kubelet.stop(missing, 1).unwrap();
        kubelet.remove(missing).unwrap();
        kubelet.stop_pod(missing).unwrap();
        kubelet.remove_pod(missing).unwrap();
    }
}

#[test]
fn a_pod_whose_vm_died_is_not_ready_and_is_made_anew() {
    let node = Node::start();
    let kubelet = &node.kubelet;
    let mut pod = Pod::prepare(&node, "dies");
    let first = pod.run();
    let main = pod.start(&first, &pod.container("main", 0, "sleep 100000"));
    let created = kubelet.create(&first, &pod.container("waits", 0, "true"), &pod.config).unwrap();
    kill_process(Pid::from_raw(pod.vmm(&first)).unwrap(), Signal::KILL).unwrap();
    wait_until("the pod to be not ready", 20, || {
        kubelet.pod_status(&first).unwrap().state() == PodSandboxState::SandboxNotready
    });
    assert_ne!(pod.ended(&main).exit_code, 0);
    assert!(kubelet.create(&first, &pod.container("late", 0, "true"), &pod.config).is_err());
    assert!(kubelet.start(&created).is_err());

    // kubelet ends what is left of it before it makes the next one; both are known until the first is collected.
    kubelet.stop_pod(&first).unwrap();
    assert_eq!(kubelet.container(&created).unwrap().state(), ContainerState::ContainerExited);
    assert!(kubelet.run_pod(&pod.config).is_err(), "the name of a pod that is there was given away");
    pod.set_attempt(1);
    let second = pod.run();
    let again = pod.start(&second, &pod.container("main", 1, "sleep 100000"));
    assert_eq!(kubelet.sh(&again, "echo fine"), "fine");
    assert_eq!(kubelet.pods().len(), 2);
    pod.collect(&first);
    assert_eq!(kubelet.sh(&again, "echo fine"), "fine");
    pod.collect(&second);
}
