//! The runtime with fake plugins: shell scripts that note how they were called.

mod attaching;
mod detaching;
mod failures;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Attachment, Cni, CniError, Network, RuntimeConfig};

/// Answers ADD with a result, VERSION with versions, and everything else with nothing.
const GOOD: &str = r#"
case $CNI_COMMAND in
    ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/ns"}],
                "ips":[{"interface":0,"address":"10.1.0.2/16","gateway":"10.1.0.1"}]}' ;;
    VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
esac"#;

/// Directories for plugins and cache.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cni(&self) -> Cni {
        Cni::new(vec!["/nonexistent/bin".into(), self.path("bin")], self.dir.path())
            .with_deadline(Duration::from_secs(60))
    }

    /// Installs a plugin that notes its input and how it was called.
    fn plugin(&self, name: &str, body: &str) {
        let dir = self.dir.path().display();
        let env = "id=$CNI_CONTAINERID netns=$CNI_NETNS if=$CNI_IFNAME args=$CNI_ARGS";
        let call = format!("$CNI_COMMAND {name} {env}");
        self.program(name, &format!("cat >{dir}/{name}.$CNI_COMMAND\necho \"{call}\" >>{dir}/calls\n{body}"));
    }

    /// Installs a script. Another process writes it, lest a test that forks meanwhile keeps it open for writing, which
    /// would forbid to run it.
    fn program(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        let mut install =
            Command::new("install").args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
        install.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{body}\n").as_bytes()).unwrap();
        assert!(install.wait().unwrap().success());
    }

    fn good_plugins(&self, names: &[&str]) {
        for name in names {
            self.plugin(name, GOOD);
        }
    }

    /// How the plugins were called since the last time.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("calls"));
        text.lines().map(str::to_owned).collect()
    }

    /// The same, but only the command and the plugin.
    fn commands(&self) -> Vec<String> {
        self.calls().iter().map(|call| call.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    /// What a plugin read when it was last called with the command.
    fn input(&self, plugin: &str, command: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(&format!("{plugin}.{command}"))).unwrap()).unwrap()
    }

    fn cache_files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("results")) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// ADD to a network of one plugin with this body; it has to fail.
    async fn failing_add(&self, body: &str) -> CniError {
        self.plugin("p", body);
        self.cni().add(&network(&["p"]), &attachment()).await.unwrap_err()
    }
}

fn network(plugins: &[&str]) -> Network {
    let plugins: Vec<_> = plugins
        .iter()
        .map(|name| format!(r#"{{"type":"{name}","capabilities":{{"portMappings":true,"mac":false}},"own":1}}"#))
        .collect();
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","plugins":[{}]}}"#, plugins.join(","));
    Network::parse(text.as_bytes(), "of the test").unwrap()
}

fn attachment() -> Attachment {
    Attachment {
        container_id: "c1".into(),
        netns: Some("/proc/self/ns/net".into()),
        ifname: "eth0".into(),
        args: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), "web".into())],
        runtime: RuntimeConfig::default(),
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
