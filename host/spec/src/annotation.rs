//! Annotations of a bundle that the shim reads (docs/architecture.md, "Bundles"). Those of `io.kubernetes.cri` are
//! containerd's.

pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
pub const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
pub const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
pub const SANDBOX_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
pub const SANDBOX_CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";
pub const SANDBOX_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
pub const RESOLV_CONF: &str = "dev.husk.resolv-conf";
pub const HOSTS: &str = "dev.husk.hosts";
pub const SHM_SIZE: &str = "dev.husk.shm-size";
pub const SHARE_PROCESS_NAMESPACE: &str = "dev.husk.share-process-namespace";
