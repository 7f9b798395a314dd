//! A node: huskd with a configuration, a network and a registry, and the leak check at its end.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use husk_tests::fixture::{Husk, prefix, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::kubelet::Kubelet;

/// The smallest network: it has an address, and nothing of it stays on the host.
const NETWORK: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "replay",
  "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.87.0.0/24"}]]}}]
}"#;

/// Below it kubelet makes a cgroup for each pod.
pub(crate) const BURSTABLE: &str = "/kubepods/burstable";

/// A running huskd. Its pods have to be gone when it goes, and nothing may be left of them.
pub(crate) struct Node {
    pub(crate) kubelet: Kubelet,
    huskd: Option<Child>,
    directory: TempDir,
    /// Where kubelet would keep pods' volumes and logs: a real disk.
    volumes: TempDir,
    husk: Husk,
}

impl Node {
    /// With the images that other tests have pulled.
    pub(crate) fn start() -> Self {
        Self::with(Husk::new())
    }

    /// With no image at all.
    pub(crate) fn with_empty_store() -> Self {
        Self::with(Husk::with_empty_store())
    }

    fn with(husk: Husk) -> Self {
        let directory = TempDir::with_prefix_in("hn-", "/run").unwrap();
        let volumes = TempDir::with_prefix_in("kubelet-", "/var/lib/husk").unwrap();
        let networks = directory.path().join("net.d");
        fs::create_dir(&networks).unwrap();
        fs::write(networks.join("10-replay.conflist"), NETWORK).unwrap();
        let config = format!(
            "root = {:?}\nrun = {:?}\ncni_config_dir = {networks:?}\ncni_plugin_dirs = [\"/usr/lib/cni\"]\n\
             log = \"debug\"\n",
            husk.root(),
            husk.run_dir()
        );
        fs::write(directory.path().join("huskd.toml"), config).unwrap();
        // What a failed test has left is no fault of this one.
        remove_control_groups(&control_group("/kubepods"));
        make_control_group(BURSTABLE);
        let kubelet = Kubelet::connect(&husk.run_dir().join("cri.sock"));
        let mut node = Self { kubelet, huskd: None, directory, volumes, husk };
        node.start_huskd();
        node
    }

    /// Starts huskd and waits until it answers.
    pub(crate) fn start_huskd(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(prefix().join("bin/huskd"));
        command.arg("--config").arg(self.directory.path().join("huskd.toml"));
        self.husk.dress(&mut command);
        let huskd = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.huskd = Some(huskd);
        wait_for("huskd's first answer", 10, || {
            let ended = self.huskd.as_mut().and_then(|huskd| huskd.try_wait().unwrap());
            assert!(ended.is_none(), "huskd ended: {ended:?}");
            self.kubelet.version().ok()
        });
        // kubelet's client asks both before anything else.
        self.kubelet.image_fs();
    }

    /// Ends huskd as a crash does; what it runs stays.
    pub(crate) fn kill_huskd(&mut self) {
        let mut huskd = self.huskd.take().unwrap();
        huskd.kill().unwrap();
        assert_eq!(huskd.wait().unwrap().signal(), Some(9), "it had ended before");
    }

    /// Ends huskd as `systemctl stop` does.
    pub(crate) fn stop_huskd(&mut self) {
        let Some(mut huskd) = self.huskd.take() else { return };
        kill_process(Pid::from_child(&huskd), Signal::TERM).unwrap();
        let ended = wait_for("huskd's end", 10, || huskd.try_wait().unwrap());
        assert!(ended.success(), "huskd ended with {ended}");
    }

    /// SIGKILL and a new start.
    pub(crate) fn restart(&mut self) {
        self.kill_huskd();
        self.start_huskd();
    }

    /// The configured `root`.
    pub(crate) fn root(&self) -> &Path {
        self.husk.root()
    }

    /// The husk of the same store.
    pub(crate) fn husk(&self) -> &Husk {
        &self.husk
    }

    /// Where kubelet keeps what pods are made of.
    pub(crate) fn volumes(&self) -> &Path {
        self.volumes.path()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("huskd.log")
    }
}

impl Node {
    /// What huskd said, when a test has failed.
    fn tell(&self) {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
        eprintln!("--- huskd\n{}\n---", lines[lines.len().saturating_sub(80)..].join("\n"));
        // Or the next test's huskd takes them up.
        drop(fs::remove_dir_all(self.root().join("cri")));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(mut huskd) = self.huskd.take() {
                drop(huskd.kill());
                drop(huskd.wait());
            }
            self.tell();
            return;
        }
        self.stop_huskd();
        for group in [BURSTABLE, "/kubepods"] {
            fs::remove_dir(control_group(group)).unwrap();
        }
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.husk.leaves_nothing()));
        if let Err(leaked) = looked {
            self.tell();
            std::panic::resume_unwind(leaked);
        }
    }
}

/// Processes of shims that have this among their arguments, such as a pod's id.
pub(crate) fn shims(argument: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let read = |pid: i32, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let shims = pids.filter(|pid| {
        let command = String::from_utf8_lossy(&read(*pid, "cmdline")).into_owned();
        read(*pid, "comm").starts_with(b"containerd-shim") && command.contains(argument)
    });
    shims.filter_map(Pid::from_raw).collect()
}

/// The directory of a cgroup.
pub(crate) fn control_group(path: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'))
}

/// Makes a cgroup with its parents and enables all controllers on the way, as kubelet does.
pub(crate) fn make_control_group(path: &str) {
    let mut directory = control_group("");
    for part in path.split('/').filter(|part| !part.is_empty()) {
        enable_controllers(&directory);
        directory.push(part);
        if !directory.is_dir() {
            fs::create_dir(&directory).unwrap();
        }
    }
    enable_controllers(&directory);
}

fn remove_control_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_control_groups(&entry.path());
        }
    }
    drop(fs::remove_dir(group));
}

fn enable_controllers(group: &Path) {
    for controller in fs::read_to_string(group.join("cgroup.controllers")).unwrap().split_whitespace() {
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    }
}
