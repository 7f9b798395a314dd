//! The pod's own spec: its VM's size, its identity, its limits.
//!
//! The agent itself plays the infra container, so the sandbox spec's process, root and mounts describe nothing that
//! exists; they are not read.

use std::collections::HashMap;
use std::path::PathBuf;

use husk_agent_api::v1;
use oci_spec::runtime::Spec;

use crate::host::limits::HostLimits;

use super::size::{self, CpuLimit, MIB, VmSize};
use super::{Limits, SpecError, clocks, devices, linux, namespaces, refuse_some, resources, users};

/// Guest memory of a pod whose containers have no memory limit, in bytes.
const DEFAULT_MEMORY: u64 = 512 * MIB;
const DEFAULT_PERIOD: u64 = 100_000;
/// The kernel's __NEW_UTS_LEN.
const MAX_HOSTNAME: usize = 64;

const MEMORY_ANNOTATION: &str = "io.kubernetes.cri.sandbox-memory";
const QUOTA_ANNOTATION: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const SHARES_ANNOTATION: &str = "io.kubernetes.cri.sandbox-cpu-shares";
const PERIOD_ANNOTATION: &str = "io.kubernetes.cri.sandbox-cpu-period";
const SHARE_PIDS_ANNOTATION: &str = "dev.husk.share-process-namespace";
const RESOLV_CONF_ANNOTATION: &str = "dev.husk.resolv-conf";
const SHM_ANNOTATION: &str = "dev.husk.shm-size";
const HOSTS_ANNOTATION: &str = "dev.husk.hosts";
/// Most of such a file, in bytes.
const MAX_FILE: usize = 64 * 1024;

/// What the sandbox asks for.
#[derive(Clone, Debug)]
pub(crate) struct SandboxPlan {
    pub(crate) size: VmSize,
    pub(crate) host: HostLimits,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) sysctls: HashMap<String, String>,
    pub(crate) resources: v1::Resources,
    pub(crate) share_pids: bool,
    /// The network namespace of the host that holds the pod's interfaces; none: only its own loopback.
    pub(crate) netns: Option<PathBuf>,
    /// The pod's resolv.conf.
    pub(crate) resolv_conf: String,
    /// Further lines of the pod's hosts file.
    pub(crate) hosts: String,
    /// Of /dev/shm; 0: the default of 64 MiB.
    pub(crate) shm_bytes: u64,
}

/// Reads a sandbox's spec, or that of a pod's only container when `single_container`.
pub(crate) fn sandbox(spec: &Spec, id: &str, single_container: bool, most_vcpus: u8) -> Result<SandboxPlan, SpecError> {
    linux::refuse(spec)?;
    let spec_linux = spec.linux().as_ref();
    if let Some(linux) = spec_linux {
        namespaces::check_sandbox(linux.namespaces().as_deref().unwrap_or_default())?;
        // The containers say for themselves which they are in.
        users::user_namespace(linux)?;
        clocks::clocks(linux)?;
    }
    let netns =
        spec_linux.and_then(|linux| namespaces::network_path(linux.namespaces().as_deref().unwrap_or_default()));
    let limits = spec_linux.and_then(|linux| linux.resources().as_ref());
    let devices = spec_linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    let blocks = devices::block_numbers(devices);
    let Limits { agent: mut limits, throttles } =
        limits.map(|limits| resources::resources(limits, &blocks)).transpose()?.unwrap_or_default();
    if let (Some(throttle), false) = (throttles.first(), single_container) {
        let device = format!("{}:{}", throttle.major, throttle.minor);
        let why = "the pod's disks are not there yet when its own limits are set; limit its containers";
        return Err(SpecError::unsupported("linux.resources.blockIO", device, why));
    }
    let annotations = spec.annotations().as_ref();
    let annotation = |name: &str| annotations.and_then(|all| all.get(name)).map(String::as_str);
    let share_pids = flag(SHARE_PIDS_ANNOTATION, annotation(SHARE_PIDS_ANNOTATION))?;
    if single_container {
        refuse_some("annotations", share_pids.then_some(&()), "a pod of one container has nobody to share with")?;
    }
    let cpu = cpu_limit(&annotation, &limits)?;
    let size = vm_size(&annotation, &limits, cpu, most_vcpus)?;
    let host = HostLimits {
        memory: HostLimits::memory_of(size.memory_mib),
        cpu,
        cpu_weight: match number(SHARES_ANNOTATION, annotation(SHARES_ANNOTATION))? {
            0 => limits.cpu_weight,
            shares => Some(resources::weight(shares)),
        },
        oom_score_adj: spec.process().as_ref().and_then(|process| process.oom_score_adj()),
    };
    if single_container {
        // Its limits are set on its own cgroup.
        limits = v1::Resources::default();
    }
    // Whatever the containers are allowed, they leave the guest's kernel and agent what these need.
    let room = i64::try_from(size.containers_bytes()).unwrap_or(i64::MAX);
    limits.memory_max = Some(limits.memory_max.filter(|own| (0..room).contains(own)).unwrap_or(room));
    Ok(SandboxPlan {
        size,
        host,
        hostname: hostname(spec.hostname().as_deref(), id)?,
        domainname: domainname(spec.domainname().as_deref())?,
        sysctls: sysctls(spec_linux.and_then(|linux| linux.sysctl().as_ref()))?,
        resources: limits,
        share_pids,
        netns,
        resolv_conf: file(RESOLV_CONF_ANNOTATION, annotation(RESOLV_CONF_ANNOTATION))?,
        hosts: file(HOSTS_ANNOTATION, annotation(HOSTS_ANNOTATION))?,
        shm_bytes: number(SHM_ANNOTATION, annotation(SHM_ANNOTATION))?,
    })
}

fn vm_size<'a>(
    annotation: &impl Fn(&str) -> Option<&'a str>,
    limits: &v1::Resources,
    cpu: Option<CpuLimit>,
    most_vcpus: u8,
) -> Result<VmSize, SpecError> {
    // The sandbox's own limit is the pod's; a container's, where it is the only one.
    let own_memory = limits.memory_max.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let memory = match number(MEMORY_ANNOTATION, annotation(MEMORY_ANNOTATION))? {
        0 if own_memory > 0 => own_memory,
        0 => DEFAULT_MEMORY,
        bytes => bytes.max(own_memory),
    };
    let Some(memory_mib) = size::memory_mib(memory) else {
        let why = "a VM has at most 1 TiB; lower the containers' memory limits";
        return Err(SpecError::invalid(format!("annotations[{MEMORY_ANNOTATION}]"), memory.to_string(), why));
    };
    Ok(VmSize { memory_mib, vcpus: size::vcpus(cpu, most_vcpus) })
}

/// The pod's CPU time.
fn cpu_limit<'a>(
    annotation: &impl Fn(&str) -> Option<&'a str>,
    limits: &v1::Resources,
) -> Result<Option<CpuLimit>, SpecError> {
    let quota = match annotation(QUOTA_ANNOTATION) {
        Some(text) if text.starts_with('-') => 0,
        text => number(QUOTA_ANNOTATION, text)?,
    };
    let quota =
        if quota == 0 { limits.cpu_quota_us.and_then(|quota| u64::try_from(quota).ok()).unwrap_or(0) } else { quota };
    let period_us = match number(PERIOD_ANNOTATION, annotation(PERIOD_ANNOTATION))? {
        0 => limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD),
        period => period,
    };
    if !(1000..=1_000_000).contains(&period_us) {
        let why = "the kernel accepts periods from 1000 to 1000000 microseconds";
        return Err(SpecError::invalid(format!("annotations[{PERIOD_ANNOTATION}]"), period_us.to_string(), why));
    }
    // The kernel takes no quota below one millisecond.
    Ok((quota > 0).then_some(CpuLimit { quota_us: quota.max(1000), period_us }))
}

/// 0 when absent or empty.
fn number(name: &str, text: Option<&str>) -> Result<u64, SpecError> {
    match text {
        None | Some("") => Ok(0),
        Some(text) => text.parse().map_err(|_| {
            SpecError::invalid(format!("annotations[{name}]"), text, "it is a number that is not negative")
        }),
    }
}

/// The content of one of the pod's files.
fn file(name: &str, text: Option<&str>) -> Result<String, SpecError> {
    let text = text.unwrap_or_default();
    if text.len() > MAX_FILE || text.contains('\0') {
        let shown = format!("({} bytes)", text.len());
        return Err(SpecError::invalid(
            format!("annotations[{name}]"),
            shown,
            "at most 64 KiB of text without NUL bytes",
        ));
    }
    Ok(text.to_owned())
}

fn flag(name: &str, text: Option<&str>) -> Result<bool, SpecError> {
    match text {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(SpecError::invalid(format!("annotations[{name}]"), other, "it is true or false")),
    }
}

/// The pod's name for itself: the spec's, or the beginning of its id.
fn hostname(wanted: Option<&str>, id: &str) -> Result<String, SpecError> {
    let name = match wanted {
        None | Some("") => id.get(..id.len().min(MAX_HOSTNAME)).unwrap_or(id),
        Some(name) => name,
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > MAX_HOSTNAME || !name.bytes().all(allowed) {
        return Err(SpecError::invalid("hostname", name, "1 to 64 letters, digits, hyphens, dots and underscores"));
    }
    Ok(name.to_owned())
}

/// The NIS domain name (setdomainname(2)); empty: none.
fn domainname(wanted: Option<&str>) -> Result<String, SpecError> {
    let name = wanted.unwrap_or_default();
    if name.len() > MAX_HOSTNAME || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SpecError::invalid("domainname", name, "at most 64 printable characters without spaces"));
    }
    Ok(name.to_owned())
}

/// The whole guest is the pod's, so any parameter may be set; the guest's kernel knows which exist.
fn sysctls(wanted: Option<&HashMap<String, String>>) -> Result<HashMap<String, String>, SpecError> {
    for (name, value) in wanted.into_iter().flatten() {
        let field = format!("linux.sysctl[{}]", super::shown(name));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/');
        if !name.bytes().all(allowed) || name.split(['.', '/']).any(str::is_empty) || name.len() > 255 {
            return Err(SpecError::invalid(field, value, "a name looks like net.ipv4.ip_forward"));
        }
        if value.len() > 4095 || value.contains(['\0', '\n']) {
            return Err(SpecError::invalid(field, value, "a value has at most 4095 bytes on one line"));
        }
    }
    Ok(wanted.cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::{Ceiling, testing};

    fn with(pointer: &str, value: Value) -> Result<SandboxPlan, SpecError> {
        sandbox(&testing::with(pointer, value), "pod1", false, 8)
    }

    fn annotated(annotations: Value) -> Result<VmSize, SpecError> {
        with("/annotations", annotations).map(|plan| plan.size)
    }

    #[test]
    fn a_pod_without_limits_gets_the_default_size() {
        assert_eq!(annotated(json!({})).unwrap(), VmSize { memory_mib: 640, vcpus: 2 });
    }

    #[test]
    fn the_sum_of_limits_plus_overhead_is_the_size() {
        let size = annotated(json!({
            MEMORY_ANNOTATION: (384 * MIB).to_string(), QUOTA_ANNOTATION: "250000", PERIOD_ANNOTATION: "100000",
        }));
        assert_eq!(size.unwrap(), VmSize { memory_mib: 512, vcpus: 3 });
    }

    #[test]
    fn a_small_limit_still_boots() {
        assert_eq!(annotated(json!({MEMORY_ANNOTATION: "1"})).unwrap().memory_mib, 129);
    }

    #[test]
    fn vcpus_stay_within_the_nodes() {
        assert_eq!(annotated(json!({QUOTA_ANNOTATION: "10000000"})).unwrap().vcpus, 8);
        assert_eq!(annotated(json!({QUOTA_ANNOTATION: "1"})).unwrap().vcpus, 1);
        assert_eq!(annotated(json!({QUOTA_ANNOTATION: "-1"})).unwrap().vcpus, 2);
        assert_eq!(sandbox(&testing::with("/annotations", json!({})), "p", false, 1).unwrap().size.vcpus, 1);
    }

    #[test]
    fn the_only_containers_limit_sizes_its_vm() {
        let spec =
            testing::with("/linux/resources", json!({"memory": {"limit": 268_435_456}, "cpu": {"quota": 300_000}}));
        let plan = sandbox(&spec, "c1", true, 8).unwrap();
        assert_eq!(plan.size, VmSize { memory_mib: 384, vcpus: 3 });
        let whole = v1::Resources { memory_max: Some(268_435_456), ..v1::Resources::default() };
        assert_eq!(plan.resources, whole);
    }

    #[test]
    fn the_pods_own_limit_leaves_the_guest_its_overhead() {
        let limit = |wanted: i64| {
            let resources = json!({"memory": {"limit": wanted}});
            let mut spec = testing::with("/linux/resources", resources);
            spec.set_annotations(Some([(MEMORY_ANNOTATION.to_owned(), (256 * MIB).to_string())].into()));
            sandbox(&spec, "p", false, 8).unwrap().resources.memory_max
        };
        assert_eq!(limit(64 << 20), Some(64 << 20));
        assert_eq!(limit(-1), Some(256 << 20));
        assert_eq!(with("/annotations", json!({})).unwrap().resources.memory_max, Some(512 << 20));
    }

    #[test]
    fn a_device_is_limited_for_containers_only() {
        let throttle = json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}});
        assert!(with("/linux/resources", throttle.clone()).is_err());
        assert!(sandbox(&testing::with("/linux/resources", throttle), "p", true, 1).is_ok());
    }

    #[test]
    fn senseless_annotations_are_refused() {
        for (name, value) in [
            (MEMORY_ANNOTATION, "-5"),
            (MEMORY_ANNOTATION, "lots"),
            (SHARE_PIDS_ANNOTATION, "yes"),
            (PERIOD_ANNOTATION, "x"),
        ] {
            assert_eq!(annotated(json!({name: value})).unwrap_err().field(), format!("annotations[{name}]"));
        }
        assert!(annotated(json!({MEMORY_ANNOTATION: u64::MAX.to_string()})).is_err());
    }

    #[test]
    fn a_hostname_comes_from_the_spec_or_the_id() {
        assert_eq!(with("/hostname", json!("web-0")).unwrap().hostname, "web-0");
        assert_eq!(with("/annotations", json!({})).unwrap().hostname, "pod1");
        let long = sandbox(&testing::with("/annotations", json!({})), &"a".repeat(76), false, 1).unwrap();
        assert_eq!(long.hostname.len(), 64);
        assert!(with("/hostname", json!("a b")).is_err());
        assert_eq!(with("/domainname", json!("nis.example")).unwrap().domainname, "nis.example");
        for bad in ["a b".to_owned(), "a\n".to_owned(), "a".repeat(65)] {
            assert_eq!(with("/domainname", json!(bad)).unwrap_err().field(), "domainname");
        }
        assert!(with("/hostname", json!("a".repeat(65))).is_err());
    }

    #[test]
    fn process_namespaces_are_shared_on_request() {
        assert!(with("/annotations", json!({SHARE_PIDS_ANNOTATION: "true"})).unwrap().share_pids);
        assert!(!with("/annotations", json!({SHARE_PIDS_ANNOTATION: "false"})).unwrap().share_pids);
    }

    #[test]
    fn kernel_parameters_are_checked() {
        let plan = with("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "0"})).unwrap();
        assert_eq!(plan.sysctls.len(), 1);
        for bad in ["../x", "net..x", "", "a b", "/net"] {
            assert!(with("/linux/sysctl", json!({bad: "1"})).is_err(), "{bad}");
        }
        assert!(with("/linux/sysctl", json!({"kernel.x": "1\n2"})).is_err());
    }

    proptest! {
        #[test]
        fn any_size_is_one_that_the_vmm_accepts(
            memory in any::<u64>(), quota in any::<i64>(), period in any::<u64>(), cpus in 1_u8..=64,
            host_mib in any::<u64>(),
        ) {
            let spec = testing::with("/annotations", json!({
                MEMORY_ANNOTATION: memory.to_string(),
                QUOTA_ANNOTATION: quota.to_string(),
                PERIOD_ANNOTATION: period.to_string(),
            }));
            if let Ok(plan) = sandbox(&spec, "p", false, cpus) {
                prop_assert!((size::MIN_MEMORY_MIB..=size::MAX_MEMORY_MIB).contains(&plan.size.memory_mib));
                prop_assert!((1..=64).contains(&plan.size.vcpus));
                let most = plan.size.room(Ceiling { memory_mib: host_mib, vcpus: cpus });
                prop_assert!((plan.size.memory_mib..=size::MAX_MEMORY_MIB).contains(&most.memory_mib));
                prop_assert!((plan.size.vcpus..=64).contains(&most.vcpus));
            }
        }
    }
}
