//! A pod's surroundings in a temporary directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use husk_pod::{Assets, Deadlines, DiskImage, Placement, Pod, PodConfig, StartError, StdioWanted};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Bounds a hanging test; nothing is asserted about it.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// A deadline that is to be met.
pub(crate) const SHORT: Duration = Duration::from_secs(2);
pub(crate) const NO_STDIO: StdioWanted = StdioWanted { stdin: false, stdout: false, stderr: false, terminal: false };
pub(crate) const ALL_STDIO: StdioWanted = StdioWanted { stdin: true, stdout: true, stderr: true, terminal: false };

pub(crate) struct Fixture {
    root: TempDir,
    pub(crate) deadlines: Deadlines,
}

impl Fixture {
    /// `behaviour` as the fake VMM knows it.
    pub(crate) fn new(behaviour: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let fake = program.parent().unwrap().parent().unwrap().join("examples/fake-vmm");
        assert!(fake.exists(), "{} is built by `cargo test -p husk-pod`", fake.display());
        std::os::unix::fs::symlink(fake, root.path().join("vmm")).unwrap();
        std::fs::write(root.path().join("behaviour"), behaviour).unwrap();
        for file in ["vmlinux", "initramfs.cpio", "kvm"] {
            std::fs::write(root.path().join(file), "x").unwrap();
        }
        std::fs::write(root.path().join("image.erofs"), vec![0; 4096]).unwrap();
        Self { root, deadlines: Deadlines::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn config(&self) -> PodConfig {
        PodConfig {
            namespace: "ns".into(),
            id: "p1".into(),
            state_dir: self.path("run/ns/p1"),
            data_dir: self.path("data/ns/p1"),
            scratch_template_dir: self.path("templates"),
            scratch_bytes: 32 << 20,
            spec: sandbox_spec(),
            assets: Assets {
                vmm: self.path("vmm"),
                kernel: self.path("vmlinux"),
                initramfs: self.path("initramfs.cpio"),
                kvm: self.path("kvm"),
            },
            cgroup: Placement::Inherit,
            single_container: false,
            deadlines: self.deadlines,
        }
    }

    pub(crate) async fn start(&self) -> Result<Arc<Pod>, StartError> {
        tokio::time::timeout(LONG, Pod::start(self.config())).await.unwrap()
    }

    pub(crate) fn rootfs(&self) -> Vec<DiskImage> {
        vec![self.path("image.erofs").into()]
    }

    /// A pod with one running container, `web`.
    pub(crate) async fn running(&self) -> Arc<Pod> {
        let pod = self.start().await.unwrap();
        pod.create_container("web", &container_spec(), &self.rootfs(), NO_STDIO).await.unwrap();
        pod.start_container("web").await.unwrap();
        pod
    }

    /// No process, no socket, no disk; a failed start leaves no directories either.
    pub(crate) async fn assert_nothing_is_left(&self, dirs_too: bool) {
        wait_until("the VMM process is gone", || !self.vmm_runs()).await;
        let config = self.config();
        for file in
            [config.state_dir.join("vsock.sock"), config.state_dir.join("vmm.pid"), config.data_dir.join("scratch.img")]
        {
            assert!(!file.exists(), "{} is left", file.display());
        }
        if dirs_too {
            assert!(!config.state_dir.exists(), "{} is left", config.state_dir.display());
            assert!(!config.data_dir.exists(), "{} is left", config.data_dir.display());
        }
    }

    pub(crate) fn vmm_runs(&self) -> bool {
        let program = self.path("vmm");
        let runs = |pid: &Path| {
            let command = std::fs::read(pid.join("cmdline")).unwrap_or_default();
            command.starts_with(program.as_os_str().as_encoded_bytes())
        };
        std::fs::read_dir("/proc").unwrap().any(|entry| runs(&entry.unwrap().path()))
    }
}

pub(crate) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, looking).await.is_ok(), "never came true: {what}");
}

pub(crate) fn sandbox_spec() -> Spec {
    spec(json!({"hostname": "web-0"}))
}

pub(crate) fn container_spec() -> Spec {
    spec(json!({}))
}

pub(crate) fn container_with_mount(mount: Value) -> Spec {
    spec(json!({"mounts": [mount]}))
}

pub(crate) fn process() -> Process {
    container_spec().process().clone().unwrap()
}

/// A small valid spec with further members.
fn spec(members: Value) -> Spec {
    let mut json = json!({
        "ociVersion": "1.1.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sleep", "inf"], "cwd": "/"},
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}
        ]}
    });
    json.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    serde_json::from_value(json).unwrap()
}
