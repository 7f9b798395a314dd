//! The reference.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{Case, Outcome, Root, spec};
use crate::fixture::{Running, wait_until};

/// Its name for the container; there is one at a time.
const ID: &str = "parity";

/// runc with a bundle of its own.
#[derive(Debug)]
pub struct Runc {
    bundle: PathBuf,
    root: String,
}

impl Runc {
    /// With the root's directory.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        Self { bundle: root.place("runc"), root: root.directory().to_string_lossy().into_owned() }
    }

    /// Runs a case to its end.
    ///
    /// # Panics
    ///
    /// When it hangs.
    #[must_use]
    pub fn run(&self, case: &Case) -> Outcome {
        let config = spec::config(&case.patch, case.script, &self.root, "/parity");
        fs::write(self.bundle.join("config.json"), config.to_string()).expect("a file of ours");
        let outcome = match &case.exec {
            None => self.foreground(&["run", "--bundle", &self.bundle.to_string_lossy(), ID]),
            Some((patch, script)) => self.exec(&spec::process(&config, patch, script)),
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
        wait_until("the container's end", 10, || self.is_over(arguments));
        Outcome { output: text, code: (!failed).then_some(code) }
    }

    /// The container that was run is not there any more; one that an exec ran in stays.
    fn is_over(&self, arguments: &[&str]) -> bool {
        arguments.first() != Some(&"run")
            || !Command::new("runc").args(["state", ID]).output().is_ok_and(|output| output.status.success())
    }
}
