//! The same OCI specs under runc and under Husk, and what each container sees.
//!
//! A [`Case`] is a patch of the ordinary spec and a script. Both runtimes run it in the same root file system and the
//! same cgroups of their own; what the script says, line by line, must be equal. `root` makes the file system, `spec`
//! the configuration, `runc` and `husk` run it.

#![allow(clippy::expect_used, clippy::panic, reason = "a fixture fails its test by panicking")]

mod husk;
mod root;
mod runc;
mod spec;

use serde_json::Value;

pub use husk::HuskPod;
pub use root::Root;
pub use runc::Runc;

/// One container, and perhaps a further process in it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The first part of the names of its checks: `case/check`.
    pub name: &'static str,
    /// Merged into the spec; lists replace lists.
    pub patch: Value,
    /// What the container runs, with the words of `/lib/say`. Empty: the patch's own `process.args`.
    pub script: &'static str,
    /// A further process: a patch of the container's own `process`, and its script. The container's waits meanwhile.
    pub exec: Option<(Value, &'static str)>,
}

/// What a container came to.
#[derive(Debug)]
pub struct Outcome {
    /// Standard output and error.
    pub output: String,
    /// Of the container's process or, where there is one, of the further process. None: it could not be started.
    pub code: Option<u32>,
}

impl Case {
    /// A container with this patch of its spec.
    #[must_use]
    pub fn new(name: &'static str, patch: Value, script: &'static str) -> Self {
        Self { name, patch, script, exec: None }
    }

    /// A further process in a container.
    #[must_use]
    pub fn exec(name: &'static str, patch: Value, process: Value, script: &'static str) -> Self {
        Self { name, patch, script: spec::WAITING, exec: Some((process, script)) }
    }

    /// What was seen, a line for each check: name, tab, value.
    #[must_use]
    pub fn lines(&self, outcome: &Outcome) -> String {
        let mut lines: Vec<String> = outcome.output.lines().map(|line| format!("{}/{line}", self.name)).collect();
        let code = outcome.code.map_or_else(|| "not started".to_owned(), |code| code.to_string());
        if outcome.code.is_none() {
            // Why is told in each runtime's own words.
            lines.clear();
        }
        lines.push(format!("{}/exit\t{code}", self.name));
        lines.join("\n")
    }
}
