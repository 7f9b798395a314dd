//! A pod from kubelet's first request for it to its last, as relists and events tell it.

use std::fs;

use husk_cri::api::{ContainerEventType, ContainerState, PodSandboxState};
use husk_tests::fixture::deadline;

use super::kubelet::is_not_found;
use super::node::Node;
use super::pod::Pod;
use super::relist::Relist;

const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";
const CREATED: &str = "CONTAINER_CREATED";
const RUNNING: &str = "CONTAINER_RUNNING";
const EXITED: &str = "CONTAINER_EXITED";

#[test]
fn a_pod_goes_through_its_states_and_relists_and_events_tell_each() {
    let node = Node::start();
    let kubelet = &node.kubelet;
    let events = kubelet.events();
    let relist = Relist::begin(kubelet);
    let pod = Pod::prepare(&node, "life");

    let sandbox = pod.run();
    relist.saw(&sandbox, &[READY]);
    let status = kubelet.pod_status(&sandbox).unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(status.metadata, pod.config.metadata);
    assert_eq!((&status.labels, &status.annotations), (&pod.config.labels, &pod.config.annotations));
    assert!(status.network.unwrap().ip.starts_with("10.87.0."));
    let vmm = fs::read_to_string(format!("/proc/{}/cgroup", pod.vmm(&sandbox))).unwrap();
    assert!(vmm.contains(pod.control_group()), "the VMM must be below {}, not in {vmm}", pod.control_group());

    let script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let config = pod.container("main", 0, script);
    let main = kubelet.create(&sandbox, &config, &pod.config).unwrap();
    relist.saw(&main, &[CREATED]);
    kubelet.start(&main).unwrap();
    relist.saw(&main, &[CREATED, RUNNING]);
    pod.logged(&config, "up");
    let status = kubelet.container(&main).unwrap();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at >= status.created_at);
    assert_eq!((&status.labels, &status.annotations), (&config.labels, &config.annotations));
    assert_eq!(status.mounts, config.mounts);
    assert_eq!(status.log_path, pod.log(&config).to_string_lossy());
    assert_eq!(status.resources.unwrap().linux, config.linux.clone().unwrap().resources);
    assert_eq!(
        kubelet.sh(&main, "hostname; tail -n 1 /etc/hosts; echo $KUBERNETES_SERVICE_PORT; cat /etc/resolv.conf"),
        "life\n10.87.0.9\tlife\n443\nnameserver 10.96.0.10\nsearch default.svc.cluster.local\noptions ndots:5"
    );

    kubelet.stop(&main, 30).unwrap();
    relist.saw(&main, &[CREATED, RUNNING, EXITED]);
    let status = kubelet.container(&main).unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(status.finished_at >= status.started_at);
    kubelet.remove(&main).unwrap();
    relist.saw(&main, &[CREATED, RUNNING, EXITED, "gone"]);
    is_not_found(kubelet.container(&main));
    kubelet.stop_pod(&sandbox).unwrap();
    relist.saw(&sandbox, &[READY, NOT_READY]);
    kubelet.remove_pod(&sandbox).unwrap();
    relist.saw(&sandbox, &[READY, NOT_READY, "gone"]);
    is_not_found(kubelet.pod_status(&sandbox));

    let mut told = Vec::new();
    let last = |told: &[husk_cri::api::ContainerEventResponse]| {
        told.last().is_some_and(|event| {
            event.container_id == sandbox && event.container_event_type() == ContainerEventType::ContainerDeletedEvent
        })
    };
    while !last(&told) {
        let patience = deadline(5).saturating_duration_since(std::time::Instant::now());
        told.push(events.recv_timeout(patience).expect("an event of the pod's removal"));
    }
    let of = |id: &str| -> Vec<ContainerEventType> {
        told.iter().filter(|event| event.container_id == id).map(|event| event.container_event_type()).collect()
    };
    let all = [
        ContainerEventType::ContainerCreatedEvent,
        ContainerEventType::ContainerStartedEvent,
        ContainerEventType::ContainerStoppedEvent,
        ContainerEventType::ContainerDeletedEvent,
    ];
    assert_eq!(of(&main), all);
    assert_eq!(of(&sandbox), all);
    for event in &told {
        let status = event.pod_sandbox_status.as_ref().expect("the pod's status in each event");
        assert_eq!((status.id.as_str(), event.created_at > 0), (sandbox.as_str(), true));
    }
}
