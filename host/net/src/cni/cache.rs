//! What a later process needs to undo an attachment, in the format of libcni's cache (`cachedInfo` in libcni/api.go).
//!
//! Unlike libcni, an entry is written before ADD, then without a result, so that no crash can hide a half-made
//! attachment.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attachment::{Attachment, RuntimeConfig};
use super::config::{ConfigError, Network};

/// libcni's own; the entries stand in `results` below it.
pub const CACHE_DIR: &str = "/var/lib/cni";

const KIND: &str = "cniCacheV1";

/// A network's configuration in base64 and a result, each at most 1 MiB, with room to spare.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("CNI cache: cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("CNI cache: {} is damaged: {problem}; remove it when the container's network is gone", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("CNI cache: {}: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
}

#[derive(Clone, Debug)]
pub(crate) struct Cache {
    results: PathBuf,
}

/// What stands in one file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) network: Network,
    pub(crate) attachment: Attachment,
    /// `None` while ADD runs, and if it never ended.
    pub(crate) result: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedInfo {
    kind: String,
    container_id: String,
    /// The network's list in base64.
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default, rename = "netns", skip_serializing_if = "Option::is_none")]
    netns: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cni_args: Vec<(String, String)>,
    #[serde(default)]
    capability_args: RuntimeConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

impl Cache {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { results: dir.join("results") }
    }

    /// The parts are checked names, in which no slash can be.
    fn path(&self, network: &str, attachment: &Attachment) -> PathBuf {
        self.results.join(format!("{network}-{}-{}", attachment.container_id, attachment.ifname))
    }

    pub(crate) fn write(&self, entry: &Entry) -> Result<(), CacheError> {
        let Entry { network, attachment, result } = entry;
        let info = CachedInfo {
            kind: KIND.into(),
            container_id: attachment.container_id.clone(),
            config: STANDARD.encode(network.source()),
            if_name: attachment.ifname.clone(),
            network_name: network.name().into(),
            netns: attachment.netns.clone(),
            cni_args: attachment.args.clone(),
            capability_args: attachment.runtime.clone(),
            result: result.clone(),
        };
        let path = self.path(network.name(), attachment);
        let text = serde_json::to_vec(&info)
            .map_err(|error| CacheError::Damaged { path: path.clone(), problem: error.to_string() })?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.results).map_err(io_error("make", &self.results))?;
        self.replace(&path, &text).map_err(io_error("write", &path))
    }

    /// Whole or not at all, also after a power cut: address management keeps its own notes on disk as well.
    fn replace(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let mut draft = self.results.join(".").into_os_string();
        draft.push(path.file_name().unwrap_or_default());
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        File::open(&self.results)?.sync_all()
    }

    pub(crate) fn read(&self, network: &str, attachment: &Attachment) -> Result<Option<Entry>, CacheError> {
        let path = self.path(network, attachment);
        let Some(entry) = read(&path)? else { return Ok(None) };
        if entry.network.name() != network
            || entry.attachment.container_id != attachment.container_id
            || entry.attachment.ifname != attachment.ifname
        {
            return Err(CacheError::Damaged { path, problem: "it is another attachment's".into() });
        }
        Ok(Some(entry))
    }

    pub(crate) fn remove(&self, network: &str, attachment: &Attachment) -> Result<(), CacheError> {
        let path = self.path(network, attachment);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(io_error("remove", &path)),
        }
    }

    /// Every entry, each with its own verdict, in the order of their names.
    pub(crate) fn list(&self) -> Result<Vec<Result<Entry, CacheError>>, CacheError> {
        let entries = match std::fs::read_dir(&self.results) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(io_error("read", &self.results))?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("read", &self.results))?;
            // Drafts begin with a dot.
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths.iter().filter_map(|path| read(path).transpose()).collect())
    }
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CacheError + 'a {
    move |source| CacheError::Io { action, path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Option<Entry>, CacheError> {
    let damaged = |problem: String| CacheError::Damaged { path: path.to_owned(), problem };
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(io_error("read", path))?,
    };
    if text.len() as u64 > MAX_BYTES {
        return Err(damaged(format!("it has more than {MAX_BYTES} bytes")));
    }
    let info: CachedInfo = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if info.kind != KIND {
        return Err(damaged(format!("its kind is {:?}", info.kind)));
    }
    let config = STANDARD.decode(&info.config).map_err(|error| damaged(error.to_string()))?;
    let network = Network::parse(&config, &format!("in {}", path.display()))
        .map_err(|source| CacheError::Config { path: path.to_owned(), source })?;
    let attachment = Attachment {
        container_id: info.container_id,
        netns: info.netns,
        ifname: info.if_name,
        args: info.cni_args,
        runtime: info.capability_args,
    };
    attachment.check().map_err(|error| damaged(error.to_string()))?;
    Ok(Some(Entry { network, attachment, result: info.result }))
}
