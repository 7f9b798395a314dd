//! What plugins answer to ADD: specification 1.1, section 5.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::attachment::Dns;
use super::version::Version;
use crate::ip::IpNet;

/// The result of a network's last plugin, whatever version it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AddResult {
    #[serde(deserialize_with = "or_default")]
    pub interfaces: Vec<ResultInterface>,
    #[serde(deserialize_with = "or_default")]
    pub ips: Vec<ResultIp>,
    #[serde(deserialize_with = "or_default")]
    pub routes: Vec<ResultRoute>,
    #[serde(deserialize_with = "or_default")]
    pub dns: Dns,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResultInterface {
    pub name: String,
    /// As the plugin wrote it; may be empty.
    #[serde(default)]
    pub mac: String,
    /// The namespace that the interface is in; `None`: the host's.
    #[serde(default, deserialize_with = "not_empty")]
    pub sandbox: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResultIp {
    pub address: IpNet,
    #[serde(default, deserialize_with = "address_or_empty")]
    pub gateway: Option<IpAddr>,
    /// Index into [`AddResult::interfaces`], checked.
    #[serde(default)]
    pub interface: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResultRoute {
    pub dst: IpNet,
    /// `None`: the gateway of an address of the same family.
    #[serde(default, deserialize_with = "address_or_empty")]
    pub gw: Option<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum BadResult {
    #[error(
        "plugin {plugin} of network {network} answered ADD with what is no CNI result: {source}; it wrote {text:?}"
    )]
    Json { plugin: String, network: String, text: String, source: serde_json::Error },
    #[error(
        "plugin {plugin} of network {network} answered ADD with a result of CNI {version}, which Husk does not speak"
    )]
    Version { plugin: String, network: String, version: String },
    #[error("plugin {plugin} of network {network} gave the address {address} to interface {index}, of {count}")]
    Interface { plugin: String, network: String, address: IpNet, index: usize, count: usize },
}

/// A plugin's result, checked, and as the network's next plugin and the cache want it.
#[derive(Clone, Debug)]
pub(crate) struct RawResult {
    pub(crate) value: Value,
    pub(crate) result: AddResult,
}

impl RawResult {
    pub(crate) fn parse(text: &[u8], plugin: &str, network: &str, version: Version) -> Result<Self, BadResult> {
        let json = |source| BadResult::Json {
            plugin: plugin.to_owned(),
            network: network.to_owned(),
            text: super::plugin::printable(text),
            source,
        };
        let mut fields: Map<String, Value> = serde_json::from_slice(text).map_err(json)?;
        match fields.get("cniVersion").and_then(Value::as_str) {
            Some(theirs) if Version::parse(theirs).is_none() => {
                return Err(BadResult::Version {
                    plugin: plugin.to_owned(),
                    network: network.to_owned(),
                    version: theirs.chars().take(32).collect(),
                });
            }
            _ => {}
        }
        let result: AddResult = serde_json::from_value(Value::Object(fields.clone())).map_err(json)?;
        let count = result.interfaces.len();
        for ip in &result.ips {
            if let Some(index) = ip.interface.filter(|index| *index >= count) {
                return Err(BadResult::Interface {
                    plugin: plugin.to_owned(),
                    network: network.to_owned(),
                    address: ip.address,
                    index,
                    count,
                });
            }
        }
        convert(&mut fields, &result, version);
        Ok(Self { value: Value::Object(fields), result })
    }
}

/// A plugin may answer in another version than the network's, in which the next plugin expects it. Only `ips` differ.
fn convert(fields: &mut Map<String, Value>, result: &AddResult, version: Version) {
    fields.insert("cniVersion".into(), version.as_str().into());
    let Some(Value::Array(ips)) = fields.get_mut("ips") else { return };
    for (ip, typed) in ips.iter_mut().zip(&result.ips) {
        let Value::Object(ip) = ip else { continue };
        if version >= Version::V1_0_0 {
            ip.remove("version");
        } else {
            let family = if typed.address.address().is_ipv4() { "4" } else { "6" };
            ip.insert("version".into(), family.into());
        }
    }
}

/// Plugins in Go write `null` for an empty list.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn not_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(Option::<PathBuf>::deserialize(deserializer)?.filter(|path| !path.as_os_str().is_empty()))
}

fn address_or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, version: Version) -> Result<RawResult, BadResult> {
        RawResult::parse(text.as_bytes(), "bridge", "net", version)
    }

    #[test]
    fn results_of_every_version_are_one_type() {
        let old = r#"{"cniVersion":"0.3.1","interfaces":[{"name":"br0","mac":"02:00:00:00:00:01"},
            {"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/a"}],
            "ips":[{"version":"4","interface":1,"address":"10.1.0.2/16","gateway":"10.1.0.1"}],
            "routes":[{"dst":"0.0.0.0/0"}],"dns":{}}"#;
        let new = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"br0","mac":"02:00:00:00:00:01","mtu":1500},
            {"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/a","socketPath":""}],
            "ips":[{"interface":1,"address":"10.1.0.2/16","gateway":"10.1.0.1"}],
            "routes":[{"dst":"0.0.0.0/0","priority":5}],"dns":{"nameservers":null}}"#;
        let old = parse(old, Version::V0_3_1).unwrap().result;
        assert_eq!(old, parse(&new.replace(r#""nameservers":null"#, ""), Version::V1_1_0).unwrap().result);
        assert_eq!(old.ips[0].address.to_string(), "10.1.0.2/16");
        assert_eq!(old.interfaces[1].sandbox.as_deref(), Some("/run/netns/a".as_ref()));
        assert_eq!(old.interfaces[0].sandbox, None);
    }

    #[test]
    fn a_result_of_another_version_is_converted_for_the_next_plugin() {
        let old = r#"{"cniVersion":"0.4.0","ips":[{"version":"6","address":"fd00::2/64"}]}"#;
        let value = parse(old, Version::V1_0_0).unwrap().value;
        assert_eq!(value.to_string(), r#"{"cniVersion":"1.0.0","ips":[{"address":"fd00::2/64"}]}"#);
        let value = parse(&value.to_string(), Version::V0_3_0).unwrap().value;
        assert_eq!(value["ips"][0]["version"], "6");
    }

    #[test]
    fn nulls_and_empty_strings_are_absent() {
        let text = r#"{"interfaces":null,"ips":[{"address":"10.1.0.2/16","gateway":""}],"routes":null,"dns":null}"#;
        let result = parse(text, Version::V1_0_0).unwrap().result;
        assert_eq!((result.ips[0].gateway, result.routes.len()), (None, 0));
    }

    #[test]
    fn what_is_no_result_is_named() {
        for (text, words) in [
            ("", "no CNI result: EOF"),
            ("[]", "no CNI result"),
            ("hello\u{7}", r"it wrote"),
            (r#"{"ips":[{"address":"10.1.0.2"}]}"#, "such as 10.1.2.3/16"),
            (r#"{"ips":[{"address":"10.1.0.2/16","interface":0}]}"#, "to interface 0, of 0"),
            (r#"{"ips":[{"address":"10.1.0.2/16","interface":-1}]}"#, "no CNI result"),
            (r#"{"cniVersion":"0.2.0","ip4":{}}"#, "CNI 0.2.0, which Husk does not speak"),
        ] {
            let error = parse(text, Version::V1_0_0).unwrap_err().to_string();
            assert!(error.contains("plugin bridge of network net") && error.contains(words), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_plugin_writes_is_a_result_or_an_error(text in r#"[\[\]{}":,0-9a-z./ \\-]{0,80}"#) {
            let _ = parse(&text, Version::V1_0_0);
        }

        #[test]
        fn a_result_means_the_same_in_every_version(
            ips in proptest::collection::vec((proptest::arbitrary::any::<std::net::IpAddr>(), 0_u8..=32), 0..4),
            from in proptest::sample::select(Version::ALL.to_vec()),
            to in proptest::sample::select(Version::ALL.to_vec()),
        ) {
            let ips: Vec<_> = ips.iter().map(|(ip, prefix)| serde_json::json!({ "address": format!("{ip}/{prefix}") })).collect();
            let text = serde_json::json!({ "cniVersion": from, "ips": ips, "other": 1 }).to_string();
            let one = parse(&text, to).unwrap();
            let other = parse(&one.value.to_string(), from).unwrap();
            proptest::prop_assert_eq!(&one.result, &other.result);
            proptest::prop_assert_eq!(&one.value["other"], 1);
        }
    }
}
