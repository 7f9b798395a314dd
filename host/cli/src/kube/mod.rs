//! Kubernetes manifests: from YAML text to a [`PodPlan`](crate::pods::plan::PodPlan).
//!
//! The rule of this module is that nothing is dropped in silence: `check` walks every field that a manifest sets and
//! refuses, by its full path, each that Husk does not honour; only then is the manifest read as a typed Pod and turned
//! into a plan. Running the plan is the business of [`crate::pods`].

mod check;
mod convert;
mod downward;
mod env;
mod expand;
mod health;
mod limits;
mod names;
mod network;
mod objects;
pub(crate) mod quantity;
mod security;
mod supported;
mod volumes;
mod yaml;

use k8s_openapi::api::core::v1::Pod;
use serde_saphyr::Spanned;
use thiserror::Error;

use crate::pods::plan::PodPlan;
use convert::Problems;
use objects::{ObjectKind, Objects};
use yaml::Node;

/// Why a manifest cannot be played.
#[derive(Debug, Error)]
pub(crate) enum ManifestError {
    #[error("{name} is no YAML: {cause}")]
    Yaml { name: String, cause: String },
    #[error("{name} holds no Pod")]
    Empty { name: String },
    #[error("{name}{place}: kind {kind} is not supported: {wanted}")]
    Kind { name: String, place: String, kind: String, wanted: &'static str },
    #[error("{name} cannot be played as it stands:{}", list(problems))]
    Refused { name: String, problems: Vec<String> },
}

/// One problem stands on the line; several get a line each.
fn list(problems: &[String]) -> String {
    match problems {
        [one] => format!(" {one}"),
        many => many.iter().map(|p| format!("\n  {p}")).collect(),
    }
}

/// A text and what to call it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

const IN_MANIFEST: &str = "husk plays manifests of kind Pod (apiVersion v1), and ConfigMaps and Secrets for them";
const IN_CONFIG_MAPS: &str = "a file for --configmap holds ConfigMaps (apiVersion v1); a Secret goes into the manifest";

enum Kind {
    Pod,
    Object(ObjectKind),
}

/// Reads every Pod of a manifest, with the ConfigMaps and Secrets beside it and those of `config_maps`. Either all
/// documents are good or none is used.
///
/// # Errors
///
/// For text that is no YAML, documents of another kind, and every field that cannot be honoured: all of them in one
/// error, each with its full path.
pub(crate) fn read(manifest: &Source, config_maps: &[Source]) -> Result<Vec<PodPlan>, ManifestError> {
    let mut problems = Problems::default();
    let mut objects = Objects::default();
    for source in config_maps {
        for document in documents(source)? {
            match kind(&document.value) {
                Ok(Kind::Object(ObjectKind::ConfigMap)) => {
                    object(ObjectKind::ConfigMap, &document.value, &mut objects, &mut problems);
                }
                Ok(other) => return Err(refused(source, &document, other.to_string(), IN_CONFIG_MAPS)),
                Err(other) => return Err(refused(source, &document, other, IN_CONFIG_MAPS)),
            }
        }
        if !problems.0.is_empty() {
            return Err(ManifestError::Refused { name: source.name.clone(), problems: problems.0 });
        }
    }
    let mut pods = Vec::new();
    for document in documents(manifest)? {
        match kind(&document.value) {
            Ok(Kind::Pod) => pods.push(document.value),
            Ok(Kind::Object(kind)) => object(kind, &document.value, &mut objects, &mut problems),
            Err(other) => return Err(refused(manifest, &document, other, IN_MANIFEST)),
        }
    }
    if pods.is_empty() && problems.0.is_empty() {
        return Err(ManifestError::Empty { name: manifest.name.clone() });
    }
    let mut plans: Vec<PodPlan> = Vec::new();
    for document in &pods {
        match pod(document, &objects) {
            Ok(plan) if plans.iter().any(|p| p.name == plan.name) => {
                problems.add("metadata.name", format!("there are two pods named {}", plan.name));
            }
            Ok(plan) => plans.push(plan),
            Err(mut found) => problems.0.append(&mut found),
        }
    }
    if problems.0.is_empty() {
        return Ok(plans);
    }
    Err(ManifestError::Refused { name: manifest.name.clone(), problems: problems.0 })
}

/// The names of a manifest's pods, whatever else is in it: what was once played can be taken down.
///
/// # Errors
///
/// For text that is no YAML or holds no Pod.
pub(crate) fn pod_names(manifest: &Source) -> Result<Vec<String>, ManifestError> {
    let documents = documents(manifest)?;
    let pods = documents.iter().filter(|document| matches!(kind(&document.value), Ok(Kind::Pod)));
    let names: Vec<_> = pods
        .filter_map(|document| match document.value.get("metadata")?.get("name")? {
            Node::Text(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    if names.is_empty() { Err(ManifestError::Empty { name: manifest.name.clone() }) } else { Ok(names) }
}

fn documents(source: &Source) -> Result<Vec<Spanned<Node>>, ManifestError> {
    yaml::documents(&source.text).map_err(|e| ManifestError::Yaml { name: source.name.clone(), cause: first_line(&e) })
}

/// What a document is, or what it calls itself.
fn kind(document: &Node) -> Result<Kind, String> {
    let text = |field: &str| match document.get(field) {
        Some(Node::Text(text)) => text.as_str(),
        _ => "(none)",
    };
    match (text("kind"), text("apiVersion")) {
        ("Pod", "v1") => Ok(Kind::Pod),
        ("ConfigMap", "v1") => Ok(Kind::Object(ObjectKind::ConfigMap)),
        ("Secret", "v1") => Ok(Kind::Object(ObjectKind::Secret)),
        (kind, version) => Err(format!("{kind} (apiVersion {version})")),
    }
}

fn refused(source: &Source, document: &Spanned<Node>, kind: String, wanted: &'static str) -> ManifestError {
    ManifestError::Kind { name: source.name.clone(), place: yaml::place(document.referenced), kind, wanted }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pod => "Pod",
            Self::Object(kind) => kind.as_str(),
        })
    }
}

fn object(kind: ObjectKind, document: &Node, objects: &mut Objects, problems: &mut Problems) {
    match check::object(kind, document) {
        Ok(()) => objects.add(kind, document, problems),
        Err(mut found) => problems.0.append(&mut found),
    }
}

fn pod(document: &Node, objects: &Objects) -> Result<PodPlan, Vec<String>> {
    check::pod(document)?;
    let json = check::with_quantities_as_text(document.to_json());
    let pod: Pod = serde_json::from_value(json).map_err(|e| vec![e.to_string()])?;
    convert::pod(&pod, objects)
}

/// The YAML crate draws the surrounding lines below the message; the message alone goes on husk's one line.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or("unreadable").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests;
