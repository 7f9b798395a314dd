//! The reference.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Case, Outcome, Root, spec};
use crate::behaviour::run;
use crate::fixture::Running;

/// Its name for the container; there is one at a time.
const ID: &str = "parity";

/// runc with a bundle of its own.
#[derive(Debug)]
pub struct Runc {
    bundle: PathBuf,
    /// What the root file system is at the start.
    lower: PathBuf,
}

impl Runc {
    /// With the root's directory.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        let bundle = root.place("runc");
        for directory in ["rootfs", "layer"] {
            fs::create_dir(bundle.join(directory)).expect("a directory of ours");
        }
        Self { bundle, lower: root.directory().to_owned() }
    }

    /// Runs a case to its end.
    ///
    /// # Panics
    ///
    /// When it hangs.
    #[must_use]
    pub fn run(&self, case: &Case) -> Outcome {
        let _layer = Layer::new(&self.lower, &self.bundle);
        let config = spec::config(case);
        if let Some(first) = config.pointer("/linux/uidMappings/0/hostID").and_then(Value::as_u64) {
            // A root's owners are its engine's business.
            let first = u32::try_from(first).expect("an id");
            shift_owners(&self.bundle.join("rootfs"), first).expect("a root of ours");
        }
        fs::write(self.bundle.join("config.json"), config.to_string()).expect("a file of ours");
        let outcome = match &case.exec {
            None => self.foreground(&["run", "--bundle", &self.bundle.to_string_lossy(), ID]),
            Some(exec) => self.exec(&spec::process(&config, &exec.process, &exec.script)),
        };
        drop(Command::new("runc").args(["delete", "--force", ID]).output());
        outcome
    }

    fn exec(&self, process: &Value) -> Outcome {
        let file = self.bundle.join("process.json");
        fs::write(&file, process.to_string()).expect("a file of ours");
        // Detached, because it outlives the exec.
        let mut create = Command::new("runc");
        create.args(["run", "--detach", "--bundle"]).arg(&self.bundle).arg(ID);
        create
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        assert!(create.status().expect("runc").success(), "runc run --detach");
        self.foreground(&["exec", "--process", &file.to_string_lossy(), ID])
    }

    /// Output and code of a command whose container's streams are its own.
    fn foreground(&self, arguments: &[&str]) -> Outcome {
        let log = self.bundle.join("log.json");
        drop(fs::remove_file(&log));
        let mut command = Command::new("runc");
        command.arg("--log").arg(&log).args(["--log-format", "json"]).args(arguments);
        let output = Running::start(&mut command, None).finish();
        // runc's own failures are in its log; the container's are not.
        let failed = fs::read_to_string(&log).unwrap_or_default().contains(r#""level":"error""#);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &output.stderr;
        let code = u32::try_from(output.code).unwrap_or(u32::MAX);
        Outcome { output: text, code: (!failed).then_some(code) }
    }
}

/// Adds `first` to the ids of every owner.
fn shift_owners(path: &Path, first: u32) -> std::io::Result<()> {
    let before = fs::symlink_metadata(path)?;
    lchown(path, Some(before.uid().saturating_add(first)), Some(before.gid().saturating_add(first)))?;
    if before.is_symlink() {
        return Ok(());
    }
    // A change of owner takes set-id bits away.
    fs::set_permissions(path, before.permissions())?;
    if before.is_dir() {
        for entry in fs::read_dir(path)? {
            shift_owners(&entry?.path(), first)?;
        }
    }
    Ok(())
}

/// A writable layer over the root file system, mounted as the bundle's `rootfs` and thrown away with what is in it.
struct Layer<'a> {
    bundle: &'a Path,
}

impl<'a> Layer<'a> {
    fn new(lower: &Path, bundle: &'a Path) -> Self {
        let (upper, work) = (bundle.join("layer/upper"), bundle.join("layer/work"));
        for directory in [&upper, &work] {
            fs::create_dir(directory).expect("a directory of ours");
        }
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(bundle.join("rootfs")));
        Self { bundle }
    }
}

impl Drop for Layer<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["--lazy"]).arg(self.bundle.join("rootfs")).status());
        for directory in ["layer/upper", "layer/work"] {
            drop(fs::remove_dir_all(self.bundle.join(directory)));
        }
    }
}
