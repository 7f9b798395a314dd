//! Every place of a container where files are behaves as runc's bind mount on ext4 does, but for what
//! `docs/differences.md` says. The checks are those of `fs-behaviour`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::OnceLock;

use husk_tests::behaviour::{Disk, Runc, TREE, WORK, chosen, command, image};
use husk_tests::differences::Differences;
use husk_tests::fixture::Husk;
use tempfile::TempDir;

fn differences() -> Differences {
    Differences::parse(include_str!("../../docs/differences.md"))
}

/// Compares; what is not as documented fails.
fn compare(place: &str, runc: &str, husk: &str) {
    let verdict = differences().compare(place, runc, husk);
    println!("{}", verdict.tell(place));
    let ran = verdict.equal + verdict.documented;
    assert!(chosen().is_some() || ran > 30, "hardly any check ran:\n{husk}");
    assert!(verdict.is_good(), "{}", verdict.tell(place));
}

/// What runc shows on a writable bind mount; it is asked once.
fn reference() -> &'static str {
    static OUTPUT: OnceLock<String> = OnceLock::new();
    OUTPUT.get_or_init(|| {
        let disk = Disk::new();
        let directory = disk.directory("work");
        Runc::new(&disk).behaviour("writable", WORK, Some(&directory), false)
    })
}

/// Husk with the image loaded.
fn husk() -> Husk {
    let husk = Husk::new();
    let directory = TempDir::with_prefix_in("behaviour-image-", "/var/lib/husk").unwrap();
    husk.ok(&["load", "-i", &image(directory.path()).to_string_lossy()]);
    husk
}

fn behaviour(husk: &Husk, flags: &[&str], set: &str, directory: &str) -> String {
    let mut arguments = vec!["run", "--rm", "--cap-add", "ALL"];
    arguments.extend(flags);
    let command = command(set, directory);
    arguments.push("behaviour");
    arguments.extend(command.iter().map(String::as_str));
    // Hundreds of checks, each of them many requests.
    husk.start(&arguments).finish_within(90).success().text()
}

fn shared(directory: &Path, options: &str) -> String {
    format!("{}:{WORK}{options}", directory.display())
}

#[test]
fn a_directory_of_the_host_behaves_as_runcs_bind_mount() {
    let disk = Disk::new();
    let directory = disk.directory("work");
    let husk = husk();
    let seen = behaviour(&husk, &["-v", &shared(&directory, "")], "writable", WORK);
    compare("virtio-fs", reference(), &seen);
}

#[test]
fn the_writable_root_behaves_as_runcs_bind_mount() {
    let husk = husk();
    let seen = behaviour(&husk, &[], "writable", WORK);
    compare("scratch", reference(), &seen);
}

#[test]
fn an_empty_dir_behaves_as_runcs_bind_mount() {
    let husk = husk();
    let command = command("writable", "/volume");
    let manifest = husk.play_text(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: behaviour}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: docker.io/library/behaviour:latest
    imagePullPolicy: Never
    command: {command:?}
    securityContext: {{capabilities: {{add: [ALL]}}}}
    volumeMounts: [{{name: data, mountPath: /volume}}]
  volumes:
  - name: data
    emptyDir: {{}}
"
    ));
    assert_eq!(husk.wait_for_exit("behaviour-main").exit_code(), 0);
    let seen = husk.ok(&["logs", "behaviour-main"]);
    husk.down(&manifest);
    compare("emptyDir", reference(), &seen);
}

#[test]
fn a_read_only_directory_of_the_host_behaves_as_runcs() {
    let disk = Disk::new();
    let runc = Runc::new(&disk);
    let tree = runc.root().join("tree");
    let expected = runc.behaviour("read-only", WORK, Some(&tree), true);
    let husk = husk();
    let seen = behaviour(&husk, &["-v", &shared(&tree, ":ro")], "read-only", WORK);
    compare("virtio-fs:ro", &expected, &seen);
}

#[test]
fn a_read_only_root_behaves_as_runcs() {
    let disk = Disk::new();
    let expected = Runc::new(&disk).behaviour("read-only", TREE, None, true);
    let husk = husk();
    let seen = behaviour(&husk, &["--read-only"], "read-only", TREE);
    compare("EROFS", &expected, &seen);
}
