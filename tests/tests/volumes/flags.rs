//! `-v`, `--mount`, `--tmpfs` and `--shm-size`.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use husk_tests::fixture::{Husk, wait_until};

use super::{Host, Tmpfs};

#[test]
fn a_directory_of_the_host_is_read_and_written_with_its_owners() {
    let husk = Husk::new();
    let host = Host::new();
    host.write("from-host", "hello\n");
    fs::set_permissions(host.path("from-host"), Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(host.path("from-host"), Some(1234), Some(2345)).unwrap();
    let script = "cat /data/from-host; stat -c '%u:%g %a' /data/from-host
        echo back >/data/from-guest; chown 77:88 /data/from-guest; chmod 600 /data/from-guest; ln -s x /data/link";
    let output = husk.ok(&["run", "--rm", "-v", &host.volume(":/data"), "busybox", "sh", "-c", script]);
    assert_eq!(output, "hello\n1234:2345 640");
    let made = fs::metadata(host.path("from-guest")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (77, 88, 0o600));
    assert_eq!(host.read("from-guest"), "back\n");
    assert_eq!(fs::read_link(host.path("link")).unwrap(), Path::new("x"));

    // A path relative to where husk is run, and one file alone.
    let mut command = husk.command(["run", "--rm", "-v", "./from-guest:/etc/one", "busybox", "cat", "/etc/one"]);
    let output = command.current_dir(host.0.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "back\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn read_only_means_that_nothing_can_be_changed() {
    let husk = Husk::new();
    let host = Host::new();
    host.write("dir/file", "as it was\n");
    host.write("single", "as it was\n");
    let below = Tmpfs::mount(host.path("dir/below"));
    fs::write(below.0.join("file"), "as it was\n").unwrap();
    // The guest's own flag is no wall: it goes first.
    let script = "mount -o remount,rw /ro; for change in 'echo x >/ro/file' 'rm /ro/file' 'mv /ro/file /ro/other' 'mkdir /ro/new' \
            'chmod 777 /ro/file' 'chown 1 /ro/file' 'touch -d @1 /ro/file' 'ln /ro/file /ro/hard' 'ln -s x /ro/soft' \
            'mknod /ro/fifo p' 'truncate -s 0 /ro/file' 'echo x >/etc/single' 'echo x >/rro/below/file'; do
            sh -c \"$change\" 2>/dev/null && echo \"done: $change\"
        done; cat /ro/file /etc/single /rro/below/file";
    let (ro, rro) = (host.volume("/dir:/ro:ro"), host.volume("/dir:/rro:rro"));
    let single = format!("type=bind,src={},dst=/etc/single,readonly", host.path("single").display());
    let capability = ["--cap-add", "SYS_ADMIN", "--cap-add", "MKNOD"];
    let arguments = [
        &["run", "--rm", "-v", &ro, "-v", &rro, "--mount", &single][..],
        &capability[..],
        &["busybox", "sh", "-c", script][..],
    ]
    .concat();
    assert_eq!(husk.ok(&arguments), "as it was\nas it was\nas it was");
    assert_eq!((host.read("dir/file"), host.read("single")), ("as it was\n".into(), "as it was\n".into()));
    assert_eq!(fs::read_dir(host.path("dir")).unwrap().count(), 2);
    drop(below);
}

#[test]
fn mounts_below_a_read_only_directory_are_as_the_host_has_them() {
    let husk = Husk::new();
    let host = Host::new();
    host.write("dir/file", "as it was\n");
    let below = Tmpfs::mount(host.path("dir/below"));
    let ro = host.volume("/dir:/ro:ro");
    let script =
        "echo x >/ro/below/new; echo x 2>/dev/null >/ro/file; mkdir /ro/new 2>/dev/null; cat /ro/file /ro/below/new";
    assert_eq!(husk.ok(&["run", "--rm", "-v", &ro, "busybox", "sh", "-c", script]), "as it was\nx");
    assert_eq!(fs::read_dir(host.path("dir")).unwrap().count(), 2);
    drop(below);
}

#[test]
fn mounts_of_the_host_show_as_the_flags_say() {
    let husk = Husk::new();
    let host = Host::new();
    // Shared, as systemd makes every mount of a host: others would send no news of their mounts to anybody.
    let shared = Tmpfs::mount(host.path("shared"));
    assert!(Command::new("mount").arg("--make-shared").arg(&shared.0).status().unwrap().success());
    let early = Tmpfs::mount(host.path("shared/early"));
    fs::write(early.0.join("file"), "").unwrap();
    fs::create_dir(host.path("shared/late")).unwrap();
    let (with, without) = (host.volume("/shared:/with"), host.volume("/shared:/without:bind"));
    let follows = host.volume("/shared:/follows:rslave");
    let volumes = ["-v", &with, "-v", &without, "-v", &follows];
    let arguments = [&["run", "-d", "--name", "mounts"][..], &volumes[..], &["busybox", "sleep", "1000"][..]].concat();
    husk.ok(&arguments);
    let list = |dir: &str| husk.sh("mounts", &format!("ls {dir}"));
    assert_eq!((list("/with/early"), list("/without/early")), ("file".into(), String::new()));
    let late = Tmpfs::mount(host.path("shared/late"));
    fs::write(late.0.join("file"), "").unwrap();
    wait_until("the host's new mount to show", 10, || list("/follows/late") == "file");
    assert_eq!(list("/with/late"), "", "it is private");
    husk.ok(&["rm", "-f", "mounts"]);
    drop((late, early, shared));
}

#[test]
fn what_cannot_be_mounted_is_refused_and_leaves_nothing() {
    let husk = Husk::new();
    let host = Host::new();
    let absent = host.path("absent").display().to_string();
    for (flag, value, words) in [
        ("-v", host.volume("/absent:/x"), vec![absent.as_str(), "no such file"]),
        ("-v", host.volume(":/x:rshared"), vec!["rshared", "cannot appear on the host"]),
        ("-v", host.volume(":/x:fun"), vec!["option fun"]),
        ("-v", "/dev/null:/x".into(), vec!["/dev/null", "character device"]),
        ("--mount", "type=bind,dst=/x".into(), vec!["src="]),
        ("--mount", "type=image,src=no/such-image,dst=/x".into(), vec!["/x", "no/such-image"]),
    ] {
        husk.run(&["run", "--rm", flag, &value, "busybox", "true"]).fails_saying(&words);
        husk.leaves_nothing();
    }
    assert!(!host.path("absent").exists());
}

#[test]
fn what_the_host_changes_is_seen() {
    let husk = Husk::new();
    let host = Host::new();
    host.write("file", "first");
    // As kubelet lays a ConfigMap out.
    host.write("..1/key", "first");
    symlink("..1", host.path("..data")).unwrap();
    symlink("..data/key", host.path("key")).unwrap();
    husk.ok(&["run", "-d", "--name", "live", "-v", &host.volume(":/live:ro"), "busybox", "sleep", "1000"]);
    let read = |name: &str| husk.sh("live", &format!("cat /live/{name}"));
    assert_eq!((read("file"), read("key")), ("first".into(), "first".into()));
    host.write("file", "rewritten");
    wait_until("the rewritten file", 10, || read("file") == "rewritten");
    host.write("new", "replaced");
    fs::rename(host.path("new"), host.path("file")).unwrap();
    wait_until("the file that took its place", 10, || read("file") == "replaced");
    host.write("..2/key", "second");
    symlink("..2", host.path("..data_tmp")).unwrap();
    fs::rename(host.path("..data_tmp"), host.path("..data")).unwrap();
    fs::remove_dir_all(host.path("..1")).unwrap();
    wait_until("the swapped set", 10, || read("key") == "second");
    fs::remove_file(host.path("file")).unwrap();
    wait_until("the removal", 10, || husk.sh("live", "ls /live") == "key");
    husk.ok(&["rm", "-f", "live"]);
}

#[test]
fn a_socket_of_the_host_is_reached() {
    let husk = Husk::new();
    let host = Host::new();
    let listener = UnixListener::bind(host.path("socket")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /version "), "{request:?}");
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello from the host\n").unwrap();
    });
    let pod = husk.play_text(&host.manifest(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: socket}
spec:
  volumes: [{name: api, hostPath: {path: HOST/socket, type: Socket}}]
  containers:
    - {name: app, image: curlimages/curl, command: [sleep, "1000"], securityContext: {runAsUser: 0}, volumeMounts: [{name: api, mountPath: /run/api.sock}]}
"#,
    ));
    assert_eq!(husk.sh("socket-app", "curl -s --unix-socket /run/api.sock http://host/version"), "hello from the host");
    server.join().unwrap();
    husk.down(&pod);
}

#[test]
fn shared_memory_and_tmpfs_have_the_sizes_of_their_flags() {
    let husk = Husk::new();
    let script = "df -k /dev/shm /cache | awk 'NR > 1 { print $2 }'; stat -c %a /cache";
    let flags = ["--shm-size", "3m", "--mount", "type=tmpfs,dst=/cache,tmpfs-size=2m,tmpfs-mode=1750"];
    let arguments = [&["run", "--rm"][..], &flags[..], &["busybox", "sh", "-c", script][..]].concat();
    assert_eq!(husk.ok(&arguments), "3072\n2048\n1750");
}
