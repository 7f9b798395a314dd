use serde_json::{Value, json};

use super::*;

fn users() -> v1::IdMaps {
    let list = vec![v1::IdMap { container_id: 0, host_id: 1000, size: 10 }];
    v1::IdMaps { uids: list.clone(), gids: list }
}

fn parse(mount: Value) -> Result<PlannedMount, SpecError> {
    let list = mounts(&[serde_json::from_value(mount).unwrap()], Some(&users()))?;
    Ok(list.into_iter().next().unwrap())
}

fn of_type(typ: &str, source: &str, options: &[&str]) -> Result<PlannedMount, SpecError> {
    parse(json!({"destination": "/x", "type": typ, "source": source, "options": options}))
}

#[test]
fn kernel_file_systems_keep_flags_and_data() {
    let mount = of_type("tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]).unwrap();
    assert_eq!(mount.flags, libc::MS_NOSUID | libc::MS_STRICTATIME);
    assert_eq!(mount.source, MountSource::Kernel { fs_type: "tmpfs".into(), data: "mode=755,size=65536k".into() });
}

#[test]
fn either_cgroup_version_means_version_two() {
    let mount = of_type("cgroup", "cgroup", &["ro", "nosuid"]).unwrap();
    assert!(mount.read_only());
    assert_eq!(mount.source, MountSource::Kernel { fs_type: "cgroup2".into(), data: String::new() });
}

#[test]
fn later_options_win() {
    assert!(!of_type("tmpfs", "", &["ro", "rw"]).unwrap().read_only());
    assert_eq!(of_type("tmpfs", "", &["nosuid", "suid"]).unwrap().flags, 0);
}

fn host_tree_of(mount: Value) -> HostTree {
    match parse(mount).unwrap().source {
        MountSource::Host(tree) => tree,
        other => panic!("{other:?}"),
    }
}

#[test]
fn host_directories_are_bind_mounts_however_they_are_spelt() {
    for mount in [
        json!({"destination": "/x", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]}),
        json!({"destination": "/x", "type": "none", "source": "/etc", "options": ["rbind", "rprivate"]}),
        json!({"destination": "/x", "type": "tmpfs", "source": "/etc", "options": ["rbind"]}),
        json!({"destination": "/x", "type": "bind", "source": "/etc"}),
    ] {
        let tree = host_tree_of(mount);
        assert_eq!((tree.source, tree.recursive, tree.follows_host), ("/etc".into(), true, false));
    }
    let single = host_tree_of(json!({"destination": "/x", "source": "/etc", "options": ["bind"]}));
    assert!(!single.recursive);
}

#[test]
fn host_directories_follow_the_host_or_not() {
    let tree = of_type("bind", "/mnt", &["rbind", "rslave", "rro", "subpath=a"]).unwrap();
    assert!(tree.read_only());
    let MountSource::Host(tree) = tree.source else { panic!() };
    assert_eq!((tree.follows_host, tree.sub_path.as_str()), (true, "a"));
    for options in [&["rbind", "rshared"][..], &["bind", "rslave"], &["rbind", "x-new"], &["subpath=../x"]] {
        assert_eq!(of_type("bind", "/mnt", options).unwrap_err().field(), "mounts[0].options", "{options:?}");
    }
    assert_eq!(of_type("bind", "mnt", &[]).unwrap_err().field(), "mounts[0].source");
}

#[test]
fn volumes_carry_medium_size_and_sub_path() {
    let mount = of_type("husk.volume", "cache", &["rw", "medium=memory", "size=1048576", "subpath=a/b"]).unwrap();
    let volume =
        VolumeWanted { name: "cache".into(), medium: Some(Medium::Memory { size_bytes: 1_048_576 }), gid: None };
    assert_eq!(mount.source, MountSource::Volume { volume, sub_path: "a/b".into() });
    let plain = of_type("husk.volume", "cache", &["ro"]).unwrap();
    assert!(plain.read_only());
    let volume = VolumeWanted { name: "cache".into(), medium: None, gid: None };
    assert_eq!(plain.source, MountSource::Volume { volume, sub_path: String::new() });
}

#[test]
fn a_volume_has_a_size_on_either_medium() {
    for options in [&["size=5"][..], &["medium=disk", "size=5"]] {
        let mount = of_type("husk.volume", "v", options).unwrap();
        let MountSource::Volume { volume, .. } = mount.source else { panic!() };
        assert_eq!(volume.medium, Some(Medium::Disk { size_bytes: 5 }));
    }
    let mount = of_type("husk.volume", "v", &["gid=70"]).unwrap();
    assert!(matches!(mount.source, MountSource::Volume { volume: VolumeWanted { gid: Some(70), .. }, .. }));
    for bad in ["gid=-1", "gid=4294967295", "gid=staff", "size=-5", "size=0", "size=1k", "medium=tape"] {
        assert_eq!(of_type("husk.volume", "v", &[bad]).unwrap_err().field(), "mounts[0].options", "{bad}");
    }
}

#[test]
fn a_sub_path_stays_below_its_volume() {
    for bad in ["subpath=../x", "subpath=a/../../x", "subpath=/etc", "subpath=a/.."] {
        assert!(of_type("husk.volume", "v", &[bad]).is_err(), "{bad}");
    }
}

#[test]
fn a_mount_has_its_own_mappings_or_the_containers() {
    for option in ["idmap", "ridmap"] {
        let mount = of_type("husk.volume", "v", &[option]).unwrap();
        assert_eq!(mount.id_maps, Some(users()));
        assert_eq!(of_type("bind", "/mnt", &["rbind", option]).unwrap().id_maps, Some(users()));
    }
    assert_eq!(of_type("bind", "/mnt", &[]).unwrap().id_maps, None);
    let own = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
    let with =
        |typ: &str| json!({"destination": "/x", "type": typ, "source": "/s", "uidMappings": own, "gidMappings": own});
    assert_eq!(parse(with("bind")).unwrap().id_maps.unwrap().uids[0].host_id, 7);
    assert_eq!(parse(with("tmpfs")).unwrap_err().field(), "mounts[0].uidMappings");
    let bare: Mount =
        serde_json::from_value(json!({"destination": "/x", "type": "bind", "source": "/s", "options": ["idmap"]}))
            .unwrap();
    assert_eq!(mounts(&[bare], None).unwrap_err().field(), "mounts[0].options");
}

#[test]
fn volume_names_are_ids_and_not_ours() {
    for bad in ["", "../x", "a/b", "husk.disk.1"] {
        assert_eq!(of_type("husk.volume", bad, &[]).unwrap_err().field(), "mounts[0].source");
    }
}

#[test]
fn a_disk_is_an_absolute_path() {
    let mount = of_type("husk.disk", "/var/lib/husk/volumes/db/data.img", &["ro"]).unwrap();
    assert!(mount.read_only());
    assert!(of_type("husk.disk", "data.img", &[]).is_err());
    assert!(of_type("husk.disk", "/i.erofs", &["fs=erofs"]).unwrap().read_only());
    let several = of_type("husk.disk", "/i", &["fs=erofs", "device=/a", "device=/b"]).unwrap().source;
    assert!(matches!(several, MountSource::Disk { image, .. } if image.more == ["/a", "/b"].map(PathBuf::from)));
    for bad in [&["device=/a"][..], &["fs=erofs", "device=a"], &["fs=vfat"]] {
        assert!(of_type("husk.disk", "/i", bad).is_err());
    }
}

#[test]
fn pod_files_are_three() {
    for good in ["hosts", "hostname", "resolv.conf"] {
        of_type("husk.pod-file", good, &["ro"]).unwrap();
    }
    assert!(of_type("husk.pod-file", "shadow", &[]).is_err());
}

#[test]
fn unknown_types_and_options_are_refused() {
    assert_eq!(of_type("nfs", "server:/", &[]).unwrap_err().field(), "mounts[0].type");
    assert_eq!(of_type("husk.shm", "shm", &["size=5"]).unwrap_err().field(), "mounts[0].options");
    assert_eq!(of_type("tmpfs", "", &["rshared"]).unwrap_err().field(), "mounts[0].options");
    assert_eq!(of_type("tmpfs", "", &["rslave"]).unwrap_err().field(), "mounts[0].options");
    assert_eq!(of_type("husk.volume", "v", &["rbind"]).unwrap_err().field(), "mounts[0].options");
}

#[test]
fn destinations_are_absolute() {
    assert_eq!(parse(json!({"destination": "x", "type": "proc"})).unwrap_err().field(), "mounts[0].destination");
}
