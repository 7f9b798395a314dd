//! What of the host a container sees, and what it may change: `-v` and `--mount`, hostPath, files from ConfigMaps and
//! Secrets, subPath, images as volumes, sizes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_tests::fixture::{Husk, manifest_file, wait_until};
use tempfile::TempDir;

/// A directory of the host, which the manifest calls HOST.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let directory = TempDir::with_prefix("host-").unwrap();
        // As /srv has it: everybody may enter.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn volume(&self, rest: &str) -> String {
        format!("{}{rest}", self.0.path().display())
    }

    fn manifest(&self, text: &str) -> String {
        text.replace("HOST", &self.0.path().to_string_lossy())
    }
}

/// A tmpfs on the host, gone with its value.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&at).status().unwrap();
        assert!(mounted.success(), "cannot mount a tmpfs at {}", at.display());
        Self(at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

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
fn files_of_config_maps_and_secrets_are_as_in_kubernetes() {
    let husk = Husk::new();
    let maps = manifest_file("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {more: yes please}\n");
    let manifest = manifest_file(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red, app.conf: "listen 80\n"}
binaryData: {bytes: AAECAw==}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {user: admin, password: hunter2}
---
apiVersion: v1
kind: Pod
metadata: {name: files, labels: {tier: web}}
spec:
  volumes:
    - {name: config, configMap: {name: settings, items: [{key: app.conf, path: etc/app.conf, mode: 0640}, {key: bytes, path: bytes}]}}
    - {name: login, secret: {secretName: login, defaultMode: 0400}}
    - name: all
      projected:
        sources:
          - {configMap: {name: extra}}
          - {secret: {name: login, items: [{key: password, path: secret/password}]}}
          - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
    - {name: own, downwardAPI: {items: [{path: memory, resourceFieldRef: {containerName: app, resource: limits.memory, divisor: 1Mi}}]}}
  containers:
    - name: app
      image: busybox
      command: [sh, -c, "echo $(PASSWORD); sleep 1000"]
      envFrom: [{configMapRef: {name: extra}}]
      env:
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
        - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
      resources: {limits: {memory: 64Mi}}
      volumeMounts:
        - {name: config, mountPath: /config}
        - {name: login, mountPath: /login}
        - {name: all, mountPath: /all}
        - {name: own, mountPath: /own}
        - {name: config, mountPath: /etc/one.conf, subPath: etc/app.conf}
"#,
    );
    let file = manifest.to_string_lossy();
    husk.run(&["kube", "play", "--configmap", &maps.to_string_lossy(), &file]).success();
    let sh = |script: &str| husk.sh("files-app", script);
    assert_eq!(
        sh("cat /config/etc/app.conf /etc/one.conf; od -An -tx1 /config/bytes"),
        "listen 80\nlisten 80\n 00 01 02 03"
    );
    let links =
        "for l in /config/etc /login/user /config/..data; do readlink $l; done | sed 's/[0-9]/N/g' | cut -c -12";
    assert_eq!(sh(links), "..data/etc\n..data/user\n..NNNN_NN_NN");
    assert_eq!(
        sh("stat -L -c '%a %u:%g' /config/etc/app.conf /config/bytes /login/password"),
        "640 0:0\n644 0:0\n400 0:0"
    );
    assert_eq!(
        sh("cat /login/user; echo; cat /all/more /all/secret/password /all/labels /own/memory"),
        "admin\nyes pleasehunter2tier=\"web\"64"
    );
    assert_eq!(sh("echo $more; echo $COLOUR; echo $PASSWORD"), "yes please\nred\nhunter2");
    let refused =
        sh("for f in /config/new /login/new /etc/one.conf /all/more; do echo x 2>/dev/null >$f || echo refused; done");
    assert_eq!(refused, "refused\nrefused\nrefused\nrefused");

    // Nobody is told the secret: neither by what shows containers nor by any log or record.
    for told in [husk.ok(&["inspect", "files-app"]), husk.ok(&["pod", "inspect", "files"]), husk.ok(&["ps", "-a"])] {
        assert!(!told.contains("hunter2"), "{told}");
    }
    let mut grep = Command::new("grep");
    grep.args(["-rl", "--include=*.log", "--include=pod.json", "hunter2"]).arg(husk.run_dir());
    let found = grep.output().unwrap();
    // The container itself has just said it.
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.lines().all(|path| path.ends_with("/logs/app.log")), "{found}");
    // Taken down without the other file.
    husk.ok(&["kube", "down", &file]);
}

#[test]
fn a_pods_group_may_read_its_files() {
    let husk = Husk::new();
    let pod = husk.play_text(
        r#"
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: hunter2}
---
apiVersion: v1
kind: Pod
metadata: {name: group}
spec:
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 3000}
  volumes: [{name: login, secret: {secretName: login, defaultMode: 0400}}]
  containers:
    - name: app
      image: busybox
      command: [sleep, "1000"]
      volumeMounts: [{name: login, mountPath: /login}]
"#,
    );
    assert_eq!(husk.sh("group-app", "id -G; cat /login/password"), "1000 3000\nhunter2");
    let modes = husk.sh("group-app", "stat -L -c '%a %g' /login /login/..data /login/password");
    assert_eq!(modes, "2777 3000\n2755 3000\n440 3000");
    husk.down(&pod);
}

#[test]
fn two_containers_see_one_file_through_their_sub_paths() {
    let husk = Husk::new();
    let host = Host::new();
    let pod = husk.play_text(&host.manifest(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: sub}
spec:
  volumes: [{name: data, hostPath: {path: HOST, type: Directory}}, {name: own, emptyDir: {}}]
  containers:
    - name: one
      image: busybox
      command: [sleep, "1000"]
      env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
      volumeMounts:
        - {name: data, mountPath: /logs, subPathExpr: logs/$(POD)}
        - {name: own, mountPath: /own, subPath: a}
    - name: two
      image: busybox
      command: [sleep, "1000"]
      volumeMounts:
        - {name: data, mountPath: /everything}
        - {name: data, mountPath: /same, subPath: logs/sub, readOnly: true}
        - {name: own, mountPath: /own}
"#,
    ));
    husk.sh("sub-one", "echo one >/logs/file; echo own >/own/file");
    assert_eq!(husk.sh("sub-two", "cat /everything/logs/sub/file /same/file /own/a/file"), "one\none\nown");
    husk.sh("sub-two", "echo two >>/everything/logs/sub/file");
    husk.sh("sub-one", "echo three >>/logs/file");
    wait_until("the whole file", 10, || husk.sh("sub-one", "cat /logs/file") == "one\ntwo\nthree");
    wait_until("the whole file", 10, || husk.sh("sub-two", "cat /same/file") == "one\ntwo\nthree");
    assert_eq!(husk.sh("sub-two", "echo x 2>/dev/null >/same/file || echo refused"), "refused");
    assert_eq!(host.read("logs/sub/file"), "one\ntwo\nthree\n");
    husk.down(&pod);
}

#[test]
fn a_sub_path_does_not_lead_out_of_its_volume() {
    let husk = Husk::new();
    let host = Host::new();
    fs::create_dir(host.path("volume")).unwrap();
    host.write("outside", "not yours");
    symlink("/etc", host.path("volume/absolute")).unwrap();
    symlink("..", host.path("volume/up")).unwrap();
    for sub_path in ["absolute", "up", "up/outside"] {
        let manifest = host.manifest(
            r#"
apiVersion: v1
kind: Pod
metadata: {name: out}
spec:
  restartPolicy: Never
  volumes: [{name: data, hostPath: {path: HOST/volume}}]
  containers:
    - {name: app, image: busybox, command: [sleep, "1000"], volumeMounts: [{name: data, mountPath: /x, subPath: SUB}]}
"#,
        );
        let file = manifest_file(&manifest.replace("SUB", sub_path));
        husk.run(&["kube", "play", &file.to_string_lossy()]).fails_saying(&[sub_path]);
        husk.down(&file);
        husk.leaves_nothing();
    }
}

#[test]
fn a_host_path_is_made_or_demanded_by_its_type() {
    let husk = Husk::new();
    let host = Host::new();
    host.write("file", "here\n");
    let pod = husk.play_text(&host.manifest(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: types}
spec:
  volumes:
    - {name: any, hostPath: {path: HOST/any}}
    - {name: dir, hostPath: {path: HOST/deep/dir, type: DirectoryOrCreate}}
    - {name: made, hostPath: {path: HOST/made, type: FileOrCreate}}
    - {name: file, hostPath: {path: HOST/file, type: File}}
  containers:
    - name: app
      image: busybox
      command: [sleep, "1000"]
      volumeMounts:
        - {name: any, mountPath: /any}
        - {name: dir, mountPath: /dir}
        - {name: made, mountPath: /made}
        - {name: file, mountPath: /file}
"#,
    ));
    husk.sh("types-app", "echo a >/any/x; echo b >/dir/x; echo c >/made; cat /file >>/made");
    assert_eq!((host.read("any/x"), host.read("deep/dir/x")), ("a\n".into(), "b\n".into()));
    assert_eq!(host.read("made"), "c\nhere\n");
    husk.down(&pod);
    for (path, kind, words) in [
        ("absent", "Directory", ["absent", "DirectoryOrCreate"]),
        ("absent", "File", ["absent", "FileOrCreate"]),
        ("absent", "Socket", ["absent", "Socket"]),
        ("file", "Directory", ["a regular file", "Directory"]),
        ("any", "File", ["a directory", "File"]),
    ] {
        let manifest = host.manifest(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec:\n  volumes: [{{name: v, hostPath: {{path: \
             HOST/{path}, type: {kind}}}}}]\n  containers: [{{name: a, image: busybox}}]\n"
        ));
        let file = manifest_file(&manifest);
        husk.run(&["kube", "play", &file.to_string_lossy()]).fails_saying(&words);
        husk.leaves_nothing();
    }
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
fn an_image_is_a_read_only_volume() {
    let husk = Husk::new();
    let flags = [
        "--mount",
        "type=image,src=husk-test/user,dst=/image",
        "--mount",
        "type=image,src=husk-test/user,dst=/etc/x,subpath=etc",
    ];
    let script = "grep -c alice /image/etc/passwd /etc/x/passwd; touch /image/new 2>/dev/null || echo refused; /image/bin/true && echo runs";
    let arguments = [&["run", "--rm"][..], &flags[..], &["busybox", "sh", "-c", script][..]].concat();
    assert_eq!(husk.ok(&arguments), "/image/etc/passwd:1\n/etc/x/passwd:1\nrefused\nruns");
    let pod = husk.play_text(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: artefact}
spec:
  volumes: [{name: tools, image: {reference: husk-test/user, pullPolicy: IfNotPresent}}]
  containers:
    - name: app
      image: busybox
      command: [sleep, "1000"]
      volumeMounts: [{name: tools, mountPath: /tools}, {name: tools, mountPath: /only, subPath: etc}]
"#,
    );
    let script = "grep -c alice /tools/etc/passwd /only/passwd; touch /tools/new 2>/dev/null || echo refused; /tools/bin/true 2>/dev/null || echo 'runs nothing'";
    assert_eq!(husk.sh("artefact-app", script), "/tools/etc/passwd:1\n/only/passwd:1\nrefused\nruns nothing");
    husk.down(&pod);
}

#[test]
fn a_claim_is_a_named_volume() {
    let husk = Husk::new();
    let manifest = |name: &str, read_only: bool, command: &str| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: claimed, readOnly: {read_only}}}}}]
  containers:
    - {{name: app, image: busybox, command: [sh, -c, "{command}"], volumeMounts: [{{name: data, mountPath: /data, subPath: below}}]}}
"#
        )
    };
    let writer = husk.play_text(&manifest("writer", false, "echo kept >/data/file"));
    assert_eq!(husk.wait_for_exit("writer-app").exit_code(), 0);
    husk.down(&writer);
    let reader = husk.play_text(&manifest("reader", true, "cat /data/file; echo x >/data/file"));
    assert_eq!(husk.wait_for_exit("reader-app").exit_code(), 1);
    assert!(husk.wait_for_log("reader-app", "kept").to_lowercase().contains("read-only"));
    husk.down(&reader);
    assert_eq!(husk.ok(&["run", "--rm", "-v", "claimed:/data", "busybox", "cat", "/data/below/file"]), "kept");
    husk.ok(&["volume", "rm", "claimed"]);
}

#[test]
fn memory_and_disk_end_at_their_sizes() {
    let husk = Husk::new();
    let pod = husk.play_text(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: sizes}
spec:
  volumes:
    - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: disk, emptyDir: {sizeLimit: 8Mi}}
    - {name: free, emptyDir: {}}
  containers:
    - name: app
      image: busybox
      command: [sleep, "1000"]
      volumeMounts: [{name: memory, mountPath: /memory}, {name: disk, mountPath: /disk}, {name: free, mountPath: /free}]
"#,
    );
    let fill = |place: &str| {
        let script = format!(
            "dd if=/dev/zero of={place}/big bs=64k count=320 2>&1 | grep -ciE 'space|quota'; wc -c <{place}/big"
        );
        let told = husk.sh("sizes-app", &script);
        let lines: Vec<u64> = told.lines().map(|line| line.trim().parse().unwrap()).collect();
        (lines[0], lines[1])
    };
    assert_eq!(fill("/memory"), (1, 1 << 20));
    let (refusals, bytes) = fill("/disk");
    assert!(refusals == 1 && (7 << 20..=8 << 20).contains(&bytes), "{refusals} refusals, {bytes} bytes");
    assert_eq!(fill("/free"), (0, 20 << 20));
    // What is freed can be written again.
    husk.sh("sizes-app", "rm /disk/big; dd if=/dev/zero of=/disk/again bs=64k count=64 2>/dev/null");
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
