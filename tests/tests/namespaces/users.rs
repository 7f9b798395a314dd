//! User namespaces of `husk kube play` and `husk run`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use husk_tests::fixture::Husk;

#[test]
fn a_pod_without_the_hosts_users_has_ids_of_its_own() {
    let husk = Husk::new();
    let host = tempfile::tempdir_in("/run").unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(host.path().join("roots"), "root's\n").unwrap();
    fs::write(host.path().join("users"), "user's\n").unwrap();
    chown(host.path().join("users"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(host.path().join("users"), fs::Permissions::from_mode(0o600)).unwrap();
    let manifest = husk.play_text(&format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{colour: red}}
---
apiVersion: v1
kind: Pod
metadata: {{name: foo}}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 0
  securityContext: {{fsGroup: 70}}
  volumes:
    - {{name: disk, emptyDir: {{}}}}
    - {{name: memory, emptyDir: {{medium: Memory}}}}
    - {{name: host, hostPath: {{path: {host}}}}}
    - {{name: settings, configMap: {{name: settings}}}}
  containers:
    - name: app
      image: busybox
      command: [sleep, '1234']
      volumeMounts: &mounts
        - {{name: disk, mountPath: /disk}}
        - {{name: memory, mountPath: /memory}}
        - {{name: host, mountPath: /host}}
        - {{name: settings, mountPath: /settings}}
    - name: user
      image: busybox
      command: [sleep, '5678']
      securityContext: {{runAsUser: 1000, runAsGroup: 1000}}
      volumeMounts: *mounts
",
        host = host.path().display()
    ));
    let app = |script: &str| husk.sh("foo-app", script);
    assert_eq!(app("tr -s ' ' </proc/self/uid_map | xargs"), "0 65536 65536");
    assert_eq!(app("id -u; id -g"), "0\n0");
    let owners =
        app("stat -c '%u %g %n' / /etc/passwd /disk /memory /host /settings/..data/colour /etc/hosts /dev/shm");
    let groups = ["0 0 /", "0 0 /etc/passwd", "0 70 /disk", "0 70 /memory", "0 0 /host"];
    assert_eq!(owners.lines().take(5).collect::<Vec<_>>(), groups, "{owners}");
    assert!(owners.lines().skip(5).all(|line| line.starts_with("0 ")), "{owners}");
    // What one writes the other reads, with the same owners; and so does the host.
    app(
        "echo app >/disk/app; echo app >/memory/app; echo app >/host/app; chown 1000:5 /host/app; echo app >/dev/shm/app",
    );
    let user = "cat /disk/app /memory/app /host/app /host/users /settings/colour /dev/shm/app; echo user >/disk/user";
    assert_eq!(husk.sh("foo-user", user), "app\napp\napp\nuser's\nredapp");
    assert_eq!(app("stat -c '%u %g' /disk/user /disk/app /host/app"), "1000 70\n0 70\n1000 5");
    let written = fs::metadata(host.path().join("app")).unwrap();
    assert_eq!((written.uid(), written.gid()), (1000, 5));
    husk.run(&["exec", "foo-user", "sh", "-c", "echo x >>/host/roots"]).fails_saying(&["Permission denied"]);
    // A subdirectory of the root that users may write, streams, terminals and devices.
    assert_eq!(
        husk.sh("foo-user", "echo out >/proc/self/fd/1; echo x >/dev/null; touch /tmp/x; stat -c %u /tmp/x"),
        "out\n1000"
    );
    let terminal = husk.at_terminal(&["exec", "-it", "foo-user", "sh", "-c", "tty; stat -c %u $(tty)"]);
    terminal.shows("/dev/pts/0\r\n1000");
    assert_eq!(terminal.ends(), 0);
    // Its root is not the machine's.
    husk.run(&["exec", "--privileged", "foo-app", "mknod", "/tmp/null", "c", "1", "3"])
        .fails_saying(&["Operation not permitted"]);
    husk.run(&["exec", "--privileged", "foo-app", "sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"])
        .fails_saying(&["drop_caches"]);
    let top = husk.ok(&["top", "foo-user", "user", "args"]);
    assert!(top.lines().any(|line| line.split_whitespace().eq(["1000", "sleep", "5678"])), "{top}");
    // A temporary container is in the same namespace, or it could not look.
    let seen =
        husk.ok(&["debug", "foo-user", "--", "sh", "-c", "cat /proc/1/root/disk/app; xargs </proc/self/uid_map"]);
    assert_eq!(seen, "app\n0 65536 65536");
    husk.down(&manifest);
}

#[test]
fn processes_and_user_namespace_are_shared_together() {
    let husk = Husk::new();
    let manifest = husk.play_text(
        "
apiVersion: v1
kind: Pod
metadata: {name: foo}
spec:
  hostUsers: false
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 0
  containers:
    - {name: app, image: busybox, command: [sleep, '1234']}
    - {name: other, image: busybox, command: [sleep, '5678'], securityContext: {capabilities: {add: [SYS_PTRACE]}}}
",
    );
    let app = husk.sh(
        "foo-other",
        "pidof sleep | tr ' ' '\\n' | while read p; do grep -q 1234 /proc/$p/cmdline && echo $p; done; true",
    );
    assert_eq!(
        husk.sh("foo-other", &format!("ls /proc/{app}/root/etc/passwd; readlink /proc/self/ns/user")).lines().count(),
        2
    );
    assert_eq!(husk.sh("foo-app", "readlink /proc/self/ns/user"), husk.sh("foo-other", "readlink /proc/self/ns/user"));
    husk.down(&manifest);
}

#[test]
fn ids_are_chosen_by_flags_as_with_podman() {
    let husk = Husk::new();
    let map = |flags: &[&str]| {
        let command =
            ["busybox", "sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map | xargs -n 3; stat -c %u /bin"];
        husk.ok(&[&["run", "--rm"], flags, &command].concat())
    };
    assert_eq!(map(&["--userns", "auto"]), "0 65536 65536\n0 65536 65536\n0");
    assert_eq!(map(&["--userns", "host"]), "0 0 4294967295\n0 0 4294967295\n0");
    assert_eq!(map(&["--uidmap", "0:100000:1000", "--gidmap", "0:7:10"]), "0 100000 1000\n0 7 10\n0");
    husk.run(&["run", "--rm", "--userns", "keep-id", "busybox", "true"]).fails_saying(&["keep-id", "auto"]);
    husk.run(&["run", "--rm", "--uidmap", "1:1:1", "busybox", "true"]).fails_saying(&["linux.uidMappings", "id 0"]);
    husk.run(&["run", "--rm", "--userns", "auto", "-u", "70000", "busybox", "true"]).fails_saying(&["70000"]);
    let privileged =
        "mount -t tmpfs x /home && stat -c %u /home; echo 3 >/proc/sys/vm/drop_caches || stat -c %u /dev/fuse";
    let seen = husk.run(&["run", "--rm", "--privileged", "--userns", "auto", "busybox", "sh", "-c", privileged]);
    assert_eq!(seen.success().text(), "0\n0");
    // What is the host's keeps its owners unless it is asked to; a volume has none but the container's.
    let host = tempfile::tempdir_in("/run").unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let bind = |options: &str| format!("{}:/host{options}", host.path().display());
    let owner = |volume: &str| {
        husk.ok(&["run", "--rm", "--userns", "auto", "-v", volume, "busybox", "stat", "-c", "%u", "/host"])
    };
    assert_eq!(
        (owner(&bind("")), owner(&bind(":idmap")), owner("ids:/host")),
        ("65534".into(), "0".into(), "0".into())
    );
    husk.ok(&["run", "--rm", "--read-only", "--userns", "auto", "busybox", "stat", "/bin"]);
    husk.ok(&["volume", "rm", "ids"]);
    husk.run(&["run", "--rm", "-v", &bind(":idmap"), "busybox", "true"]).fails_saying(&["idmap", "user namespace"]);
}
