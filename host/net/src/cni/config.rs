//! A network configuration: specification 1.1, section 1.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::attachment::Capability;
use super::version::Version;

/// A network: what its plugins are and in which order they run.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    name: String,
    version: Version,
    disable_check: bool,
    plugins: Vec<PluginConfig>,
    /// The list as JSON, for the cache.
    source: Vec<u8>,
}

/// One plugin's part of a network configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PluginConfig {
    /// The `type`: the name of the program.
    pub(crate) kind: String,
    pub(crate) fields: Map<String, Value>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("CNI configuration {origin} has more than {limit} bytes")]
    TooLarge { origin: String, limit: u64 },
    #[error("CNI configuration {origin} is not JSON: {source}")]
    Json { origin: String, source: serde_json::Error },
    #[error("CNI configuration {origin}: {field} {problem}")]
    Field { origin: String, field: String, problem: String },
    #[error(
        "CNI configuration {origin}: cniVersion {version} is not one that Husk speaks; \
         set it to one of 0.3.0, 0.3.1, 0.4.0, 1.0.0 and 1.1.0"
    )]
    Version { origin: String, version: String },
}

impl Network {
    /// Reads a list of plugins (`.conflist`) or one plugin's configuration (`.conf`, `.json`), told apart by their
    /// content. `origin` names it in errors.
    pub fn parse(text: &[u8], origin: &str) -> Result<Self, ConfigError> {
        let reader = Reader { origin };
        let value: Value =
            serde_json::from_slice(text).map_err(|source| ConfigError::Json { origin: origin.to_owned(), source })?;
        let Value::Object(fields) = value else { return Err(reader.field("it", "is not an object")) };
        let name = reader.name(&fields)?;
        let version = reader.version(&fields)?;
        if fields.contains_key("plugins") {
            let plugins = reader.plugins(&fields)?;
            let disable_check = reader.disable_check(&fields)?;
            return Ok(Self { name, version, disable_check, plugins, source: text.to_vec() });
        }
        let list = json!({ "name": name, "cniVersion": version, "plugins": [fields] });
        let plugin = reader.plugin("it", &Value::Object(fields))?;
        Ok(Self { name, version, disable_check: false, plugins: vec![plugin], source: list.to_string().into_bytes() })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The plugins' programs, in the order in which ADD runs them.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(|plugin| plugin.kind.as_str())
    }

    /// Whether a plugin of the network takes this from the runtime. What none takes is not passed to any; it is for
    /// the caller to refuse it, because some networks do the same by other means (Cilium publishes ports by itself).
    #[must_use]
    pub fn declares(&self, capability: Capability) -> bool {
        self.plugins.iter().any(|plugin| plugin.declares(capability))
    }

    pub(crate) fn disables_check(&self) -> bool {
        self.disable_check
    }

    pub(crate) fn configs(&self) -> &[PluginConfig] {
        &self.plugins
    }

    pub(crate) fn source(&self) -> &[u8] {
        &self.source
    }
}

impl PluginConfig {
    pub(crate) fn declares(&self, capability: Capability) -> bool {
        self.fields.get("capabilities").and_then(|all| all.get(capability.as_str())).and_then(Value::as_bool)
            == Some(true)
    }
}

/// Whether a name is one by section 1 and section 2 of the specification: also a plain file name.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && name.bytes().all(plain)
}

struct Reader<'a> {
    origin: &'a str,
}

impl Reader<'_> {
    fn field(&self, field: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Field { origin: self.origin.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    fn name(&self, fields: &Map<String, Value>) -> Result<String, ConfigError> {
        match fields.get("name") {
            Some(Value::String(name)) if is_name(name) => Ok(name.clone()),
            None => Err(self.field("name", "is missing")),
            Some(_) => Err(self.field("name", "is not letters, digits, dots, underscores and hyphens")),
        }
    }

    /// The highest of `cniVersions` (since 1.1.0) that we know, else `cniVersion`.
    fn version(&self, fields: &Map<String, Value>) -> Result<Version, ConfigError> {
        let several = fields.get("cniVersions").and_then(Value::as_array);
        let known = several.into_iter().flatten().filter_map(Value::as_str).filter_map(Version::parse).max();
        if let Some(version) = known {
            return Ok(version);
        }
        let bad = |version: &str| ConfigError::Version { origin: self.origin.to_owned(), version: version.to_owned() };
        match fields.get("cniVersion") {
            Some(Value::String(text)) => Version::parse(text).ok_or_else(|| bad(text)),
            Some(other) => Err(bad(&other.to_string())),
            None => Err(bad("(absent, which means 0.1.0)")),
        }
    }

    fn disable_check(&self, fields: &Map<String, Value>) -> Result<bool, ConfigError> {
        match fields.get("disableCheck") {
            None => Ok(false),
            Some(Value::Bool(disable)) => Ok(*disable),
            // libcni takes these, so files have them.
            Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
            Some(_) => Err(self.field("disableCheck", "is neither true nor false")),
        }
    }

    fn plugins(&self, fields: &Map<String, Value>) -> Result<Vec<PluginConfig>, ConfigError> {
        let Some(Value::Array(plugins)) = fields.get("plugins") else {
            return Err(self.field("plugins", "is not a list"));
        };
        if plugins.is_empty() {
            return Err(self.field("plugins", "is empty"));
        }
        plugins.iter().enumerate().map(|(at, plugin)| self.plugin(&format!("plugins[{at}]"), plugin)).collect()
    }

    fn plugin(&self, at: &str, plugin: &Value) -> Result<PluginConfig, ConfigError> {
        let Value::Object(fields) = plugin else { return Err(self.field(at, "is not an object")) };
        match fields.get("type") {
            // A name to be looked up in the plugin directories, never a path.
            Some(Value::String(kind)) if is_name(kind) => {
                Ok(PluginConfig { kind: kind.clone(), fields: fields.clone() })
            }
            None => Err(self.field(at, "has no type, which names the plugin")),
            Some(kind) => Err(self.field(at, format!("has the type {kind}, which names no plugin"))),
        }
    }
}
