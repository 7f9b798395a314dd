use super::*;
use crate::pods::ids;
use crate::pods::record::{OwnSize, Phase, Status, Wanted};

pub(crate) fn container(name: &str) -> ContainerRecord {
    ContainerRecord {
        id: ids::container(),
        name: name.into(),
        short_name: name.into(),
        kind: Default::default(),
        joined: false,
        image: "busybox".into(),
        image_id: "sha256:0".into(),
        volume_images: Vec::new(),
        secret_env: Default::default(),
        rootfs: "/images/busybox".into(),
        rootfs_devices: Vec::new(),
        command: vec!["sh".into()],
        created: jiff::Timestamp::now(),
        terminal: false,
        stdin: false,
        stop_signal: 15,
        stop_timeout: 10,
        restart: Default::default(),
        health: crate::pods::plan::HealthPlan::default(),
        auto_remove: false,
        labels: Default::default(),
        wanted: Wanted::Run,
        state: Default::default(),
        supervisor: None,
    }
}

pub(crate) fn pod(name: &str, containers: Vec<ContainerRecord>) -> PodRecord {
    PodRecord {
        version: VERSION,
        id: ids::pod(),
        name: name.into(),
        namespace: "default".into(),
        uid: ids::uid(),
        hostname: name.into(),
        created: jiff::Timestamp::now(),
        share_process_namespace: false,
        restart_policy: Default::default(),
        exit_policy: Default::default(),
        private: false,
        labels: Default::default(),
        annotations: Default::default(),
        network: Default::default(),
        ips: Vec::new(),
        network_ms: None,
        own_size: OwnSize::default(),
        named_volumes: Vec::new(),
        phase: Phase::Pending,
        message: None,
        started: None,
        finished: None,
        boot: None,
        containers,
    }
}

fn pods() -> (tempfile::TempDir, Pods) {
    let dir = tempfile::tempdir().unwrap();
    let pods = Pods::new(&Paths::below(dir.path()));
    (dir, pods)
}

#[test]
fn a_pod_is_made_changed_and_removed() {
    let (_dir, pods) = pods();
    assert!(pods.list().unwrap().is_empty());
    let record = pod("foo", vec![container("foo-app")]);
    let id = record.containers[0].id.clone();
    let dir = pods.create(&record, &Spec::default(), &[(id.clone(), Spec::default())], &[]).unwrap();
    dir.update(|r| r.container_mut(&id).unwrap().state.running(7, jiff::Timestamp::now())).unwrap();
    let listed = pods.list().unwrap();
    assert_eq!(listed[0].containers[0].state.status, Status::Running);
    assert!(dir.spec(&id).is_ok() && dir.spec(&record.id).is_ok());
    dir.remove_container(&id).unwrap();
    assert!(dir.record().unwrap().containers.is_empty() && !dir.bundle(&id).exists());
    dir.remove().unwrap();
    dir.remove().unwrap();
    assert!(matches!(dir.update(|_| ()), Err(DirectoryError::Gone)));
    assert!(pods.list().unwrap().is_empty());
}

#[test]
fn names_are_unique_among_pods_and_among_containers() {
    let (_dir, pods) = pods();
    let first = pods.create(&pod("foo", vec![container("foo-app")]), &Spec::default(), &[], &[]).unwrap();
    let again = pods.create(&pod("foo", vec![]), &Spec::default(), &[], &[]);
    assert!(matches!(again, Err(DirectoryError::NameInUse { what: "pod", .. })));
    let taken = pods.create(&pod("bar", vec![container("foo-app")]), &Spec::default(), &[], &[]);
    assert!(matches!(taken, Err(DirectoryError::NameInUse { what: "container", .. })));
    assert!(pods.add(&first, &container("foo-app"), &Spec::default(), &[]).is_err());
    pods.add(&first, &container("other"), &Spec::default(), &[]).unwrap();
    assert_eq!(first.record().unwrap().containers.len(), 2);
    assert_eq!(pods.list().unwrap().len(), 1, "refused pods leave nothing behind");
    assert_eq!(fs::read_dir(&pods.root).unwrap().count(), 1, "the pod");
}

#[test]
fn a_volume_belongs_to_one_pod_at_a_time() {
    let (_dir, pods) = pods();
    let with = |name: &str| PodRecord { named_volumes: vec!["db".into()], ..pod(name, vec![]) };
    let first = pods.create(&with("a"), &Spec::default(), &[], &[]).unwrap();
    let refused = pods.create(&with("b"), &Spec::default(), &[], &[]).unwrap_err();
    assert!(matches!(&refused, DirectoryError::VolumeInUse { volume, pod } if volume == "db" && pod == "a"));
    pods.add(&first, &container("again"), &Spec::default(), &["db".into()]).unwrap();
    first.update(|r| r.end(Phase::Stopped, None, jiff::Timestamp::now())).unwrap();
    pods.create(&with("b"), &Spec::default(), &[], &[]).unwrap();
}

#[test]
fn files_of_volumes_come_and_go_with_the_pod() {
    let (_dir, pods) = pods();
    let volume =
        |name: &str, payload| VolumePlan { name: name.into(), source: VolumeSource::Files { payload, group: None } };
    let mut payload = crate::pods::atomic_writer::Payload::default();
    payload.insert("key", 0o400, b"value".to_vec()).unwrap();
    let record = pod("foo", vec![]);
    let dir = pods.create(&record, &Spec::default(), &[], &[volume("config", payload.clone())]).unwrap();
    assert_eq!(fs::read_to_string(dir.volume("config").join("key")).unwrap(), "value");
    dir.remove().unwrap();
    assert_eq!(fs::read_dir(&pods.root).unwrap().count(), 0);
    // A name that cannot be: the pod is not made, and nothing is left.
    let bad = pods.create(&record, &Spec::default(), &[], &[volume("no\0name", payload)]);
    assert!(matches!(bad, Err(DirectoryError::Files { .. })));
    assert_eq!(fs::read_dir(&pods.root).unwrap().count(), 0);
}

#[test]
fn changes_from_many_threads_are_all_kept() {
    let (_dir, pods) = pods();
    let dir = pods.create(&pod("foo", vec![container("a")]), &Spec::default(), &[], &[]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    dir.update(|r| r.containers[0].state.restarts += 1).unwrap();
                }
            });
        }
    });
    assert_eq!(dir.record().unwrap().containers[0].state.restarts, 80);
}

#[test]
fn an_unreadable_record_does_not_hide_the_others() {
    let (_dir, pods) = pods();
    pods.create(&pod("foo", vec![]), &Spec::default(), &[], &[]).unwrap();
    make_dir(&pods.root.join("broken")).unwrap();
    fs::write(pods.root.join("broken/pod.json"), "{").unwrap();
    assert_eq!(pods.list().unwrap().len(), 1);
}
