//! Many pods: what relists ask is answered from memory.

use std::path::Path;
use std::time::Instant;

use husk_cri::api::{ContainerMetadata, ContainerState, PodSandboxState};
use husk_cri::state::{ContainerPhase, ContainerRecord, Disk, SandboxPhase, SandboxRecord, UserRecord, now};
use rustix::process::{Pid, Signal, kill_process};

use super::node::{Node, shims};
use super::pod::Pod;

/// Pods that have ended, each with an ended container: known after a start from their records alone.
const ENDED: usize = 200;

#[test]
fn lists_and_statuses_ask_no_shim() {
    let mut node = Node::start();
    let pod = Pod::prepare(&node, "many");
    let sandbox = pod.run();
    let main = pod.start(&sandbox, &pod.container("main", 0, "sleep 100000"));
    node.stop_huskd();
    let image = pod.container("main", 0, "").image.unwrap().image;
    let records = Records::of(node.root());
    for number in 0..ENDED {
        records.write(number, &pod, &image);
    }
    node.start_huskd();

    let kubelet = &node.kubelet;
    let vmm = Pid::from_raw(pod.vmm(&sandbox)).unwrap();
    let shim = shims(&sandbox)[0];
    for stopped in [shim, vmm] {
        kill_process(stopped, Signal::STOP).unwrap();
    }
    let began = Instant::now();
    let (pods, containers) = (kubelet.pods(), kubelet.containers());
    let listed = began.elapsed();
    assert_eq!((pods.len(), containers.len()), (ENDED + 1, ENDED + 1));
    let began = Instant::now();
    for pod in &pods {
        assert_eq!(kubelet.pod_status(&pod.id).unwrap().state(), pod.state());
    }
    for container in &containers {
        assert_eq!(kubelet.container(&container.id).unwrap().state(), container.state());
    }
    let asked = began.elapsed();
    eprintln!("{} pods: both lists in {listed:?}, {} statuses in {asked:?}", pods.len(), pods.len() * 2);
    let ready = pods.iter().filter(|pod| pod.state() == PodSandboxState::SandboxReady);
    assert_eq!(ready.map(|pod| &pod.id).collect::<Vec<_>>(), [&sandbox]);
    let running = containers.iter().filter(|container| container.state() == ContainerState::ContainerRunning);
    assert_eq!(running.map(|container| &container.id).collect::<Vec<_>>(), [&main]);
    for stopped in [vmm, shim] {
        kill_process(stopped, Signal::CONT).unwrap();
    }
    assert_eq!(kubelet.sh(&main, "echo fine"), "fine");

    pod.collect(&sandbox);
    // They were never made, so that nothing but their records has to go.
    node.stop_huskd();
    for number in 0..ENDED {
        records.remove(number);
    }
    node.start_huskd();
    assert_eq!((node.kubelet.pods().len(), node.kubelet.containers().len()), (0, 0));
}

/// huskd's records of pods and containers.
struct Records {
    sandboxes: Disk,
    containers: Disk,
}

impl Records {
    fn of(root: &Path) -> Self {
        let records = root.join("cri");
        Self {
            sandboxes: Disk::open(records.join("sandboxes")).unwrap(),
            containers: Disk::open(records.join("containers")).unwrap(),
        }
    }

    /// A pod that ran once, like `pod`.
    fn write(&self, number: usize, pod: &Pod, image: &str) {
        let mut config = pod.config.clone();
        config.metadata.as_mut().unwrap().uid = format!("ended-{number}");
        let record = SandboxRecord {
            id: id(number, "a"),
            handler: String::new(),
            created_at: now(),
            phase: SandboxPhase::NotReady,
            ips: Vec::new(),
            task_pid: 0,
        };
        self.sandboxes.create(&record.id, &config, &record).unwrap();
        let mut config = pod.container("main", 0, "true");
        config.metadata = Some(ContainerMetadata { name: "main".into(), attempt: 0 });
        let record = ContainerRecord {
            id: id(number, "b"),
            sandbox: record.id,
            created_at: now(),
            phase: ContainerPhase::Exited {
                started_at: now(),
                finished_at: now(),
                exit_code: 0,
                reason: "Completed".into(),
                message: String::new(),
            },
            image_id: image.to_owned(),
            image_ref: image.to_owned(),
            user: UserRecord::default(),
            stop_signal: 15,
            resources: Vec::new(),
        };
        self.containers.create(&record.id, &config, &record).unwrap();
    }

    fn remove(&self, number: usize) {
        self.containers.remove(&id(number, "b")).unwrap();
        self.sandboxes.remove(&id(number, "a")).unwrap();
    }
}

fn id(number: usize, kind: &str) -> String {
    format!("{kind}{number:063x}")
}
