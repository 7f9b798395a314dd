//! Volumes that kubelet changes under running containers: configMaps by a symlink that is swapped (kubelet
//! `pkg/volume/util/atomic_writer.go`), tokens in the same way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use husk_tests::fixture::wait_until;

use super::node::Node;
use super::pod::{Pod, mount};

#[test]
fn a_new_config_map_and_a_new_token_are_seen_in_a_running_container() {
    let node = Node::start();
    let kubelet = &node.kubelet;
    let pod = Pod::prepare(&node, "volumes");
    let volume = |name: &str| pod.directory.join("volumes").join(name);
    let (settings, account) = (volume("settings"), volume("kube-api-access"));
    write_atomically(&settings, 1, &[("colour", "green"), ("old", "x")]);
    write_atomically(&account, 1, &[("token", "first"), ("namespace", "default")]);
    let sandbox = pod.run();
    let mut config = pod.container("main", 0, "sleep 100000");
    let secrets = "/var/run/secrets/kubernetes.io/serviceaccount";
    config.mounts.extend([mount(&settings, "/settings", true), mount(&account, secrets, true)]);
    let main = pod.start(&sandbox, &config);
    let sees = |what: &str, script: &str, text: &str| {
        wait_until(what, 10, || kubelet.sh(&main, script) == text);
    };
    let all = "cd /settings; for f in *; do echo $f=$(cat $f); done";
    assert_eq!(kubelet.sh(&main, all), "colour=green\nold=x");
    assert_eq!(kubelet.sh(&main, &format!("cat {secrets}/token")), "first");
    // A reader that has the old file open keeps it.
    kubelet.sh(
        &main,
        "(exec 3</settings/colour; touch /tmp/open; while [ ! -e /tmp/go ]; do sleep 0.1; done; \
                       cat <&3 >/tmp/kept) >/dev/null 2>&1 &",
    );
    sees("an open file", "ls /tmp", "open");

    write_atomically(&settings, 2, &[("colour", "red"), ("new", "y")]);
    sees("the new configMap", all, "colour=red\nnew=y");
    write_atomically(&account, 2, &[("token", "second, and longer"), ("namespace", "default")]);
    sees("the new token", &format!("cat {secrets}/token"), "second, and longer");
    kubelet.sh(&main, "touch /tmp/go");
    sees("what the open file holds", "cat /tmp/kept || true", "green");
    assert!(kubelet.exec(&main, &["touch", "/settings/mine"], 0).unwrap().exit_code != 0, "the volume is read-only");

    // kubelet rewrites its hosts file in place.
    fs::write(pod.directory.join("etc-hosts"), "10.87.0.10\tanother\n").unwrap();
    sees("the new hosts file", "cat /etc/hosts", "10.87.0.10\tanother");
    pod.collect(&sandbox);
}

/// As the atomic writer does: a directory with a new name, a link to it that replaces the old one, and links for users.
fn write_atomically(volume: &Path, version: u32, files: &[(&str, &str)]) {
    let data = format!("..2026_11_28_{version}");
    fs::create_dir_all(volume.join(&data)).unwrap();
    for (name, text) in files {
        fs::write(volume.join(&data).join(name), text).unwrap();
    }
    let old = fs::read_link(volume.join("..data")).ok();
    symlink(&data, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    for (name, _) in files {
        if volume.join(name).symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
        }
    }
    let Some(old) = old else { return };
    for entry in fs::read_dir(volume.join(&old)).unwrap() {
        let name = entry.unwrap().file_name();
        if !files.iter().any(|(kept, _)| name == *kept) {
            fs::remove_file(volume.join(name)).unwrap();
        }
    }
    fs::remove_dir_all(volume.join(old)).unwrap();
}
