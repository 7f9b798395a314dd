//! YAML documents as a tree that remembers where each node stood, so that a complaint can name line and column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// One YAML node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Flag(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    /// As an error message names it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// Null, an empty list and an empty mapping say nothing: Kubernetes treats them as not set.
    pub(crate) fn is_unset(&self) -> bool {
        match self {
            Self::Null => true,
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Flag(flag) => serde_json::Value::Bool(*flag),
            Self::Number(number) => serde_json::Value::Number(number.clone()),
            Self::Text(text) => serde_json::Value::String(text.clone()),
            Self::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Map(entries) => {
                entries.iter().map(|(name, node)| (name.value.clone(), node.value.to_json())).collect()
            }
        }
    }

    /// The value of `name` in a mapping.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(n, _)| n.value == name).map(|(_, node)| &node.value),
            _ => None,
        }
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Flag(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Number(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Node, E> {
        serde_json::Number::from_f64(v).map(Node::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Text(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Node, E> {
        Ok(Node::Text(v))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// The documents of a manifest, empty ones left out.
///
/// # Errors
///
/// When the text is no YAML; the message has line and column.
pub(crate) fn documents(text: &str) -> Result<Vec<Spanned<Node>>, serde_saphyr::Error> {
    // `defaultMode: 0644` is octal to Kubernetes, which reads YAML 1.1.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Spanned<Node>> = serde_saphyr::from_multiple_with_options(text, options)?;
    Ok(documents.into_iter().filter(|d| d.value != Node::Null).collect())
}

/// ` (line 3, column 5)`, or nothing when the place is not known.
pub(crate) fn place(location: Location) -> String {
    if location.line() == 0 {
        String::new()
    } else {
        format!(" (line {}, column {})", location.line(), location.column())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_becomes_a_tree_with_places() {
        let docs = documents("a: 1\nb:\n  - x\n  - 2.5\n---\n---\nc: ~\nd: true\n").unwrap();
        assert_eq!(docs.len(), 2);
        assert_eq!(docs[0].value.to_json(), serde_json::json!({"a": 1, "b": ["x", 2.5]}));
        assert_eq!(docs[1].value.to_json(), serde_json::json!({"c": null, "d": true}));
        let Node::Map(entries) = &docs[0].value else { panic!("no mapping") };
        assert_eq!(place(entries[1].0.referenced), " (line 2, column 1)");
    }

    #[test]
    fn a_number_with_a_leading_zero_is_octal() {
        let docs = documents("[0644, 420, \"0644\", 0o644, 0]").unwrap();
        assert_eq!(docs[0].value.to_json(), serde_json::json!([420, 420, "0644", 420, 0]));
    }

    #[test]
    fn a_text_that_is_no_yaml_is_refused() {
        assert!(documents("a: [1, 2").is_err());
        assert!(documents("a: 1\na: 2\n").is_err(), "a name twice");
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let refs = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        assert!(documents(&bomb).is_err());
    }
}
