//! ADD, DEL, CHECK and readiness of a network.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::attachment::{Attachment, BadAttachment, RuntimeConfig};
use super::cache::{Cache, CacheError, Entry};
use super::config::{Network, PluginConfig};
use super::error::CniError;
use super::plugin::{Command, PluginError, PluginFailure, Plugins, Run, printable};
use super::request::request;
use super::result::{AddResult, RawResult};
use super::version::Version;
use crate::link;
use crate::netns::{NetNs, NetNsError};

/// Where plugins are by convention; the second is Debian's.
pub const PLUGIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// How long one plugin may take, unless the caller says otherwise. Address management by DHCP can take long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the plugins of networks. Operations on one attachment must not overlap; those on different ones may.
#[derive(Clone, Debug)]
pub struct Cni {
    plugins: Plugins,
    cache: Cache,
}

/// What a DEL that succeeded has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Deleted {
    /// Plugins that are no longer installed. What they made may remain.
    pub vanished: Vec<String>,
}

/// A plugin that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub path: PathBuf,
    /// As it names them: `0.4.0`, `1.0.0`.
    pub versions: Vec<String>,
}

impl Cni {
    /// `cache_dir` is [`super::CACHE_DIR`] by convention, `plugin_dirs` [`PLUGIN_DIRS`].
    #[must_use]
    pub fn new(plugin_dirs: Vec<PathBuf>, cache_dir: &Path) -> Self {
        Self { plugins: Plugins { dirs: plugin_dirs, deadline: DEADLINE }, cache: Cache::new(cache_dir) }
    }

    /// With another time limit for each run of a plugin.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.plugins.deadline = deadline;
        self
    }

    /// Attaches a container. What a network did until one of its plugins failed is undone before the error returns; what
    /// remains when the future is dropped, [`Self::del`] undoes.
    pub async fn add(&self, network: &Network, attachment: &Attachment) -> Result<AddResult, CniError> {
        attachment.check()?;
        let container_id = attachment.container_id.clone();
        if attachment.netns.is_none() {
            return Err(BadAttachment::NoNetNs { container_id }.into());
        }
        if self.cache.read(network.name(), attachment)?.is_some() {
            let (network, ifname) = (network.name().to_owned(), attachment.ifname.clone());
            return Err(CniError::AlreadyAttached { network, container_id, ifname });
        }
        let mut entry = Entry { network: network.clone(), attachment: attachment.clone(), result: None };
        self.cache.write(&entry)?;
        let added = async {
            let last = self.add_all(network, attachment).await?;
            entry.result = Some(last.value);
            self.cache.write(&entry)?;
            Ok(last.result)
        };
        match added.await {
            Ok(result) => Ok(result),
            Err(add) => Err(match self.del(network, attachment).await {
                Ok(_) => add,
                Err(undo) => CniError::NotUndone { add: Box::new(add), undo: Box::new(undo) },
            }),
        }
    }

    async fn add_all(&self, network: &Network, attachment: &Attachment) -> Result<RawResult, CniError> {
        let mut previous: Option<RawResult> = None;
        for plugin in network.configs() {
            let input = request(network, plugin, &attachment.runtime, previous.as_ref().map(|result| &result.value));
            let env = environment(attachment, attachment.netns.as_deref());
            let output = self.run(network, plugin, Command::Add, &env, &input).await?;
            previous = Some(RawResult::parse(&output, &plugin.kind, network.name(), network.version())?);
        }
        previous.ok_or_else(|| not_attached(network, attachment))
    }

    /// Detaches a container: the plugins in reverse order, with the configuration that its ADD used, or `network` when
    /// the cache has none. May be repeated, whatever became of the namespace; when a plugin fails, it should be.
    ///
    /// The namespace is better removed after this: some plugins learn from it what they have to remove outside, as
    /// `bridge` does with its masquerading rules.
    pub async fn del(&self, network: &Network, attachment: &Attachment) -> Result<Deleted, CniError> {
        attachment.check()?;
        let cached = self.cache.read(network.name(), attachment).unwrap_or_else(|error| {
            tracing::warn!(%error, "detaching with today's network configuration");
            None
        });
        let (network, args, runtime, result) = match &cached {
            Some(entry) => (&entry.network, &entry.attachment.args, &entry.attachment.runtime, entry.result.as_ref()),
            None => (network, &attachment.args, &attachment.runtime, None),
        };
        let cached_netns = cached.as_ref().and_then(|entry| entry.attachment.netns.clone());
        let attachment = Attachment {
            netns: attachment.netns.clone().or(cached_netns),
            args: args.clone(),
            runtime: runtime.clone(),
            ..attachment.clone()
        };
        replace_interface(&attachment, result).await;
        let previous = result.filter(|_| network.version() >= Version::V0_4_0);
        let deleted = self.del_all(network, &attachment, previous).await?;
        self.cache.remove(network.name(), &attachment)?;
        Ok(deleted)
    }

    async fn del_all(
        &self,
        network: &Network,
        attachment: &Attachment,
        previous: Option<&Value>,
    ) -> Result<Deleted, CniError> {
        let mut deleted = Deleted::default();
        let env = environment(attachment, attachment.netns.as_deref().filter(|path| !is_gone(path)));
        for plugin in network.configs().iter().rev() {
            let input = request(network, plugin, &attachment.runtime, previous);
            match self.run(network, plugin, Command::Del, &env, &input).await {
                Ok(_) => {}
                Err(PluginError { failure: PluginFailure::NotFound { .. }, plugin, network, .. }) => {
                    tracing::warn!(plugin, network, "a CNI plugin is gone; what it made may remain");
                    deleted.vanished.push(plugin);
                }
                // The plugins before it stand below it: it is not to be cut off from what it still has to remove.
                Err(error) => return Err(error.into()),
            }
        }
        Ok(deleted)
    }

    /// Asks the plugins whether an attachment is as their ADD left it. Networks may forbid that, which counts as yes.
    pub async fn check(&self, network: &Network, attachment: &Attachment) -> Result<(), CniError> {
        attachment.check()?;
        let cached = self.cache.read(network.name(), attachment)?;
        let Some(Entry { network, attachment, result: Some(result) }) = cached else {
            return Err(not_attached(network, attachment));
        };
        if network.version() < Version::V0_4_0 {
            return Err(CniError::NoCheck { network: network.name().to_owned(), version: network.version() });
        }
        if network.disables_check() {
            return Ok(());
        }
        let env = environment(&attachment, attachment.netns.as_deref());
        for plugin in network.configs() {
            let input = request(&network, plugin, &attachment.runtime, Some(&result));
            self.run(&network, plugin, Command::Check, &env, &input).await?;
        }
        Ok(())
    }

    /// Whether the network could take a container now: its plugins are installed, speak its version and, since 1.1.0,
    /// say that they are ready (STATUS).
    pub async fn ready(&self, network: &Network) -> Result<(), CniError> {
        let wants = network.version();
        for plugin in network.configs() {
            let speaks = self.versions(network.name(), &plugin.kind, wants).await?;
            if !speaks.iter().any(|version| version == wants.as_str()) {
                let (plugin, network) = (plugin.kind.clone(), network.name().to_owned());
                let speaks = printable(speaks.join(", ").as_bytes());
                return Err(CniError::PluginVersion { plugin, network, speaks, wants });
            }
            if wants >= Version::V1_1_0 {
                let input = request(network, plugin, &RuntimeConfig::default(), None);
                self.run(network, plugin, Command::Status, &[], &input).await?;
            }
        }
        Ok(())
    }

    /// Where a plugin of any network is and which versions of the specification it speaks.
    pub async fn installed(&self, plugin: &str) -> Result<Installed, PluginError> {
        const NETWORK: &str = "(any)";
        let path = self.plugins.find(plugin).map_err(|failure| PluginError {
            plugin: plugin.to_owned(),
            network: NETWORK.to_owned(),
            command: Command::Version,
            failure,
        })?;
        Ok(Installed { path, versions: self.versions(NETWORK, plugin, Version::V1_0_0).await? })
    }

    /// Section 2 of the specification, "VERSION".
    async fn versions(&self, network: &str, plugin: &str, wants: Version) -> Result<Vec<String>, PluginError> {
        let input = format!(r#"{{"cniVersion":"{wants}"}}"#);
        let (command, stdin) = (Command::Version, input.as_bytes());
        let output = self.plugins.run(Run { network, plugin, command, env: &[], stdin }).await?;
        let answer: Result<VersionAnswer, _> = serde_json::from_slice(&output);
        answer.map(|answer| answer.supported_versions).map_err(|source| PluginError {
            plugin: plugin.to_owned(),
            network: network.to_owned(),
            command,
            failure: PluginFailure::Garbage { text: printable(&output), source },
        })
    }

    /// The attachments that ADD was called for and DEL has not undone, of one container or of all, whichever process
    /// made them. A damaged entry, whose container nobody knows, comes as its error when all are asked for.
    pub fn attachments(
        &self,
        container_id: Option<&str>,
    ) -> Result<impl Iterator<Item = Result<(Network, Attachment), CacheError>>, CacheError> {
        let wanted = move |entry: &Result<Entry, CacheError>| match (container_id, entry) {
            (Some(id), Ok(entry)) => entry.attachment.container_id == id,
            (Some(_), Err(_)) => false,
            (None, _) => true,
        };
        let entries = self.cache.list()?.into_iter().filter(wanted);
        Ok(entries.map(|entry| entry.map(|entry| (entry.network, entry.attachment))))
    }

    async fn run(
        &self,
        network: &Network,
        plugin: &PluginConfig,
        command: Command,
        env: &[(&'static str, OsString)],
        stdin: &[u8],
    ) -> Result<Vec<u8>, PluginError> {
        self.plugins.run(Run { network: network.name(), plugin: &plugin.kind, command, env, stdin }).await
    }
}

fn not_attached(network: &Network, attachment: &Attachment) -> CniError {
    CniError::NotAttached {
        network: network.name().to_owned(),
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
    }
}

/// Section 2 of the specification, "Parameters".
fn environment(attachment: &Attachment, netns: Option<&Path>) -> [(&'static str, OsString); 4] {
    [
        ("CNI_CONTAINERID", attachment.container_id.clone().into()),
        ("CNI_NETNS", netns.unwrap_or_else(|| "".as_ref()).into()),
        ("CNI_IFNAME", attachment.ifname.clone().into()),
        ("CNI_ARGS", attachment.args().into()),
    ]
}

/// What removed a container's interface under it also took from the plugins what DEL has to remove elsewhere: `bridge`
/// knows its masquerading rules by the interface's addresses and is content when there is none. So there is one again.
async fn replace_interface(attachment: &Attachment, result: Option<&Value>) {
    let Some(netns) = attachment.netns.as_deref().and_then(|path| NetNs::open(path).ok()) else { return };
    // The host's own interfaces are nobody's to make.
    if !netns.is_own().is_ok_and(|own| !own) {
        return;
    }
    let Some(result) = result.and_then(|value| AddResult::deserialize(value).ok()) else { return };
    let addresses = result.ips.iter().map(|ip| ip.address).collect();
    if let Err(error) = link::stand_in(&netns, &attachment.ifname, addresses).await {
        tracing::warn!(%error, "what the CNI plugins made on the host may remain");
    }
}

/// Plugins accept an empty `CNI_NETNS` for DEL, and stumble over a path that leads nowhere.
fn is_gone(netns: &Path) -> bool {
    matches!(NetNs::open(netns), Err(NetNsError::Missing { .. }))
}

/// Section 5 of the specification, "Version".
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionAnswer {
    supported_versions: Vec<String>,
}
