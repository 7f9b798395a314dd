//! The reference: runc, and the disk whose directories it binds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::command;
use super::image::{self, WORK};
use crate::fixture::Running;

/// Small enough to be filled, large enough for every check.
const DISK_BYTES: u64 = 512 << 20;

/// An ext4 file system of its own, mounted for as long as this lives.
#[derive(Debug)]
pub struct Disk {
    _image: TempDir,
    mount: PathBuf,
}

/// Runs a command of this machine, which must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Disk {
    /// Makes and mounts it.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[must_use]
    pub fn new() -> Self {
        let base = TempDir::with_prefix_in("behaviour-", "/var/lib/husk").expect("a directory on a real disk");
        let (image, mount) = (base.path().join("disk"), base.path().join("mount"));
        fs::File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).expect("a file of ours");
        fs::create_dir(&mount).expect("a directory of ours");
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Self { _image: base, mount }
    }

    /// A new directory.
    ///
    /// # Panics
    ///
    /// When there is one of that name.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.mount.join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.mount).status());
    }
}

/// runc with a bundle of the image's content, on a [`Disk`].
#[derive(Debug)]
pub struct Runc {
    bundle: PathBuf,
}

impl Runc {
    /// Unpacks the image.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[must_use]
    pub fn new(disk: &Disk) -> Self {
        let bundle = disk.directory("bundle");
        image::unpack(&bundle.join("rootfs"));
        Self { bundle }
    }

    /// The unpacked root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// Runs the program, `bind` being mounted on `/work`, read-only or not; gives what it prints.
    ///
    /// # Panics
    ///
    /// When it does not run to its end.
    #[must_use]
    pub fn behaviour(&self, set: &str, directory: &str, bind: Option<&Path>, read_only: bool) -> String {
        let config = config(&command(set, directory), bind, read_only).to_string();
        fs::write(self.bundle.join("config.json"), config).expect("a file of ours");
        let mut runc = Command::new("runc");
        runc.args(["run", "--bundle"]).arg(&self.bundle).arg("behaviour");
        Running::start(&mut runc, None).finish_within(90).success().text()
    }
}

/// An OCI configuration with every capability, as `husk run --cap-add ALL` gives.
fn config(command: &[String], bind: Option<&Path>, read_only: bool) -> Value {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}),
    ];
    if let Some(directory) = bind {
        let access = if read_only { "ro" } else { "rw" };
        let options = ["rbind", "rprivate", access];
        mounts.push(json!({"destination": WORK, "type": "bind", "source": directory, "options": options}));
    }
    let namespaces = ["pid", "mount", "ipc", "uts", "network", "cgroup"].map(|kind| json!({"type": kind}));
    let capabilities = capabilities();
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": read_only},
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": command, "env": ["PATH=/"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": mounts,
        "linux": {
            "cgroupsPath": "/behaviour", "namespaces": namespaces,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}

/// All that a process may have here, by the names that runc knows.
pub(crate) fn capabilities() -> Vec<&'static str> {
    let text = include_str!("capabilities.txt");
    text.lines().collect()
}
