//! The strict walk: every field that a manifest sets is one that Husk honours, or the manifest is refused.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_saphyr::{Location, Spanned};

use super::objects::ObjectKind;
use super::supported::{self, Field, Rule, Shape, Value};
use super::yaml::{Node, place};

/// One step of a path, kept so that the same path can be looked up in JSON.
#[derive(Debug, Clone)]
enum Step {
    Name(String),
    Index(usize),
}

/// Everything wrong with a document of kind Pod.
///
/// # Errors
///
/// The problems, in the order of the document, each with its full path.
pub(super) fn pod(document: &Node) -> Result<(), Vec<String>> {
    walk::<Pod>("Pod", document, supported::POD)
}

/// As [`pod`], for a ConfigMap or Secret.
///
/// # Errors
///
/// As [`pod`].
pub(super) fn object(kind: ObjectKind, document: &Node) -> Result<(), Vec<String>> {
    match kind {
        ObjectKind::ConfigMap => walk::<ConfigMap>("ConfigMap", document, supported::CONFIG_MAP),
        ObjectKind::Secret => walk::<Secret>("Secret", document, supported::SECRET),
    }
}

fn walk<T: DeserializeOwned + Serialize>(
    kind: &str,
    document: &Node,
    fields: &'static [Field],
) -> Result<(), Vec<String>> {
    let mut walk = Walk { problems: Vec::new(), known: known_to_kubernetes::<T>(document), path: Vec::new() };
    match document {
        Node::Map(entries) => walk.object(entries, fields),
        other => walk.problems.push(format!("a {kind} is a mapping, not {}", other.kind())),
    }
    if walk.problems.is_empty() { Ok(()) } else { Err(walk.problems) }
}

/// The document as Kubernetes' own types keep it: what is missing in it is no field of theirs at all.
fn known_to_kubernetes<T: DeserializeOwned + Serialize>(document: &Node) -> Option<Json> {
    let known: T = serde_json::from_value(with_quantities_as_text(document.to_json())).ok()?;
    serde_json::to_value(known).ok()
}

struct Walk {
    problems: Vec<String>,
    /// `None` when the document does not even read as one of its kind (some value has the wrong type).
    known: Option<Json>,
    path: Vec<Step>,
}

impl Walk {
    fn object(&mut self, entries: &[(Spanned<String>, Spanned<Node>)], fields: &'static [Field]) {
        for (name, node) in entries {
            self.path.push(Step::Name(name.value.clone()));
            if !node.value.is_unset() {
                match fields.iter().find(|f| f.name == name.value) {
                    Some(field) => self.field(name, node, &field.rule),
                    None => self.unlisted(name.referenced, fields),
                }
            }
            self.path.pop();
        }
    }

    fn field(&mut self, name: &Spanned<String>, node: &Spanned<Node>, rule: &'static Rule) {
        match rule {
            Rule::Take(shape) => self.value(node, shape),
            Rule::Refuse(advice) => self.problem(name.referenced, &format!("not supported: {advice}")),
            Rule::Only(value, advice) => {
                let (same, text) = match (value, &node.value) {
                    (Value::Flag(only), Node::Flag(flag)) => (only == flag, flag.to_string()),
                    (Value::Text(only), Node::Text(text)) => (only == text, format!("\"{text}\"")),
                    (_, other) => (false, other.kind().to_owned()),
                };
                if !same {
                    self.problem(name.referenced, &format!("{text} is not supported: {advice}"));
                }
            }
        }
    }

    fn value(&mut self, node: &Spanned<Node>, shape: &'static Shape) {
        let wanted = match (shape, &node.value) {
            (Shape::Text, Node::Text(_)) | (Shape::Flag, Node::Flag(_)) => return,
            (Shape::Quantity, Node::Text(_) | Node::Number(_)) => return,
            (Shape::WholeOrText, Node::Text(_)) => return,
            (Shape::WholeOrText, Node::Number(n)) if n.is_i64() => return,
            (Shape::Whole, Node::Number(n)) if n.is_i64() => return,
            (Shape::Text, _) => "text (put it in quotes)",
            (Shape::Flag, _) => "true or false",
            (Shape::Whole, _) => "a whole number",
            (Shape::WholeOrText, _) => "a number or text",
            (Shape::Quantity, _) => "a quantity such as 128Mi or 500m",
            (Shape::List(each), Node::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push(Step::Index(index));
                    self.value(item, each);
                    self.path.pop();
                }
                return;
            }
            (Shape::List(_), _) => "a list",
            (Shape::Names(each), Node::Map(entries)) => {
                for (name, item) in entries {
                    self.path.push(Step::Name(name.value.clone()));
                    self.value(item, each);
                    self.path.pop();
                }
                return;
            }
            (Shape::Object(fields), Node::Map(entries)) => return self.object(entries, fields),
            (Shape::Names(_) | Shape::Object(_), _) => "a mapping",
        };
        self.problem(node.referenced, &format!("expected {wanted}, found {}", node.value.kind()));
    }

    fn unlisted(&mut self, at: Location, fields: &'static [Field]) {
        if self.known.as_ref().is_none_or(|known| lookup(known, &self.path)) {
            self.problem(at, "not supported by this version of husk: remove it");
        } else {
            let names: Vec<_> = fields.iter().filter(|f| !matches!(f.rule, Rule::Refuse(_))).map(|f| f.name).collect();
            self.problem(at, &format!("no such field: known here are {}", names.join(", ")));
        }
    }

    fn problem(&mut self, at: Location, text: &str) {
        let path = render(&self.path);
        self.problems.push(format!("{path}{}: {text}", place(at)));
    }
}

fn lookup(known: &Json, path: &[Step]) -> bool {
    let mut at = Some(known);
    for step in path {
        at = at.and_then(|value| match step {
            Step::Name(name) => value.get(name),
            Step::Index(index) => value.get(index),
        });
    }
    at.is_some()
}

fn render(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Name(name) if text.is_empty() => text.push_str(name),
            Step::Name(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Kubernetes takes `cpu: 1` as well as `cpu: "1"`; its generated types take text only.
pub(super) fn with_quantities_as_text(mut document: Json) -> Json {
    quantities_to_text(&mut document);
    document
}

fn quantities_to_text(value: &mut Json) {
    match value {
        Json::Array(items) => items.iter_mut().for_each(quantities_to_text),
        Json::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), &mut *value) {
                    ("limits" | "requests", Json::Object(quantities)) => {
                        quantities.values_mut().for_each(number_to_text);
                    }
                    ("sizeLimit" | "divisor", value) => number_to_text(value),
                    (_, value) => quantities_to_text(value),
                }
            }
        }
        _ => {}
    }
}

fn number_to_text(value: &mut Json) {
    if let Json::Number(number) = value {
        *value = Json::String(number.to_string());
    }
}
