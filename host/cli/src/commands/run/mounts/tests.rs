use super::*;
use crate::error::report;

fn of(text: &str) -> MountPlan {
    mount(text, PullPolicy::Never).unwrap_or_else(|error| panic!("{}", report(&error)))
}

fn bad_mount(text: &str) -> String {
    report(&mount(text, PullPolicy::Missing).expect_err(text))
}

#[test]
fn a_name_is_a_volume() {
    let plan = volume("db:/var/lib/db:ro,nosuid").unwrap();
    assert_eq!(plan.source, MountSource::NamedVolume { name: "db".into() });
    assert_eq!((plan.options.access, plan.destination.as_str()), (Access::ReadOnly, "/var/lib/db"));
    assert_eq!(plan.options.flags, [MountFlag::NoSuid]);
    for bad in [
        "db",
        "db:data",
        "db:/",
        "db:/x:fun",
        "db:/x:ro:y",
        "a b:/x",
        ":/x",
        "db:/a/../b",
        "~/x:/x",
        "db:/x:rslave",
        "/data",
        "",
    ] {
        assert!(volume(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_path_is_of_the_host_and_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().to_str().unwrap();
    let plan = volume(&format!("{host}:/data:rro,rslave,noexec,z")).unwrap();
    assert_eq!(plan.source, MountSource::Host { path: dir.path().to_owned() });
    let options = MountOptions {
        access: Access::RecursiveReadOnly,
        recursive: true,
        propagation: Propagation::Slave,
        id_mapped: false,
        flags: vec![MountFlag::NoExec],
    };
    assert_eq!(plan.options, options);
    assert_eq!(volume(&format!("{host}:/data")).unwrap().options, MountOptions::default());
    assert!(!volume(&format!("{host}:/data:bind")).unwrap().options.recursive);
    let here = volume(".:/src").unwrap();
    assert_eq!(here.source, MountSource::Host { path: std::env::current_dir().unwrap() });

    let text = report(&volume(&format!("{host}/absent:/x")).unwrap_err());
    assert!(text.contains(&format!("{host}/absent: No such file")) && text.contains("hint: make it first"), "{text}");
    let text = report(&volume("/dev/null:/x").unwrap_err());
    assert!(text.contains("character device"), "{text}");
    assert!(volume(&format!("{host}:/x:bind,rslave")).is_err());
    for shared in ["rshared", "shared"] {
        let text = report(&volume(&format!("{host}:/x:{shared}")).unwrap_err());
        assert!(text.contains("cannot appear on the host") && text.contains("rslave"), "{text}");
    }
}

#[test]
fn every_type_of_mount_has_its_fields() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().to_str().unwrap();
    let bind = of(&format!("type=bind,source={host},target=/data,readonly,bind-propagation=rslave"));
    assert_eq!((bind.options.access, bind.options.propagation), (Access::ReadOnly, Propagation::Slave));
    let recursive = of(&format!("type=bind,src={host},dst=/data,ro,bind-recursive=readonly"));
    assert_eq!(recursive.options.access, Access::RecursiveReadOnly);
    assert!(!of(&format!("type=bind,src={host},dst=/data,bind-nonrecursive")).options.recursive);
    assert_eq!(of(&format!("type=bind,src={host},dst=/data,ro=false")).options.access, Access::ReadWrite);

    let named = of("src=db,dst=/db,subpath=a/b");
    assert_eq!(named.source, MountSource::NamedVolume { name: "db".into() });
    assert_eq!(named.sub_path.as_deref(), Some("a/b"));

    let memory = of("type=tmpfs,dst=/tmp,tmpfs-size=1m,tmpfs-mode=1777,noexec");
    assert_eq!(memory.source, MountSource::Tmpfs { options: vec!["size=1048576".into(), "mode=1777".into()] });

    let image = of("type=image,src=busybox,dst=/image,subpath=bin");
    let expected = ImageSource { reference: "busybox".into(), pull: PullPolicy::Never };
    assert_eq!(image.source, MountSource::Image(expected));
    assert_eq!(image.options.access, Access::ReadOnly);
}

#[test]
fn mounts_that_make_no_sense_name_what_is_wrong() {
    for (text, expected) in [
        ("type=bind,dst=/x", "src= is missing"),
        ("type=volume,src=db", "dst= is missing"),
        ("type=image,src=busybox,dst=/x,rw", "cannot be written"),
        ("type=tmpfs,src=x,dst=/x", "a tmpfs has no src"),
        ("type=tmpfs,dst=/x,tmpfs-mode=9", "no octal mode"),
        ("type=tmpfs,dst=/x,subpath=a", "no subpath"),
        ("src=db,dst=/x,tmpfs-size=1m", "are for type=tmpfs"),
        ("src=db,dst=/x,subpath=../y", "must be relative"),
        ("src=db,dst=/x,bind-propagation=rslave", "for directories of the host"),
        ("src=db,dst=/x,bind-propagation=rshared", "cannot appear on the host"),
        ("src=db,dst=/x,ro=maybe", "neither true nor false"),
        ("src=db,dst=/x,colour=red", "colour is not known"),
        ("src=db,dst=x", "must be an absolute path"),
        ("type=npipe,src=db,dst=/x", "type npipe is not supported"),
        ("type=fun,src=db,dst=/x", "none of bind, volume"),
    ] {
        let told = bad_mount(text);
        assert!(told.contains(expected) && told.contains(text), "{told}");
    }
}

#[test]
fn a_tmpfs_has_options() {
    let plan = tmpfs("/run:size=1m,ro").unwrap();
    assert_eq!(plan.options.access, Access::ReadOnly);
    assert_eq!(plan.source, MountSource::Tmpfs { options: vec!["size=1m".into()] });
    assert!(tmpfs("run").is_err());
}
