//! Kubernetes manifests: from YAML text to a [`PodPlan`](crate::pods::plan::PodPlan).
//!
//! The rule of this module is that nothing is dropped in silence: `check` walks every field that a manifest sets and
//! refuses, by its full path, each that Husk does not honour; only then is the manifest read as a typed Pod and turned
//! into a plan. Running the plan is the business of [`crate::pods`].

mod check;
mod convert;
mod expand;
mod network;
pub(crate) mod quantity;
mod security;
mod supported;
mod yaml;

use k8s_openapi::api::core::v1::Pod;
use serde_saphyr::Spanned;
use thiserror::Error;

use crate::pods::plan::PodPlan;
use yaml::Node;

/// Why a manifest cannot be played.
#[derive(Debug, Error)]
pub(crate) enum ManifestError {
    #[error("{name} is no YAML: {cause}")]
    Yaml { name: String, cause: String },
    #[error("{name} holds no manifest")]
    Empty { name: String },
    #[error("{name}{place}: kind {kind} is not supported: husk plays manifests of kind Pod (apiVersion v1) only")]
    Kind { name: String, place: String, kind: String },
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

/// Reads every Pod of a manifest. Either all documents are good or none is used.
///
/// # Errors
///
/// For text that is no YAML, documents of another kind, and every field that cannot be honoured: all of them in one
/// error, each with its full path.
pub(crate) fn read(name: &str, text: &str) -> Result<Vec<PodPlan>, ManifestError> {
    let documents =
        yaml::documents(text).map_err(|e| ManifestError::Yaml { name: name.to_owned(), cause: first_line(&e) })?;
    if documents.is_empty() {
        return Err(ManifestError::Empty { name: name.to_owned() });
    }
    for document in &documents {
        refuse_other_kinds(name, document)?;
    }
    let mut plans: Vec<PodPlan> = Vec::new();
    let mut problems = Vec::new();
    for document in &documents {
        match read_pod(&document.value) {
            Ok(plan) if plans.iter().any(|p| p.name == plan.name) => {
                problems.push(format!("metadata.name: there are two pods named {}", plan.name));
            }
            Ok(plan) => plans.push(plan),
            Err(mut found) => problems.append(&mut found),
        }
    }
    if problems.is_empty() { Ok(plans) } else { Err(ManifestError::Refused { name: name.to_owned(), problems }) }
}

fn refuse_other_kinds(name: &str, document: &Spanned<Node>) -> Result<(), ManifestError> {
    let text = |field: &str| match document.value.get(field) {
        Some(Node::Text(text)) => text.clone(),
        _ => "(none)".to_owned(),
    };
    if text("kind") == "Pod" && text("apiVersion") == "v1" {
        return Ok(());
    }
    let kind = format!("{} (apiVersion {})", text("kind"), text("apiVersion"));
    Err(ManifestError::Kind { name: name.to_owned(), place: yaml::place(document.referenced), kind })
}

fn read_pod(document: &Node) -> Result<PodPlan, Vec<String>> {
    check::pod(document)?;
    let json = check::with_quantities_as_text(document.to_json());
    let pod: Pod = serde_json::from_value(json).map_err(|e| vec![e.to_string()])?;
    convert::pod(&pod)
}

/// The YAML crate draws the surrounding lines below the message; the message alone goes on husk's one line.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or("unreadable").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests;
