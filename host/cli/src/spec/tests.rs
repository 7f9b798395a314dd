use std::collections::BTreeMap;
use std::path::PathBuf;

use husk_client::RootfsImage;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::*;
use crate::pods::atomic_writer::Payload;
use crate::pods::plan::{
    Access, ContainerPlan, Exposure, HostPath, HostPathKind, ImageSource, Limits, Medium, MountFlag, MountOptions,
    MountPlan, MountSource, PidPlan, PodPlan, Propagation, PullPolicy, Rlimit, UserPlan, UsersPlan, VolumePlan,
    VolumeSource,
};

fn image() -> ImageFacts {
    ImageFacts {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["default".into()],
        env: vec!["PATH=/bin".into(), "LANG=C".into(), "broken".into()],
        workdir: "/srv".into(),
        home: "/root".into(),
        ..ImageFacts::default()
    }
}

fn build(plan: &ContainerPlan, image: &ImageFacts) -> Result<Spec, SpecError> {
    let of_image = ImageSource { reference: "tools".into(), pull: PullPolicy::Missing };
    let volumes = [
        ("cache", VolumeSource::Empty { medium: Medium::Memory, size: Some(4096), group: None }),
        ("work", VolumeSource::Empty { medium: Medium::Disk, size: Some(1 << 20), group: Some(70) }),
        ("host", VolumeSource::Host(HostPath { path: "/srv/data".into(), kind: HostPathKind::Any })),
        ("config", VolumeSource::Files { payload: Payload::default(), group: None }),
        ("tools", VolumeSource::Image(of_image)),
        ("claim", VolumeSource::Named { name: "db".into(), read_only: true }),
    ];
    let volumes = volumes.map(|(name, source)| VolumePlan { name: name.into(), source });
    let tools = RootfsImage { path: "/images/tools.erofs".into(), devices: vec!["/images/a".into()] };
    let places = Places {
        volumes: &volumes,
        files: &|name| PathBuf::from(format!("/pod/volumes/{name}")),
        disk: &|name| PathBuf::from(format!("/volumes/{name}/data.img")),
        images: &BTreeMap::from([("tools".to_owned(), tools)]),
    };
    container(ContainerInputs { pod_id: "p1", hostname: "web", plan, image, places })
}

/// A mount of one of the volumes above, as the spec has it: type, source, options.
fn mounted(volume: &str, sub_path: Option<&str>, options: MountOptions) -> Value {
    let plan = MountPlan {
        sub_path: sub_path.map(str::to_owned),
        options,
        ..MountPlan::new(MountSource::PodVolume { name: volume.into() }, "/mnt/here")
    };
    let spec = json_of(&ContainerPlan { mounts: vec![plan], ..self::plan() });
    let mount = spec["mounts"].as_array().unwrap().iter().find(|m| m["destination"] == "/mnt/here").unwrap().clone();
    json!([mount["type"], mount["source"], mount["options"]])
}

fn json_of(plan: &ContainerPlan) -> Value {
    serde_json::to_value(build(plan, &image()).unwrap()).unwrap()
}

fn plan() -> ContainerPlan {
    ContainerPlan { name: "app".into(), ..ContainerPlan::default() }
}

#[test]
fn entrypoint_and_command_combine_as_podman_and_kubernetes_do() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for (entrypoint, args, expected) in [
        (None, None, "/entry default"),
        (None, Some("a b"), "/entry a b"),
        (Some("/bin/sh -c"), None, "/bin/sh -c"),
        (Some("/bin/sh"), Some("-c x"), "/bin/sh -c x"),
    ] {
        let plan = ContainerPlan { entrypoint: entrypoint.map(words), args: args.map(words), ..plan() };
        assert_eq!(json_of(&plan)["process"]["args"], json!(words(expected)));
    }
}

#[test]
fn an_image_without_a_command_needs_one() {
    let error = build(&plan(), &ImageFacts::default()).unwrap_err();
    assert_eq!(error, SpecError::NoCommand { container: "app".into() });
}

#[test]
fn what_was_asked_for_wins_over_the_images_environment() {
    let plan = ContainerPlan { env: vec![("LANG".into(), "de".into()), ("A".into(), "1".into())], ..plan() };
    let env = json_of(&plan)["process"]["env"].clone();
    assert_eq!(env, json!(["PATH=/bin", "HOME=/root", "HOSTNAME=web", "LANG=de", "A=1"]));
    let terminal = ContainerPlan { terminal: true, ..self::plan() };
    assert!(json_of(&terminal)["process"]["env"].as_array().unwrap().contains(&json!("TERM=xterm")));
}

#[test]
fn the_working_directory_is_the_images_unless_given() {
    assert_eq!(json_of(&plan())["process"]["cwd"], "/srv");
    assert_eq!(json_of(&ContainerPlan { workdir: Some("/tmp".into()), ..plan() })["process"]["cwd"], "/tmp");
    assert!(build(&ContainerPlan { workdir: Some("tmp".into()), ..plan() }, &image()).is_err());
}

#[test]
fn limits_reach_the_spec_exactly() {
    let limits = Limits { memory: Some(268_435_456), cpu_milli: Some(250), cpu_shares: Some(256), pids: Some(64) };
    let resources = json_of(&ContainerPlan { limits, ..plan() })["linux"]["resources"].clone();
    assert_eq!(resources["memory"], json!({"limit": 268_435_456, "swap": 268_435_456}));
    assert_eq!(resources["cpu"], json!({"shares": 256, "quota": 25_000, "period": 100_000}));
    assert_eq!(resources["pids"], json!({"limit": 64}));
}

#[test]
fn nothing_that_the_shim_refuses_is_set_by_default() {
    let spec = json_of(&plan());
    let linux = spec["linux"].as_object().unwrap();
    for absent in ["uidMappings", "mountLabel", "devices", "intelRdt", "personality", "timeOffsets"] {
        assert!(!linux.contains_key(absent), "{absent}");
    }
    let kinds: Vec<_> = linux["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
    assert!(spec.get("hooks").is_none());
    assert_eq!(spec["annotations"]["io.kubernetes.cri.sandbox-id"], "p1");
}

#[test]
fn a_container_is_confined_by_default_and_a_privileged_one_is_not() {
    let linux = &json_of(&plan())["linux"];
    assert_eq!(linux["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(
        (linux["maskedPaths"].as_array().unwrap().len(), linux["readonlyPaths"].as_array().unwrap().len()),
        (11, 5)
    );
    let unmasked = Exposure { unmasked: true, ..Exposure::default() };
    let linux = &json_of(&ContainerPlan { exposure: unmasked, ..plan() })["linux"];
    assert!(linux.get("maskedPaths").is_none() && linux["seccomp"].is_object());
    let spec = json_of(&ContainerPlan { exposure: Exposure { privileged: true, ..Exposure::default() }, ..plan() });
    assert!(spec["linux"].get("seccomp").is_none() && spec["linux"].get("maskedPaths").is_none());
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    let mounts = spec["mounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| !mount["options"].as_array().unwrap().contains(&json!("ro"))));
}

#[test]
fn volumes_are_mounted_by_name_with_their_medium() {
    let cache = MountPlan::new(MountSource::PodVolume { name: "cache".into() }, "/var/cache/app");
    let options = MountOptions::with_access(Access::ReadOnly);
    let plan = ContainerPlan {
        mounts: vec![
            MountPlan { sub_path: Some("a/b".into()), options, ..cache },
            MountPlan::new(MountSource::NamedVolume { name: "db".into() }, "/data"),
            MountPlan::new(MountSource::Tmpfs { options: vec!["size=1m".into()] }, "/dev/shm/"),
        ],
        ..plan()
    };
    let spec = json_of(&plan);
    let mounts = spec["mounts"].as_array().unwrap();
    let find = |destination: &str| mounts.iter().find(|m| m["destination"] == destination).unwrap();
    assert_eq!(find("/var/cache/app")["options"], json!(["ro", "medium=memory", "size=4096", "subpath=a/b"]));
    assert_eq!(find("/data")["source"], "/volumes/db/data.img");
    assert_eq!(find("/data")["type"], "husk.disk");
    assert_eq!(find("/dev/shm/")["type"], "tmpfs");
    assert!(!mounts.iter().any(|m| m["destination"] == "/dev/shm"), "the default one is replaced");
    let place = |destination: &str| mounts.iter().position(|m| m["destination"] == destination).unwrap();
    assert!(place("/dev") < place("/dev/pts") && place("/sys") < place("/sys/fs/cgroup"));
    assert!(place("/data") < place("/var/cache/app"));
}

#[test]
fn every_kind_of_volume_has_its_mount() {
    let plain = MountOptions::default;
    let read_only = || MountOptions::with_access(Access::ReadOnly);
    let strict = || MountOptions::with_access(Access::RecursiveReadOnly);
    for (volume, options, expected) in [
        ("work", plain(), json!(["husk.volume", "work", ["rw", "medium=disk", "size=1048576", "gid=70"]])),
        ("work", strict(), json!(["husk.volume", "work", ["ro", "medium=disk", "size=1048576", "gid=70"]])),
        ("host", plain(), json!(["bind", "/srv/data", ["rbind", "rw", "rprivate"]])),
        ("host", read_only(), json!(["bind", "/srv/data", ["rbind", "ro", "rprivate"]])),
        ("host", strict(), json!(["bind", "/srv/data", ["rbind", "rro", "rprivate"]])),
        ("config", plain(), json!(["bind", "/pod/volumes/config", ["rbind", "ro", "rprivate"]])),
        ("tools", plain(), json!(["husk.disk", "/images/tools.erofs", ["ro", "fs=erofs", "device=/images/a"]])),
        ("claim", plain(), json!(["husk.disk", "/volumes/db/data.img", ["ro"]])),
    ] {
        assert_eq!(mounted(volume, None, options), expected);
    }
    let slave = MountOptions { propagation: Propagation::Slave, recursive: false, ..plain() };
    assert_eq!(mounted("host", Some("a"), slave), json!(["bind", "/srv/data", ["bind", "rw", "rslave", "subpath=a"]]));
    let flags = vec![MountFlag::NoSuid, MountFlag::NoDev, MountFlag::NoExec];
    let tools = mounted("tools", Some("bin"), MountOptions { flags, ..plain() });
    assert_eq!(tools[2], json!(["ro", "nosuid", "nodev", "noexec", "fs=erofs", "device=/images/a", "subpath=bin"]));
}

#[test]
fn a_mount_of_nothing_that_the_pod_has_is_refused() {
    let unknown = MountPlan::new(MountSource::PodVolume { name: "none".into() }, "/x");
    let error = build(&ContainerPlan { mounts: vec![unknown], ..plan() }, &image()).unwrap_err();
    assert_eq!(error, SpecError::Mount { container: "app".into(), destination: "/x".into() });
}

#[test]
fn root_is_refused_where_it_is_forbidden() {
    let user = UserPlan { must_not_be_root: true, ..UserPlan::default() };
    let plan = ContainerPlan { user, ..plan() };
    assert_eq!(build(&plan, &image()).unwrap_err(), SpecError::Root { container: "app".into() });
    assert!(build(&plan, &ImageFacts { uid: 7, ..image() }).is_ok());
}

#[test]
fn an_rlimit_replaces_the_default_of_its_name() {
    let rlimits = vec![Rlimit { name: "RLIMIT_NOFILE".into(), soft: 10, hard: 20 }];
    let spec = json_of(&ContainerPlan { rlimits, ..plan() });
    assert_eq!(spec["process"]["rlimits"], json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]));
    let unknown = vec![Rlimit { name: "RLIMIT_FUN".into(), soft: 1, hard: 1 }];
    assert!(build(&ContainerPlan { rlimits: unknown, ..plan() }, &image()).is_err());
}

#[test]
fn the_sandbox_says_how_large_the_vm_must_be() {
    let limited = |mib: u64| ContainerPlan {
        limits: Limits { memory: Some(mib << 20), cpu_milli: Some(500), ..Limits::default() },
        ..plan()
    };
    let pod = PodPlan {
        name: "foo".into(),
        hostname: "foo".into(),
        share_process_namespace: true,
        shm_size: Some(1 << 20),
        containers: vec![limited(256), limited(128)],
        ..PodPlan::default()
    };
    let spec = serde_json::to_value(sandbox("p1", &pod)).unwrap();
    let annotations = &spec["annotations"];
    assert_eq!(annotations["io.kubernetes.cri.container-type"], "sandbox");
    assert_eq!(annotations["io.kubernetes.cri.sandbox-memory"], "402653184");
    assert_eq!(annotations["io.kubernetes.cri.sandbox-cpu-quota"], "100000");
    assert_eq!(annotations["dev.husk.share-process-namespace"], "true");
    assert_eq!(annotations["dev.husk.shm-size"], "1048576");
    assert_eq!(spec["hostname"], "foo");
    assert!(spec.get("process").is_none());
}

#[test]
fn users_and_processes_may_be_others() {
    let users = Some(UsersPlan::default());
    let spec = build(&ContainerPlan { users: users.clone(), pids: PidPlan::Task(77), ..plan() }, &image()).unwrap();
    assert_eq!(users_of(&spec), users);
    let json = serde_json::to_value(spec).unwrap();
    let namespaces = json["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&json!({"type": "pid", "path": "/proc/77/ns/pid"})), "{namespaces:?}");
    assert!(namespaces.contains(&json!({"type": "user"})));
    assert_eq!(json["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 65536, "size": 65536}]));
    assert_eq!(users_of(&build(&plan(), &image()).unwrap()), None);
}

#[test]
fn a_privileged_exec_has_more_capabilities_than_its_container() {
    let first = build(&plan(), &image()).unwrap().process().clone().unwrap();
    let inputs = ExecInputs { args: vec!["id".into()], privileged: true, ..ExecInputs::default() };
    let process = exec_process("app", &first, inputs).unwrap();
    let json = serde_json::to_value(process).unwrap();
    let effective = json["capabilities"]["effective"].as_array().unwrap();
    assert!(
        effective.contains(&json!("CAP_SYS_ADMIN")) && !effective.contains(&json!("CAP_SYS_RAWIO")),
        "{effective:?}"
    );
}

#[test]
fn an_exec_is_like_the_first_process_with_changes() {
    let first = build(&plan(), &image()).unwrap().process().clone().unwrap();
    let inputs = ExecInputs {
        args: vec!["id".into()],
        env: vec![("LANG".into(), "fr".into())],
        terminal: true,
        user: Some((1000, 1000, vec![44], "/home/u".into())),
        ..ExecInputs::default()
    };
    let process = exec_process("app", &first, inputs).unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &["id"]);
    let env = process.env().clone().unwrap();
    assert!(env.contains(&"LANG=fr".into()) && !env.contains(&"LANG=C".into()) && env.contains(&"HOME=/home/u".into()));
    assert_eq!((process.user().uid(), process.terminal()), (1000, Some(true)));
    assert!(process.capabilities().as_ref().unwrap().effective().as_ref().unwrap().is_empty());
    assert_eq!(process.cwd(), first.cwd());
}
