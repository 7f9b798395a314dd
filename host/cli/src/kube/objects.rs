//! ConfigMaps and Secrets: the documents beside the pods, from which volumes and environments are made.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::convert::Problems;
use super::names::{KEY_RULE, is_dns_subdomain, is_key};
use super::yaml::Node;

/// What one object may hold (k8s.io/api `MaxSecretSize`).
const LARGEST: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectKind {
    ConfigMap,
    Secret,
}

impl ObjectKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// Values by their keys. Not `Debug`: they may be secrets.
#[derive(Clone, Default)]
pub(super) struct Object {
    /// What an environment variable can be.
    text: BTreeMap<String, Vec<u8>>,
    /// `binaryData` of a ConfigMap, which only volumes show.
    binary: BTreeMap<String, Vec<u8>>,
}

impl Object {
    /// As files show it, by key.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.text.iter().chain(&self.binary).map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    pub(super) fn file(&self, key: &str) -> Option<&[u8]> {
        self.text.get(key).or_else(|| self.binary.get(key)).map(Vec::as_slice)
    }

    /// As environment variables show it, by key.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.text.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    pub(super) fn variable(&self, key: &str) -> Option<&[u8]> {
        self.text.get(key).map(Vec::as_slice)
    }
}

/// All objects that pods can refer to. The namespace is not looked at: there is one machine, and podman's users leave
/// it away.
#[derive(Default)]
pub(super) struct Objects {
    config_maps: BTreeMap<String, Object>,
    secrets: BTreeMap<String, Object>,
}

impl Objects {
    pub(super) fn get(&self, kind: ObjectKind, name: &str) -> Option<&Object> {
        match kind {
            ObjectKind::ConfigMap => self.config_maps.get(name),
            ObjectKind::Secret => self.secrets.get(name),
        }
    }

    /// Adds a document whose fields have all passed `check`.
    pub(super) fn add(&mut self, kind: ObjectKind, document: &Node, problems: &mut Problems) {
        let name = match document.get("metadata").and_then(|metadata| metadata.get("name")) {
            Some(Node::Text(name)) => name.clone(),
            _ => String::new(),
        };
        let what = format!("{} {name}", kind.as_str());
        if !is_dns_subdomain(&name) {
            problems.add(&format!("{}: metadata.name", kind.as_str()), format!("\"{name}\" is no name of an object"));
            return;
        }
        let mut object = Object::default();
        let mut total = 0usize;
        for (field, encoded) in [("data", kind == ObjectKind::Secret), ("stringData", false), ("binaryData", true)] {
            for (key, text) in entries(document, field) {
                let path = format!("{what}: {field}[\"{key}\"]");
                if !is_key(key) {
                    problems.add(&path, format!("this is no key: {KEY_RULE}"));
                    continue;
                }
                // The value is not shown in what is said about it.
                let Some(value) = (if encoded { decoded(text) } else { Some(text.as_bytes().to_vec()) }) else {
                    problems.add(&path, "the value is not in base64; in a Secret, stringData takes plain text");
                    continue;
                };
                total = total.saturating_add(value.len());
                let (into, other) = if field == "binaryData" {
                    (&mut object.binary, &object.text)
                } else {
                    (&mut object.text, &object.binary)
                };
                if other.contains_key(key) {
                    problems.add(&path, "the key is in data already");
                }
                into.insert(key.to_owned(), value);
            }
        }
        if total > LARGEST {
            problems.add(&what, format!("its values have {total} bytes, more than {LARGEST} (1 MiB)"));
        }
        let of_kind = match kind {
            ObjectKind::ConfigMap => &mut self.config_maps,
            ObjectKind::Secret => &mut self.secrets,
        };
        if of_kind.insert(name, object).is_some() {
            problems.add(&what, "there are two of this name");
        }
    }
}

fn entries<'a>(document: &'a Node, field: &str) -> Vec<(&'a str, &'a str)> {
    let Some(Node::Map(entries)) = document.get(field) else { return Vec::new() };
    let text = |node: &'a Node| if let Node::Text(text) = node { Some(text.as_str()) } else { None };
    entries.iter().filter_map(|(key, node)| Some((key.value.as_str(), text(&node.value)?))).collect()
}

/// Line breaks do not count, as in Go's decoder.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::yaml;

    fn add(objects: &mut Objects, kind: ObjectKind, text: &str) -> Vec<String> {
        let documents = yaml::documents(text).unwrap();
        let mut problems = Problems::default();
        objects.add(kind, &documents[0].value, &mut problems);
        problems.0
    }

    #[test]
    fn a_secret_is_decoded_and_string_data_wins() {
        let mut objects = Objects::default();
        let text = "metadata: {name: s}\ndata: {a: aHVudGVy, b: \"aHVu\\ndGVyMg==\"}\nstringData: {a: plain}\n";
        assert!(add(&mut objects, ObjectKind::Secret, text).is_empty());
        let secret = objects.get(ObjectKind::Secret, "s").unwrap();
        assert_eq!(secret.variable("a"), Some(&b"plain"[..]));
        assert_eq!(secret.file("b"), Some(&b"hunter2"[..]));
        assert!(objects.get(ObjectKind::ConfigMap, "s").is_none());
    }

    #[test]
    fn binary_data_is_for_files_only() {
        let mut objects = Objects::default();
        let text = "metadata: {name: c}\ndata: {a: aHVudGVy}\nbinaryData: {b: AP8=}\n";
        assert!(add(&mut objects, ObjectKind::ConfigMap, text).is_empty());
        let map = objects.get(ObjectKind::ConfigMap, "c").unwrap();
        assert_eq!((map.variable("a"), map.variable("b")), (Some(&b"aHVudGVy"[..]), None));
        assert_eq!(map.file("b"), Some(&[0, 255][..]));
        assert_eq!(map.files().count(), 2);
    }

    #[test]
    fn hostile_and_broken_objects_are_refused_without_showing_values() {
        let large = format!("metadata: {{name: c}}\ndata: {{a: {}}}\n", "x".repeat(LARGEST + 1));
        for (kind, text, expected) in [
            (
                ObjectKind::Secret,
                "metadata: {name: s}\ndata: {a: hunter2!}\n",
                "Secret s: data[\"a\"]: the value is not",
            ),
            (ObjectKind::ConfigMap, "metadata: {name: c}\ndata: {../../etc/passwd: x}\n", "this is no key"),
            (ObjectKind::ConfigMap, "metadata: {name: c}\ndata: {..data: x}\n", "this is no key"),
            (ObjectKind::ConfigMap, "metadata: {name: c}\ndata: {a: x}\nbinaryData: {a: eA==}\n", "in data already"),
            (ObjectKind::ConfigMap, "metadata: {name: ../c}\n", "is no name of an object"),
            (ObjectKind::ConfigMap, large.as_str(), "more than 1048576"),
        ] {
            let problems = add(&mut Objects::default(), kind, text);
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert!(problem.contains(expected) && !problem.contains("hunter2"), "{problem}");
        }
        let mut objects = Objects::default();
        let text = "metadata: {name: c}\n";
        assert!(add(&mut objects, ObjectKind::ConfigMap, text).is_empty());
        assert_eq!(add(&mut objects, ObjectKind::ConfigMap, text), ["ConfigMap c: there are two of this name"]);
    }
}
