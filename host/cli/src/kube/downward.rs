//! The downward API: what `fieldRef` and `resourceFieldRef` say about the pod itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use super::quantity;

/// The pod as its containers may see it.
pub(super) struct Downward<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) uid: String,
    pub(super) pod: &'a Pod,
}

impl Downward<'_> {
    /// For an environment variable.
    ///
    /// # Errors
    ///
    /// Names what is known, when `path` is not.
    pub(super) fn variable(&self, reference: &ObjectFieldSelector) -> Result<String, String> {
        self.field(&reference.field_path).ok_or_else(|| {
            format!(
                "{} is not supported: known are metadata.name, metadata.namespace, metadata.uid, \
                 metadata.labels['KEY'] and metadata.annotations['KEY']",
                reference.field_path
            )
        })
    }

    /// For a file, which can also hold all labels or annotations.
    ///
    /// # Errors
    ///
    /// As [`Self::variable`].
    pub(super) fn file(&self, reference: &ObjectFieldSelector) -> Result<String, String> {
        let metadata = &self.pod.metadata;
        match reference.field_path.as_str() {
            "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
            "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
            _ => self.variable(reference),
        }
    }

    fn field(&self, path: &str) -> Option<String> {
        match path {
            "metadata.name" => Some(self.name.to_owned()),
            "metadata.namespace" => Some(self.namespace.to_owned()),
            "metadata.uid" => Some(self.uid.clone()),
            _ => {
                let (map, key) = path.strip_suffix("']")?.split_once("['")?;
                let values = match map {
                    "metadata.labels" => &self.pod.metadata.labels,
                    "metadata.annotations" => &self.pod.metadata.annotations,
                    _ => return None,
                };
                // A label that is not set reads as empty, as in Kubernetes.
                Some(values.as_ref().and_then(|v| v.get(key)).cloned().unwrap_or_default())
            }
        }
    }

    /// A limit or request of `own`, or of the container that the reference names.
    ///
    /// # Errors
    ///
    /// When there is no such container, resource or divisor, or the container has no such limit.
    pub(super) fn resource(&self, wanted: &ResourceFieldSelector, own: Option<&Container>) -> Result<String, String> {
        let container = match wanted.container_name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => {
                self.containers().find(|c| c.name == name).ok_or_else(|| format!("there is no container {name}"))?
            }
            None => own.ok_or("a file needs a containerName")?,
        };
        let (list, name) = wanted.resource.split_once('.').unwrap_or_default();
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|r| r.limits.as_ref());
        let requests = resources.and_then(|r| r.requests.as_ref());
        let limit = limits.and_then(|limits| limits.get(name));
        let text = match (list, name) {
            // Without a limit, Kubernetes tells what the node has; here the node is made to the pod's measure.
            ("limits", "cpu" | "memory") => {
                &limit
                    .ok_or_else(|| {
                        format!(
                            "container {} has no {}: set it, or write the value itself",
                            container.name, wanted.resource
                        )
                    })?
                    .0
            }
            ("requests", "cpu" | "memory") => requests.and_then(|r| r.get(name)).or(limit).map_or("0", |q| &q.0),
            _ => {
                return Err(format!(
                    "{} is not supported: known are limits.cpu, limits.memory, requests.cpu and requests.memory",
                    wanted.resource
                ));
            }
        };
        let divisor = wanted.divisor.as_ref().map_or("1", |q| if q.0 == "0" { "1" } else { &q.0 });
        let bad = || format!("divisor {divisor} is none for {name}: {}", divisors(name).join(", "));
        if !divisors(name).contains(&divisor) {
            return Err(bad());
        }
        let read = |text: &str| {
            let parsed = if name == "cpu" { quantity::milli_cpus(text) } else { quantity::bytes(text) };
            parsed.map_err(|error| error.to_string())
        };
        let (value, divisor) = (read(text)?, read(divisor)?);
        if divisor == 0 { Err(bad()) } else { Ok(value.div_ceil(divisor).to_string()) }
    }

    fn containers(&self) -> impl Iterator<Item = &Container> {
        let spec = self.pod.spec.iter();
        spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
    }
}

/// As Kubernetes has them (`validateContainerResourceDivisor`).
fn divisors(resource: &str) -> &'static [&'static str] {
    if resource == "cpu" {
        &["1", "1m"]
    } else {
        &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"]
    }
}

/// `key="value"`, a line each (`pkg/fieldpath`).
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// In Go's syntax (`strconv.Quote`).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c if c.is_control() || c.is_whitespace() && c != ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "labels": {"b": "2", "a": "say \"x\"\n"}},
            "spec": {"containers": [
                {"name": "app", "resources": {"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"cpu": "250m"}}},
                {"name": "free"},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn resources_are_rounded_up_to_the_divisor() {
        let pod = pod();
        let downward = Downward { name: "web", namespace: "default", uid: "u".into(), pod: &pod };
        let ask = |container: &str, resource: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                container_name: Some(container.into()),
                resource: resource.into(),
                divisor: divisor.map(|d| Quantity(d.into())),
            };
            downward.resource(&selector, None)
        };
        for (resource, divisor, expected) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.cpu", Some("0"), "1"),
            ("limits.memory", None, "104857600"),
            ("limits.memory", Some("1Gi"), "1"),
            ("limits.memory", Some("1Mi"), "100"),
            ("requests.memory", Some("1Mi"), "100"),
        ] {
            assert_eq!(ask("app", resource, divisor).as_deref(), Ok(expected), "{resource} {divisor:?}");
        }
        assert_eq!(ask("free", "requests.cpu", None).as_deref(), Ok("0"));
        for (container, resource, divisor, expected) in [
            ("free", "limits.cpu", None, "container free has no limits.cpu"),
            ("none", "limits.cpu", None, "no container none"),
            ("app", "limits.ephemeral-storage", None, "not supported"),
            ("app", "memory", None, "not supported"),
            ("app", "limits.cpu", Some("1Mi"), "divisor 1Mi"),
            ("app", "limits.memory", Some("3"), "divisor 3"),
        ] {
            let error = ask(container, resource, divisor).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn all_labels_are_a_line_each_in_gos_quotes() {
        let pod = pod();
        let downward = Downward { name: "web", namespace: "default", uid: "u".into(), pod: &pod };
        let ask = |path: &str| downward.file(&ObjectFieldSelector { api_version: None, field_path: path.into() });
        assert_eq!(ask("metadata.labels").unwrap(), "a=\"say \\\"x\\\"\\n\"\nb=\"2\"");
        assert_eq!(ask("metadata.annotations").unwrap(), "");
        assert_eq!(ask("metadata.labels['b']").unwrap(), "2");
        assert!(ask("status.podIP").is_err());
        assert_eq!(quoted("\u{1}\u{7f}\u{a0}ä"), "\"\\x01\\x7f\\u00a0ä\"");
    }
}
