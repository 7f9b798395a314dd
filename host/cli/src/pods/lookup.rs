//! Finding what the user means: a pod or container by its name, its id, or the beginning of its id.

use thiserror::Error;

use super::record::{ContainerRecord, PodRecord};

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum LookupError {
    #[error("no {what} with the name or id \"{wanted}\"; `husk {list}` shows what there is")]
    Unknown { what: &'static str, wanted: String, list: &'static str },
    #[error("the id \"{wanted}\" begins several {what}s ({}); give more of it", matches.join(", "))]
    Ambiguous { what: &'static str, wanted: String, matches: Vec<String> },
}

/// A container and its pod.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) pod: PodRecord,
    pub(crate) container: ContainerRecord,
}

/// The container that `wanted` names.
pub(crate) fn container(pods: &[PodRecord], wanted: &str) -> Result<Found, LookupError> {
    let all: Vec<_> = pods.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c))).collect();
    let index = find("container", "ps -a", wanted, all.iter().map(|(_, c)| (c.name.as_str(), c.id.as_str())))?;
    let (pod, container) = all.get(index).ok_or_else(|| unknown("container", "ps -a", wanted))?;
    Ok(Found { pod: (*pod).clone(), container: (*container).clone() })
}

/// The pod that `wanted` names.
pub(crate) fn pod(pods: &[PodRecord], wanted: &str) -> Result<PodRecord, LookupError> {
    let index = find("pod", "pod ls", wanted, pods.iter().map(|p| (p.name.as_str(), p.id.as_str())))?;
    pods.get(index).cloned().ok_or_else(|| unknown("pod", "pod ls", wanted))
}

fn unknown(what: &'static str, list: &'static str, wanted: &str) -> LookupError {
    LookupError::Unknown { what, wanted: wanted.to_owned(), list }
}

fn find<'a>(
    what: &'static str,
    list: &'static str,
    wanted: &str,
    all: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<usize, LookupError> {
    if let Some(index) = all.clone().position(|(name, id)| name == wanted || id == wanted) {
        return Ok(index);
    }
    let by_prefix: Vec<_> =
        all.enumerate().filter(|(_, (_, id))| !wanted.is_empty() && id.starts_with(wanted)).collect();
    match by_prefix.as_slice() {
        [] => Err(unknown(what, list, wanted)),
        [(index, _)] => Ok(*index),
        several => {
            let matches = several.iter().map(|(_, (_, id))| id.chars().take(12).collect()).collect();
            Err(LookupError::Ambiguous { what, wanted: wanted.to_owned(), matches })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::tests::{container as record, pod as pod_record};
    use super::*;

    fn with_id(name: &str, id: &str) -> ContainerRecord {
        ContainerRecord { id: id.into(), ..record(name) }
    }

    #[test]
    fn a_name_an_id_and_a_unique_prefix_find_the_same() {
        let pods = [
            pod_record("foo", vec![with_id("foo-app", "ab12"), with_id("foo-sidecar", "ab34")]),
            pod_record("bar", vec![with_id("ab", "cd56")]),
        ];
        for wanted in ["foo-app", "ab12", "ab1"] {
            assert_eq!(container(&pods, wanted).unwrap().container.name, "foo-app");
        }
        assert_eq!(container(&pods, "ab").unwrap().container.name, "ab", "a name goes before a prefix");
        assert!(matches!(container(&pods, "a"), Err(LookupError::Ambiguous { .. })));
        for missing in ["", "x", "app", "ab123"] {
            assert!(matches!(container(&pods, missing), Err(LookupError::Unknown { .. })), "{missing}");
        }
        assert_eq!(pod(&pods, "bar").unwrap().name, "bar");
    }
}
