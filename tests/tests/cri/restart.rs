//! huskd killed at moments that are bad for it: pods go on, and what was half done is gone.

use std::time::{Duration, Instant};

use husk_cri::api::{ContainerState, PodSandboxState};
use husk_cri::state::now;
use husk_tests::fixture::wait_until;

use super::kubelet::{Answer, Kubelet, is_not_found};
use super::node::{Node, shims};
use super::pod::Pod;

#[test]
fn a_pod_goes_on_while_huskd_is_killed_and_restarted() {
    let mut node = Node::start();
    let pod = Pod::prepare(&node, "goes-on");
    let sandbox = pod.run();
    let counts = pod.container("counts", 0, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done");
    let counting = pod.start(&sandbox, &counts);
    let ends = pod.container("ends", 0, "echo up; while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 5");
    let ending = pod.start(&sandbox, &ends);
    let created = node.kubelet.create(&sandbox, &pod.container("created", 0, "exit 6"), &pod.config).unwrap();
    pod.logged(&counts, "3");
    pod.logged(&ends, "up");
    let before = node.kubelet.pod_status(&sandbox).unwrap();

    // It ends while nobody is there: after a while, which the other one's lines measure in the same guest.
    node.kubelet.sh(&ending, "(sleep 2; touch /tmp/end) >/dev/null 2>&1 &");
    node.kill_huskd();
    let last = last_number(&pod.logged(&counts, "3"));
    pod.logged(&counts, &(last + 30).to_string());
    let restarted = now();
    node.start_huskd();

    let kubelet = &node.kubelet;
    assert_eq!(kubelet.pod_status(&sandbox).unwrap(), before);
    assert_eq!((kubelet.pods().len(), kubelet.containers().len()), (1, 3));
    let ended = pod.ended(&ending);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (5, "Error"));
    assert!((ended.started_at..restarted).contains(&ended.finished_at), "it ended meanwhile: {ended:?}");
    assert_eq!(kubelet.container(&counting).unwrap().state(), ContainerState::ContainerRunning);
    assert_eq!(kubelet.sh(&counting, "echo fine"), "fine");
    let last = last_number(&pod.logged(&counts, "3"));
    let log = pod.logged(&counts, &(last + 5).to_string());
    let numbers: Vec<u32> = log.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=last_number(&log)), "the log has a gap: {numbers:?}");
    assert_eq!(kubelet.container(&created).unwrap().state(), ContainerState::ContainerCreated);
    kubelet.start(&created).unwrap();
    assert_eq!(pod.ended(&created).exit_code, 6);

    // Killed while a container is being made: there is one, whole, or none, and its name can be had.
    for (attempt, delay) in [(0, 50), (1, 400), (2, 1000)] {
        let half = pod.container("half", attempt, "sleep 100000");
        let (id, request, config) = (sandbox.clone(), half.clone(), pod.config.clone());
        let made = interrupted(&mut node, delay, move |kubelet| kubelet.create(&id, &request, &config));
        let mut known = node.kubelet.containers();
        known.retain(|container| container.metadata == half.metadata);
        let id = match (made, known.first()) {
            (Some(Ok(id)), _) => id,
            (_, Some(whole)) => whole.id.clone(),
            (_, None) => node.kubelet.create(&sandbox, &half, &pod.config).unwrap(),
        };
        assert_eq!(node.kubelet.container(&id).unwrap().state(), ContainerState::ContainerCreated);
        node.kubelet.start(&id).unwrap();
        assert_eq!(node.kubelet.sh(&id, "echo fine"), "fine");
    }

    // Killed while the pod is being ended: kubelet asks again.
    for delay in [50, 700] {
        let id = sandbox.clone();
        interrupted(&mut node, delay, move |kubelet| kubelet.stop_pod(&id));
        assert_eq!(node.kubelet.pods().len(), 1);
    }
    let kubelet = &node.kubelet;
    kubelet.stop_pod(&sandbox).unwrap();
    assert_eq!(kubelet.pod_status(&sandbox).unwrap().state(), PodSandboxState::SandboxNotready);
    assert!(kubelet.containers().iter().all(|c| c.state() == ContainerState::ContainerExited));
    kubelet.remove_pod(&sandbox).unwrap();
    is_not_found(kubelet.pod_status(&sandbox));
    assert!(kubelet.containers().is_empty());
}

#[test]
fn a_pod_that_was_being_made_when_huskd_was_killed_leaves_no_trace() {
    let mut node = Node::start();
    let pod = Pod::prepare(&node, "half-made");
    // From the network's plugins to the guest's boot.
    for delay in [100, 1000, 2500, 5000] {
        let config = pod.config.clone();
        let made = interrupted(&mut node, delay, move |kubelet| kubelet.run_pod(&config));
        // One whose answer was on its way is whole.
        if let Some(pods) = Some(node.kubelet.pods()).filter(|pods| !pods.is_empty()) {
            assert_eq!(pods[0].state(), PodSandboxState::SandboxReady, "{made:?}");
            pod.collect(&pods[0].id);
        }
        assert!(node.kubelet.pods().is_empty() && node.kubelet.containers().is_empty());
        let pods = node.root().join("pods/huskd");
        wait_until("the half-made pod to be gone", 10, || {
            std::fs::read_dir(&pods).map_or(0, |entries| entries.count()) == 0
        });
    }
    // Gone by the time that huskd serves, but for the moment in which a process ends.
    wait_until("the half-made pods' shims to end", 1, || shims("huskd").is_empty());
    // Its name can be had.
    let sandbox = pod.run();
    let main = pod.start(&sandbox, &pod.container("main", 0, "sleep 100000"));
    assert_eq!(node.kubelet.sh(&main, "echo fine"), "fine");
    pod.collect(&sandbox);
}

/// Kills huskd so many milliseconds after a request has begun, or with its answer, and starts it again. Which step this
/// meets depends on the machine; what has to hold does not.
fn interrupted<T: Send + 'static>(
    node: &mut Node,
    delay: u64,
    request: impl FnOnce(&Kubelet) -> Answer<T> + Send + 'static,
) -> Option<Answer<T>> {
    let kubelet = node.kubelet.clone();
    let began = Instant::now();
    let asked = std::thread::spawn(move || request(&kubelet));
    while began.elapsed() < Duration::from_millis(delay) && !asked.is_finished() {
        std::thread::sleep(Duration::from_millis(5));
    }
    node.kill_huskd();
    let answer = asked.join().ok();
    node.start_huskd();
    answer
}

fn last_number(log: &str) -> u32 {
    log.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).next_back().unwrap()
}
