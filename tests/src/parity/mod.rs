//! The same OCI specs under runc and under Husk, and what each container sees.
//!
//! A [`Case`] is what it changes of the ordinary spec, and a script. Both runtimes run it in the same root file system;
//! what the script says, line by line, must be equal. `root` makes the file system, `spec` the configuration, `runc` and
//! `husk` run it.

#![allow(clippy::expect_used, clippy::panic, reason = "a fixture fails its test by panicking")]

mod husk;
mod root;
mod runc;
mod spec;

use serde::Deserialize;
use serde_json::Value;

pub use husk::HuskPod;
pub use root::Root;
pub use runc::Runc;

/// One container, and perhaps a further process in it; written in YAML.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The first part of the names of its checks: `case/check`.
    pub name: String,
    /// In Husk a pod of its own, because the spec says what the pod is.
    #[serde(default)]
    alone: bool,
    /// Merged into the ordinary spec: lists replace lists, null removes.
    #[serde(default)]
    spec: Value,
    /// Further mounts, after the ordinary ones.
    #[serde(default)]
    mounts: Vec<Value>,
    /// Every capability that runc knows is bounding, effective and permitted.
    #[serde(default)]
    all_capabilities: bool,
    /// What the container runs, in the words of `say.sh`. Empty: the spec's own `process.args`.
    #[serde(default)]
    script: String,
    exec: Option<Exec>,
}

/// A further process of a container that waits meanwhile.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    /// Merged into the container's `process`.
    #[serde(default)]
    process: Value,
    #[serde(default)]
    script: String,
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
    /// Reads a list of them.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    pub fn list(yaml: &str) -> Vec<Self> {
        serde_saphyr::from_str(yaml).expect("a list of cases")
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
