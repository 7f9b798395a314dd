//! What a plugin reads: specification 1.1, section 3, "Deriving request configuration".

use serde_json::{Map, Value};

use super::attachment::{Capability, RuntimeConfig};
use super::config::{Network, PluginConfig};

pub(crate) fn request(
    network: &Network,
    plugin: &PluginConfig,
    runtime: &RuntimeConfig,
    previous: Option<&Value>,
) -> Vec<u8> {
    let mut fields = plugin.fields.clone();
    fields.insert("name".into(), network.name().into());
    fields.insert("cniVersion".into(), network.version().as_str().into());
    let parts: Map<String, Value> = Capability::ALL
        .into_iter()
        .filter(|capability| plugin.declares(*capability))
        .filter_map(|capability| Some((capability.as_str().to_owned(), runtime.part(capability)?)))
        .collect();
    if !parts.is_empty() {
        fields.insert("runtimeConfig".into(), parts.into());
    }
    if let Some(previous) = previous {
        fields.insert("prevResult".into(), previous.clone());
    }
    Value::Object(fields).to_string().into_bytes()
}
