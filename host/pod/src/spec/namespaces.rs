//! `linux.namespaces`: which namespaces a container shares with its pod.
//!
//! The guest is the pod: the agent holds its network, IPC and UTS namespaces, so for these a container has no choice.
//! For processes it has, as CRI names the modes: its own (CONTAINER), the pod's (POD), the whole guest's (NODE).

use std::path::{Path, PathBuf};

use husk_agent_api::v1;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use super::SpecError;

/// Where the container's processes are numbered.
pub(crate) fn pid_mode(namespaces: &[LinuxNamespace], pod_shares_pids: bool) -> Result<v1::PidMode, SpecError> {
    for required in [LinuxNamespaceType::Mount, LinuxNamespaceType::Cgroup] {
        match find(namespaces, required)? {
            Some(namespace) if path(namespace).is_some() => {
                return Err(SpecError::unsupported(field(required), shown_path(namespace), "it must be a new one"));
            }
            Some(_) => {}
            None => return Err(SpecError::unsupported(field(required), "(absent)", "a container must have its own")),
        }
    }
    if find(namespaces, LinuxNamespaceType::Network)?.is_none() {
        let why = "the node's network cannot be shared with a VM (hostNetwork); use the pod's";
        return Err(SpecError::unsupported(field(LinuxNamespaceType::Network), "(absent)", why));
    }
    // New, joined or the node's: all mean the pod's, for the guest has only these.
    find(namespaces, LinuxNamespaceType::Ipc)?;
    find(namespaces, LinuxNamespaceType::Uts)?;
    if find(namespaces, LinuxNamespaceType::User)?.is_some() {
        let why = "user namespaces are not made in the guest yet; remove it (hostUsers: true)";
        return Err(SpecError::unsupported(field(LinuxNamespaceType::User), "(set)", why));
    }
    if find(namespaces, LinuxNamespaceType::Time)?.is_some() {
        return Err(SpecError::unsupported(field(LinuxNamespaceType::Time), "(set)", "the guest has one clock"));
    }
    match find(namespaces, LinuxNamespaceType::Pid)? {
        None => Ok(v1::PidMode::Node),
        Some(namespace) if path(namespace).is_some() && !pod_shares_pids => {
            let why = "only the pod's shared process namespace can be joined, and this pod does not share one \
                       (annotation dev.husk.share-process-namespace on the sandbox)";
            Err(SpecError::unsupported(field(LinuxNamespaceType::Pid), shown_path(namespace), why))
        }
        Some(_) if pod_shares_pids => Ok(v1::PidMode::Pod),
        Some(_) => Ok(v1::PidMode::Container),
    }
}

/// The sandbox's own list: nothing of the node may be shared with the VM.
pub(crate) fn check_sandbox(namespaces: &[LinuxNamespace]) -> Result<(), SpecError> {
    if find(namespaces, LinuxNamespaceType::Network)?.is_none() {
        let why = "the node's network cannot be shared with a VM (hostNetwork); remove hostNetwork from the pod";
        return Err(SpecError::unsupported(field(LinuxNamespaceType::Network), "(absent)", why));
    }
    if find(namespaces, LinuxNamespaceType::User)?.is_some() {
        let why = "user namespaces are not made in the guest yet; remove it (hostUsers: true)";
        return Err(SpecError::unsupported(field(LinuxNamespaceType::User), "(set)", why));
    }
    Ok(())
}

/// The network namespace that the pod's interfaces are in; none of a sandbox that asks for a new and empty one.
pub(crate) fn network_path(namespaces: &[LinuxNamespace]) -> Option<PathBuf> {
    let network = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network)?;
    path(network).map(Path::to_owned)
}

fn find(namespaces: &[LinuxNamespace], wanted: LinuxNamespaceType) -> Result<Option<&LinuxNamespace>, SpecError> {
    let mut matching = namespaces.iter().filter(|namespace| namespace.typ() == wanted);
    let first = matching.next();
    if matching.next().is_some() {
        return Err(SpecError::invalid(field(wanted), "(twice)", "a type may be listed once"));
    }
    Ok(first)
}

fn path(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

fn shown_path(namespace: &LinuxNamespace) -> String {
    path(namespace).map(|path| path.display().to_string()).unwrap_or_default()
}

fn field(kind: LinuxNamespaceType) -> String {
    let name = match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    };
    format!("linux.namespaces[{name}]")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(pod_shares_pids: bool, list: Value) -> Result<v1::PidMode, SpecError> {
        pid_mode(&serde_json::from_value::<Vec<LinuxNamespace>>(list).unwrap(), pod_shares_pids)
    }

    fn list(extra: &[Value]) -> Value {
        let mut all = vec![
            json!({"type": "network", "path": "/proc/7/ns/net"}),
            json!({"type": "ipc"}),
            json!({"type": "uts"}),
            json!({"type": "mount"}),
            json!({"type": "cgroup"}),
        ];
        all.extend_from_slice(extra);
        Value::Array(all)
    }

    #[test]
    fn the_pid_modes_of_cri_are_understood() {
        let new = [json!({"type": "pid"})];
        let joined = [json!({"type": "pid", "path": "/proc/7/ns/pid"})];
        assert_eq!(parse(false, list(&new)).unwrap(), v1::PidMode::Container);
        assert_eq!(parse(true, list(&new)).unwrap(), v1::PidMode::Pod);
        assert_eq!(parse(true, list(&joined)).unwrap(), v1::PidMode::Pod);
        assert_eq!(parse(false, list(&[])).unwrap(), v1::PidMode::Node);
    }

    #[test]
    fn joining_a_pid_namespace_needs_a_pod_that_shares_one() {
        let error = parse(false, list(&[json!({"type": "pid", "path": "/proc/7/ns/pid"})])).unwrap_err();
        assert_eq!(error.field(), "linux.namespaces[pid]");
        assert!(error.to_string().contains("share-process-namespace"), "{error}");
    }

    #[test]
    fn mount_and_cgroup_namespaces_must_be_new() {
        for missing in ["mount", "cgroup"] {
            let kept: Vec<Value> =
                list(&[]).as_array().unwrap().iter().filter(|entry| entry["type"] != missing).cloned().collect();
            assert_eq!(parse(false, Value::Array(kept)).unwrap_err().field(), format!("linux.namespaces[{missing}]"));
        }
        let joined = json!([{"type": "mount", "path": "/proc/1/ns/mnt"}, {"type": "cgroup"}, {"type": "network"}]);
        assert_eq!(parse(false, joined).unwrap_err().field(), "linux.namespaces[mount]");
    }

    #[test]
    fn the_nodes_network_is_refused() {
        let error = parse(false, json!([{"type": "mount"}, {"type": "cgroup"}])).unwrap_err();
        assert!(error.to_string().contains("hostNetwork"), "{error}");
        assert!(check_sandbox(&[]).is_err());
    }

    #[test]
    fn user_and_time_namespaces_are_refused() {
        for kind in ["user", "time"] {
            let error = parse(false, list(&[json!({"type": kind})])).unwrap_err();
            assert_eq!(error.field(), format!("linux.namespaces[{kind}]"));
        }
    }

    #[test]
    fn a_namespace_listed_twice_is_refused() {
        assert!(parse(false, list(&[json!({"type": "ipc"})])).is_err());
    }
}
