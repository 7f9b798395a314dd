//! A world of a test's own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_net::{NetNs, RUN_NETNS};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs a test in a fresh network and mount namespace with an empty /run and /var/lib, and looks afterwards for what it
/// left there.
pub(crate) fn in_a_world_of_its_own<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    assert!(rustix::process::geteuid().is_root(), "this test makes namespaces: run it as root");
    let outcome = std::thread::spawn(move || {
        // SAFETY: this thread alone changes its namespaces; it holds nothing that belongs to the old ones.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        for dir in ["/run", "/var/lib"] {
            mount("tmpfs", dir, "tmpfs", MountFlags::empty(), None).unwrap();
        }
        ip("link set lo up");
        let before = inventory();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
        let after = inventory();
        let leaked: Vec<_> = after.difference(&before).collect();
        assert!(leaked.is_empty(), "the test left {leaked:#?}");
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    run("ip", words);
}

/// What the program prints; it has to succeed.
pub(crate) fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

/// A fresh namespace at the usual place.
pub(crate) async fn netns(name: &str) -> NetNs {
    NetNs::create(Path::new(RUN_NETNS), name).await.unwrap()
}

pub(crate) fn remove(netns: &NetNs) {
    NetNs::remove(netns.path()).unwrap();
    NetNs::remove(netns.path()).unwrap();
}

/// Interfaces, mounts, namespaces, and what CNI and its plugins note of containers.
fn inventory() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    found.extend(interfaces().into_iter().map(|name| format!("interface {name}")));
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    found.extend(mounts.lines().filter_map(|line| Some(format!("mount {}", line.split(' ').nth(4)?))));
    found.extend(files(Path::new("/run/netns")).into_iter().map(|path| format!("namespace {}", path.display())));
    // The rest is the plugins' own: a lock, and the last address given.
    let notes = files(Path::new("/var/lib/cni")).into_iter().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name != "lock" && !name.starts_with("last_reserved_ip")
    });
    found.extend(notes.map(|path| format!("note {}", path.display())));
    for table in ["iptables-save", "ip6tables-save"] {
        let rules = run(table, "");
        found.extend(rules.lines().filter(|line| line.contains("pod-")).map(|line| format!("{table}: {line}")));
    }
    found
}

/// The namespace's interfaces, by the kernel's own list.
pub(crate) fn interfaces() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
