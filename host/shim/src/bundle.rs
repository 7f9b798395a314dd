//! Reading a bundle: the runtime spec of a task and the task's place in the pod.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

/// Far more than any real `config.json`.
const MAX_CONFIG: u64 = 8 * 1024 * 1024;

/// Annotations that say what a task is, by containerd and by CRI-O.
const CONTAINER_TYPE: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
const SANDBOX_ID: [&str; 2] = ["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"];

/// A task's place in the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The pod itself: what others play with a pause container is here the VM.
    Sandbox,
    /// A container of the pod with this id.
    Container { sandbox: String },
    /// A container that is a pod of its own, as `ctr` and `nerdctl` make them.
    Single,
}

#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) directory: PathBuf,
    pub(crate) spec: Spec,
    pub(crate) role: Role,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("{}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: larger than {MAX_CONFIG} bytes", .path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: not an OCI runtime spec: {source}", .path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("{}: annotation {name} is {value:?}; it must be sandbox or container", .path.display())]
    UnknownType { path: PathBuf, name: &'static str, value: String },
    #[error("{}: a container without the annotation {}, which names its pod", .path.display(), SANDBOX_ID[0])]
    NoSandbox { path: PathBuf },
}

impl Bundle {
    /// Reads `config.json` in `directory`.
    pub(crate) fn load(directory: &Path) -> Result<Self, BundleError> {
        let path = directory.join("config.json");
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_CONFIG.saturating_add(1)).read_to_end(&mut text));
        match read {
            Err(source) => return Err(BundleError::Read { path, source }),
            Ok(size) if u64::try_from(size).is_ok_and(|size| size > MAX_CONFIG) => {
                return Err(BundleError::TooLarge { path });
            }
            Ok(_) => {}
        }
        let spec: Spec = match serde_json::from_slice(&text) {
            Ok(spec) => spec,
            Err(source) => return Err(BundleError::Malformed { path, source }),
        };
        let role = role(&spec, &path)?;
        Ok(Self { directory: directory.to_owned(), spec, role })
    }
}

fn role(spec: &Spec, path: &Path) -> Result<Role, BundleError> {
    let find = |names: [&'static str; 2]| {
        let annotations = spec.annotations().as_ref()?;
        names.into_iter().find_map(|name| Some((name, annotations.get(name)?.as_str())))
    };
    match find(CONTAINER_TYPE) {
        None => Ok(Role::Single),
        Some((_, "sandbox")) => Ok(Role::Sandbox),
        Some((_, "container")) => match find(SANDBOX_ID) {
            Some((_, sandbox)) => Ok(Role::Container { sandbox: sandbox.to_owned() }),
            None => Err(BundleError::NoSandbox { path: path.to_owned() }),
        },
        Some((name, value)) => Err(BundleError::UnknownType { path: path.to_owned(), name, value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(config: &str) -> Result<Role, BundleError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        Bundle::load(directory.path()).map(|bundle| bundle.role)
    }

    #[test]
    fn annotations_of_both_front_ends_tell_the_role() {
        assert_eq!(load(r#"{"ociVersion":"1.2.0"}"#).unwrap(), Role::Single);
        let sandbox = r#"{"ociVersion":"1.2.0","annotations":{"io.kubernetes.cri.container-type":"sandbox"}}"#;
        assert_eq!(load(sandbox).unwrap(), Role::Sandbox);
        let container = r#"{"ociVersion":"1.2.0","annotations":
            {"io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.cri-o.SandboxID":"web"}}"#;
        assert_eq!(load(container).unwrap(), Role::Container { sandbox: "web".into() });
    }

    #[test]
    fn a_config_that_means_nothing_is_refused() {
        assert!(matches!(load("{"), Err(BundleError::Malformed { .. })));
        let orphan = r#"{"ociVersion":"1.2.0","annotations":{"io.kubernetes.cri.container-type":"container"}}"#;
        assert!(matches!(load(orphan), Err(BundleError::NoSandbox { .. })));
        let other = r#"{"ociVersion":"1.2.0","annotations":{"io.kubernetes.cri.container-type":"vm"}}"#;
        assert!(matches!(load(other), Err(BundleError::UnknownType { .. })));
        assert!(matches!(Bundle::load(Path::new("/nonexistent")), Err(BundleError::Read { .. })));
    }
}
