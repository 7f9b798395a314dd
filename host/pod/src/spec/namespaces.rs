//! `linux.namespaces`: which namespaces a container shares with its pod.
//!
//! The guest is the pod: the agent holds its network, IPC and UTS namespaces, so for these a container has no choice.
//! For processes it has, as CRI names the modes: its own (CONTAINER), the pod's (POD), another container's (TARGET), the
//! whole guest's (NODE). The pod's and another container's are named as containerd names them, by the path
//! `/proc/PID/ns/pid` with the number that the pod's or the container's task was reported by.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use super::SpecError;

/// Where the container's processes are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PidNamespace {
    /// In a new namespace.
    Own,
    /// In the one that the pod's containers share.
    Pod,
    /// In that of the task with this number: the pod's own task or a container's.
    Task(u32),
    /// As the guest numbers them.
    Node,
}

pub(crate) fn pid(namespaces: &[LinuxNamespace], pod_shares_pids: bool) -> Result<PidNamespace, SpecError> {
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
    match find(namespaces, LinuxNamespaceType::Pid)? {
        None if find(namespaces, LinuxNamespaceType::User)?.is_some() => {
            let why = "the root of a user namespace may not show the guest's processes; give it a namespace of its own, \
                       or leave the user namespace away";
            Err(SpecError::unsupported(field(LinuxNamespaceType::Pid), "(absent)", why))
        }
        None => Ok(PidNamespace::Node),
        Some(_) if pod_shares_pids => Ok(PidNamespace::Pod),
        Some(namespace) => path(namespace).map_or(Ok(PidNamespace::Own), |path| task(path).map(PidNamespace::Task)),
    }
}

/// The number in `/proc/PID/ns/pid`.
fn task(path: &Path) -> Result<u32, SpecError> {
    let number = path.to_str().and_then(|text| text.strip_prefix("/proc/")?.strip_suffix("/ns/pid")?.parse().ok());
    number.ok_or_else(|| {
        let why = "a process namespace is joined by /proc/PID/ns/pid, where PID is the task of the pod or of one of \
                   its containers";
        SpecError::unsupported(field(LinuxNamespaceType::Pid), path.display().to_string(), why)
    })
}

/// No container of the pod has a process of that number.
pub(crate) fn no_such_task(number: u32) -> SpecError {
    let why = "it is neither the pod's task nor that of a running container of the pod";
    SpecError::invalid(field(LinuxNamespaceType::Pid), format!("/proc/{number}/ns/pid"), why)
}

/// The sandbox's own list: nothing of the node may be shared with the VM.
pub(crate) fn check_sandbox(namespaces: &[LinuxNamespace]) -> Result<(), SpecError> {
    if find(namespaces, LinuxNamespaceType::Network)?.is_none() {
        let why = "the node's network cannot be shared with a VM (hostNetwork); remove hostNetwork from the pod";
        return Err(SpecError::unsupported(field(LinuxNamespaceType::Network), "(absent)", why));
    }
    Ok(())
}

/// The network namespace that the pod's interfaces are in; none of a sandbox that asks for a new and empty one.
pub(crate) fn network_path(namespaces: &[LinuxNamespace]) -> Option<PathBuf> {
    let network = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network)?;
    path(network).map(Path::to_owned)
}

pub(super) fn find(
    namespaces: &[LinuxNamespace],
    wanted: LinuxNamespaceType,
) -> Result<Option<&LinuxNamespace>, SpecError> {
    let mut matching = namespaces.iter().filter(|namespace| namespace.typ() == wanted);
    let first = matching.next();
    if matching.next().is_some() {
        return Err(SpecError::invalid(field(wanted), "(twice)", "a type may be listed once"));
    }
    Ok(first)
}

pub(super) fn path(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

pub(super) fn shown_path(namespace: &LinuxNamespace) -> String {
    path(namespace).map(|path| path.display().to_string()).unwrap_or_default()
}

pub(super) fn field(kind: LinuxNamespaceType) -> String {
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

    fn parse(pod_shares_pids: bool, list: Value) -> Result<PidNamespace, SpecError> {
        pid(&serde_json::from_value::<Vec<LinuxNamespace>>(list).unwrap(), pod_shares_pids)
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
        assert_eq!(parse(false, list(&new)).unwrap(), PidNamespace::Own);
        assert_eq!(parse(true, list(&new)).unwrap(), PidNamespace::Pod);
        assert_eq!(parse(true, list(&joined)).unwrap(), PidNamespace::Pod);
        assert_eq!(parse(false, list(&joined)).unwrap(), PidNamespace::Task(7));
        assert_eq!(parse(false, list(&[])).unwrap(), PidNamespace::Node);
        assert!(parse(false, list(&[json!({"type": "user"})])).is_err());
    }

    #[test]
    fn a_pid_namespace_is_joined_by_the_number_of_a_task() {
        for bad in ["/proc/self/ns/pid", "/proc/-7/ns/pid", "/proc/7/ns/net", "/var/run/pidns/x", "/proc//ns/pid"] {
            let error = parse(false, list(&[json!({"type": "pid", "path": bad})])).unwrap_err();
            assert_eq!(error.field(), "linux.namespaces[pid]");
        }
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
    fn a_namespace_listed_twice_is_refused() {
        assert!(parse(false, list(&[json!({"type": "ipc"})])).is_err());
    }
}
