//! `/etc/husk/config.toml`.
//!
//! `config/default.toml` is the file with every key and its default, for people; the defaults themselves are in
//! [`Config::default`], and a test holds the two together.

mod check;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Where the file is, unless `--config` says otherwise.
pub const PATH: &str = "/etc/husk/config.toml";

/// The file with every key, commented out, its default and what it is for.
pub const DEFAULT_FILE: &str = include_str!("config/default.toml");

/// The handler that is always there, and that pods without a RuntimeClass have.
pub const DEFAULT_HANDLER: &str = "husk";

/// What huskd is told. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The socket of CRI.
    #[serde(deserialize_with = "check::absolute")]
    pub socket: PathBuf,
    /// What outlives a reboot.
    #[serde(deserialize_with = "check::absolute")]
    pub root: PathBuf,
    /// What a reboot may empty.
    #[serde(deserialize_with = "check::absolute")]
    pub run: PathBuf,
    /// Directory of registry hosts, see [`husk_image::hosts`].
    #[serde(deserialize_with = "check::absolute")]
    pub registry_config_dir: PathBuf,
    /// Directory of network configurations; the first by name counts.
    #[serde(deserialize_with = "check::absolute")]
    pub cni_config_dir: PathBuf,
    /// Directories of network plugins, the first that has one counts. Never empty.
    #[serde(deserialize_with = "check::absolute_all")]
    pub cni_plugin_dirs: Vec<PathBuf>,
    /// Who makes cgroups.
    pub cgroup_driver: CgroupDriver,
    /// What is logged.
    pub log: LogLevel,
    /// Annotations of pods that Husk heeds: see [`Config::allows`].
    pub allowed_annotations: Vec<String>,
    /// What is said of handlers; those that exist are [`Config::handler_names`].
    #[serde(deserialize_with = "check::handlers")]
    pub handlers: BTreeMap<String, Handler>,
}

/// Who makes cgroups: kubelet and huskd must agree, and kubelet asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// By writing to `/sys/fs/cgroup`.
    #[default]
    Cgroupfs,
    /// By asking systemd.
    Systemd,
}

/// From nearly nothing to nearly everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are tracing's")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How the VMs of one RuntimeClass differ. What is unset is as the installation has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Handler {
    /// An uncompressed x86-64 kernel.
    #[serde(deserialize_with = "check::some_absolute")]
    pub kernel: Option<PathBuf>,
    /// The initramfs with the guest agent.
    #[serde(deserialize_with = "check::some_absolute")]
    pub initramfs: Option<PathBuf>,
    /// MiB of a pod that has no limit, 64 to 1048576.
    #[serde(deserialize_with = "check::memory")]
    pub memory_mib: Option<u64>,
    /// Whether the shims of its pods log all that they do, beside what the guest's console says.
    pub debug: bool,
}

/// A configuration that is not taken.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "configuration {}: {cause}; give --config a file that huskd can read, or leave it out (`huskd config default` prints one)",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// What stands in it is refused.
    #[error("configuration {}, line {line}: {problem}; `huskd config default` shows every key", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Which key, and what is wrong with it.
        problem: String,
    },
    /// The environment has a default that is none.
    #[error("{variable}={} is not an absolute path: set it to one, or unset it", value.display())]
    Environment {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: PathBuf,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/run/husk/cri.sock".into(),
            root: "/var/lib/husk".into(),
            run: "/run/husk".into(),
            registry_config_dir: "/etc/husk/certs.d".into(),
            cni_config_dir: "/etc/cni/net.d".into(),
            cni_plugin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cgroup_driver: CgroupDriver::default(),
            log: LogLevel::default(),
            allowed_annotations: Vec::new(),
            handlers: BTreeMap::new(),
        }
    }
}

impl Config {
    /// The configuration of this host. Without `explicit` the file is [`PATH`], and need not be there.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line, key and what to do.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let path = explicit.unwrap_or(Path::new(PATH));
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && explicit.is_none() => String::new(),
            read => read.map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?,
        };
        Self::parse(&text, path, |variable| std::env::var_os(variable))
    }

    /// What `text`, the contents of `path`, says, over what the environment and Husk itself say.
    fn parse(text: &str, path: &Path, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let refused = |error: toml::de::Error| {
            let (line, key) = place(text, error.span().map_or(0, |span| span.start));
            let problem = match key {
                Some(key) => format!("\"{key}\": {}", error.message()),
                None => error.message().to_owned(),
            };
            ConfigError::Text { path: path.to_owned(), line, problem }
        };
        let said: toml::Table = toml::from_str(text).map_err(refused)?;
        let mut config: Self = toml::from_str(text).map_err(refused)?;
        let fallbacks = [
            ("root", "HUSK_ROOT", &mut config.root),
            ("run", "HUSK_RUN", &mut config.run),
            ("registry_config_dir", "HUSK_REGISTRY_CONFIG_DIR", &mut config.registry_config_dir),
        ];
        for (key, variable, field) in fallbacks {
            let set = env(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
            let Some(value) = set.filter(|_| !said.contains_key(key)) else { continue };
            if !value.is_absolute() {
                return Err(ConfigError::Environment { variable, value });
            }
            *field = value;
        }
        if !said.contains_key("socket") {
            config.socket = config.run.join("cri.sock");
        }
        Ok(config)
    }

    /// The image store, the same that `husk` has.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// What a RuntimeClass's handler says, `""` being the one of pods without; `None`: there is no such handler.
    #[must_use]
    pub fn handler(&self, name: &str) -> Option<Handler> {
        let name = if name.is_empty() { DEFAULT_HANDLER } else { name };
        self.handlers.get(name).cloned().or_else(|| (name == DEFAULT_HANDLER).then(Handler::default))
    }

    /// All handlers that exist, `""` first.
    #[must_use]
    pub fn handler_names(&self) -> Vec<&str> {
        let others = self.handlers.keys().map(String::as_str).filter(|name| *name != DEFAULT_HANDLER);
        ["", DEFAULT_HANDLER].into_iter().chain(others).collect()
    }

    /// Whether Husk heeds an annotation of a pod.
    #[must_use]
    pub fn allows(&self, annotation: &str) -> bool {
        self.allowed_annotations.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => annotation.starts_with(prefix),
            None => annotation == allowed,
        })
    }
}

/// Line and, where the line has one, key of a byte of the text.
fn place(text: &str, at: usize) -> (usize, Option<&str>) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let key = line.split_once('=').map(|(key, _)| key.trim());
    (before.matches('\n').count() + 1, key.filter(|key| !key.is_empty() && !key.starts_with('#')))
}

#[cfg(test)]
mod tests;
