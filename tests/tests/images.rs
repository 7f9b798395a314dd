//! Pulling, loading, listing and removing images, and whether a container sees exactly what its image holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;

use husk_tests::fixture::{Husk, Output, Registry, Running, USER, images};
use serde_json::Value;

/// Compares the listing that a container wrote with that of the independent reader, line by line.
fn sees_exactly(output: &Output, image: &str) {
    let expected = fs::read_to_string(images().join("expected").join(image)).unwrap();
    let seen = output.text();
    let (expected, seen): (BTreeSet<&str>, BTreeSet<&str>) = (expected.lines().collect(), seen.lines().collect());
    assert!(expected.len() > 5_000, "only {} files are expected: that is no Debian", expected.len());
    let lines = |sign: &str, a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
        a.difference(b).take(20).map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    let missing = lines("expected", &expected, &seen);
    let strange = lines("seen    ", &seen, &expected);
    assert!(missing.is_empty() && strange.is_empty(), "{missing}{strange}");
}

/// Python would leave byte code beside its modules, and then see it.
const LISTING: [&str; 4] = ["run", "--rm", "-e", "PYTHONDONTWRITEBYTECODE=1"];

fn image_list(husk: &Husk) -> Vec<Value> {
    let list = husk.run(&["images", "--format", "json"]).success().json();
    list.as_array().cloned().unwrap_or_else(|| panic!("not a list: {list:#}"))
}

#[test]
fn a_pulled_image_is_seen_file_by_file_as_its_layers_say() {
    let husk = Husk::with_empty_store();
    husk.ok(&["pull", "debian"]);
    sees_exactly(&husk.run(&[&LISTING[..], &["debian", "listing"]].concat()).success(), "debian");
}

#[test]
fn a_docker_archive_gives_the_same_files() {
    let husk = Husk::with_empty_store();
    husk.ok(&["load", "-i", &images().join("oci/debian.docker.tar").to_string_lossy()]);
    sees_exactly(&husk.run(&[&LISTING[..], &["--pull", "never", "debian", "listing"]].concat()).success(), "debian");
}

#[test]
fn an_oci_archive_and_an_oci_layout_load_to_the_same_image() {
    let husk = Husk::with_empty_store();
    let mut ids = Vec::new();
    for source in ["oci/busybox.oci.tar", "oci/busybox", "oci/busybox.docker.tar"] {
        husk.ok(&["load", "-i", &images().join(source).to_string_lossy()]);
        let answer = husk.ok(&["run", "--rm", "--pull", "never", "docker.io/library/busybox:latest", "echo", source]);
        assert_eq!(answer, source);
        let list = image_list(&husk);
        assert_eq!(list.len(), 1, "{list:#?}");
        ids.push(list.first().and_then(|image| image.get("Id")).cloned());
        husk.ok(&["rmi", "busybox"]);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one image has several ids: {ids:?}");
    assert_eq!(image_list(&husk), Vec::<Value>::new());
}

#[test]
fn an_archive_loads_from_standard_input() {
    let husk = Husk::with_empty_store();
    let archive = fs::read(images().join("oci/busybox.docker.tar")).unwrap();
    husk.run_with_input(&["load"], archive).success();
    assert_eq!(husk.ok(&["run", "--rm", "--pull", "never", "busybox", "echo", "loaded"]), "loaded");
}

#[test]
fn layers_compressed_with_zstd_are_read() {
    let husk = Husk::with_empty_store();
    assert_eq!(husk.ok(&["run", "--rm", "husk-test/zstd"]), "unpacked with zstd");
}

#[test]
fn of_an_image_for_several_platforms_ours_is_taken() {
    let husk = Husk::with_empty_store();
    // The entry for the foreign platform stands first and names a command that does not exist.
    let answer = husk.run(&["run", "--rm", "nginx", "nginx", "-t"]).success();
    assert!(answer.stderr.contains("test is successful"), "{answer}");
}

#[test]
fn a_digest_names_an_image_for_good() {
    let husk = Husk::with_empty_store();
    let link = "registry/docker/registry/v2/repositories/library/busybox/_manifests/tags/latest/current/link";
    let digest = fs::read_to_string(images().join(link)).unwrap();
    let reference = format!("busybox@{}", digest.trim());
    assert_eq!(husk.ok(&["run", "--rm", &reference, "echo", "by digest"]), "by digest");
}

#[test]
fn two_pulls_of_one_image_at_once_both_succeed() {
    let husk = Husk::with_empty_store();
    let pulls = [husk.start(&["pull", "curlimages/curl"]), husk.start(&["pull", "curlimages/curl"])];
    for pull in pulls {
        pull.finish().success();
    }
    assert_eq!(image_list(&husk).len(), 1);
    assert!(husk.ok(&["run", "--rm", "curlimages/curl", "--version"]).starts_with("curl "));
}

#[test]
fn an_image_in_use_is_not_removed() {
    let husk = Husk::with_empty_store();
    husk.ok(&["run", "-d", "--name", "user", "busybox", "sleep", "1000"]);
    husk.run(&["rmi", "busybox"]).fails_saying(&["busybox", "use"]);
    assert_eq!(husk.ok(&["exec", "user", "echo", "alive"]), "alive");
    husk.ok(&["rm", "-f", "user"]);
    husk.ok(&["rmi", "busybox"]);
    husk.run(&["rmi", "busybox"]).fails_saying(&["busybox"]);
}

#[test]
fn an_image_is_read_only_to_its_containers() {
    let husk = Husk::new();
    let spoil = "rm -r /etc /bin/cat; echo spoilt >/file";
    husk.run(&["run", "--rm", "busybox", "sh", "-c", spoil]).success();
    assert_eq!(husk.ok(&["run", "--rm", "busybox", "sh", "-c", "cat /etc/group | head -n 1; ls /file 2>&1 || :"]), {
        "root:x:0:\nls: /file: No such file or directory"
    });
}

#[test]
fn a_private_image_needs_a_login() {
    let mut husk = Husk::with_empty_store();
    let registry = Registry::private();
    let address = registry.address().to_string();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    husk.use_registry(registry);
    husk.set("REGISTRY_AUTH_FILE", &file);
    husk.run(&["pull", "busybox"]).fails_saying(&["busybox", "husk login"]);
    let log_in = |password: &str| {
        let mut command = husk.command(["login", "-u", USER.0, "--password-stdin", &address]);
        Running::start(&mut command, Some(format!("{password}\n").into_bytes())).finish()
    };
    let refused = log_in("hunter2");
    refused.fails_saying(&[&address, "does not take the name and password"]);
    assert!(!refused.stderr.contains("hunter2") && !file.exists(), "{refused}");
    assert_eq!(log_in(USER.1).success().text(), "Login Succeeded!");
    assert_eq!(husk.ok(&["run", "--rm", "busybox", "echo", "in"]), "in");
    husk.ok(&["logout", &address]);
    husk.run(&["logout", &address]).fails_saying(&["not logged in", &address]);
    husk.run(&["pull", "debian"]).fails_saying(&["husk login"]);
}

#[test]
fn images_are_saved_shown_shared_and_pruned() {
    let husk = Husk::with_empty_store();
    let root = husk.root().join("images");
    let size = || -> u64 {
        let rows = husk.run(&["system", "df", "--format", "json"]).success().json();
        rows[0]["Size"].as_u64().unwrap()
    };
    let du = || -> u64 {
        let output = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(&root).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    husk.ok(&["pull", "busybox"]);
    let alone = size();
    assert_eq!(alone, du());
    // It has a layer on top of that one, which is neither fetched nor stored again.
    let pulled = husk.run(&["pull", "husk-test/user"]).success();
    let added = size() - alone;
    assert!(added < alone / 2, "{added} bytes more than {alone}: {pulled}");
    assert!(husk.ok(&["run", "--rm", "husk-test/user"]).contains("alice"));
    assert_eq!(husk.ok(&["run", "--rm", "busybox", "echo", "shared"]), "shared");

    let shown = husk.run(&["image", "inspect", "husk-test/user"]).success().json();
    assert_eq!(shown[0]["RepoTags"][0], "docker.io/husk-test/user:latest");
    assert_eq!(shown[0]["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let steps = husk.run(&["history", "--format", "json", "husk-test/user"]).success().json();
    assert_eq!(steps.as_array().unwrap().iter().filter(|step| !step["Layer"].is_null()).count(), 2, "{steps:#}");

    let home = tempfile::tempdir().unwrap();
    let archive = home.path().join("both.tar");
    let archive = archive.to_str().unwrap();
    husk.ok(&["save", "-q", "-o", archive, "busybox", "husk-test/user"]);
    husk.run(&["save", "-o", "/nonexistent/x.tar", "busybox"]).fails_saying(&["/nonexistent/x.tar"]);
    husk.run(&["save", "nothing"]).fails_saying(&["nothing", "husk pull"]);
    husk.ok(&["rmi", "-a"]);
    assert_eq!(image_list(&husk), Vec::<Value>::new());
    husk.ok(&["load", "-i", archive]);
    assert!(husk.ok(&["run", "--rm", "--pull", "never", "husk-test/user"]).contains("alice"));

    husk.ok(&["image", "check", "busybox", "husk-test/user"]);
    husk.ok(&["image", "pin", "busybox"]);
    husk.ok(&["run", "-d", "--name", "user", "husk-test/user", "sleep", "1000"]);
    husk.ok(&["image", "prune", "-a", "-f"]);
    assert_eq!(image_list(&husk).len(), 2);
    husk.ok(&["rm", "-f", "user"]);
    husk.ok(&["image", "prune", "-a", "-f", "--older-than", "1h"]);
    assert_eq!(image_list(&husk).len(), 2);
    let pruned = husk.ok(&["image", "prune", "-a", "-f"]);
    assert!(pruned.contains("Untagged: docker.io/husk-test/user:latest") && pruned.contains("reclaimed"), "{pruned}");
    assert_eq!(image_list(&husk).len(), 1);
    assert_eq!(size(), du());
}
