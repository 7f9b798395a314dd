//! What PID 1 and the zygote say to each other.
//!
//! A request is one datagram: a [`SpawnHeader`] with the descriptors that it lists. What the new process shall do is a
//! [`LaunchSpec`] in a memfd among them, since it may be larger than a datagram. The answer is a [`SpawnReply`] with
//! the pidfd. From then on the new process speaks for itself on its status socket (`launch::status`).

use husk_agent_api::v1;

/// What kind of process to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Job {
    /// Never sent.
    Unspecified = 0,
    /// A container's first process, in a mount namespace of its own.
    Init = 1,
    /// A further process in a container's namespaces.
    Exec = 2,
    /// PID 1 of the pod's shared pid namespace.
    Reaper = 3,
    /// The first process of a user namespace, which ends when its maps are written.
    UserNamespace = 4,
}

/// What a descriptor of a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Role {
    /// Never sent.
    Unspecified = 0,
    /// memfd holding a [`LaunchSpec`].
    Spec = 1,
    /// Directory of the cgroup to be born in.
    Cgroup = 2,
    /// The new process's end of its status socket.
    Status = 3,
    /// Pipe from which an init reads one byte before execve.
    Start = 4,
    /// Standard input.
    Stdin = 5,
    /// Standard output.
    Stdout = 6,
    /// Standard error.
    Stderr = 7,
    /// The detached mount that becomes an init's root.
    RootFs = 8,
    /// pidfd of the process whose mount, cgroup and time namespaces an exec joins.
    Target = 9,
    /// pidfd of the process whose pid namespace the new one joins.
    PidNamespace = 10,
    /// The detached mount for the next of an init's mounts that is not a kernel file system.
    Mount = 11,
    /// The user namespace that the new process belongs to.
    UserNamespace = 12,
}

/// Head of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SpawnHeader {
    /// The kind of process.
    #[prost(enumeration = "Job", tag = "1")]
    pub job: i32,
    /// Whether it is PID 1 of a new pid namespace.
    #[prost(bool, tag = "2")]
    pub new_pid_namespace: bool,
    /// Role of each descriptor, in order.
    #[prost(enumeration = "Role", repeated, tag = "3")]
    pub roles: Vec<i32>,
}

/// Answer to a request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SpawnReply {
    /// The new process in the agent's pid namespace, or 0.
    #[prost(int32, tag = "1")]
    pub pid: i32,
    /// Why there is none.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// What a new process shall become.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LaunchSpec {
    /// The program and its credentials.
    #[prost(message, optional, tag = "1")]
    pub process: Option<v1::Process>,
    /// Only for an init: what its mount namespace holds.
    #[prost(message, optional, tag = "2")]
    pub root: Option<RootSpec>,
    /// The container's system call filter.
    #[prost(message, optional, tag = "3")]
    pub seccomp: Option<v1::SeccompFilter>,
    /// Only for an init: its own clocks.
    #[prost(message, optional, tag = "4")]
    pub clocks: Option<v1::ClockOffsets>,
}

/// A container's mount namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RootSpec {
    /// In order. Kernel file systems are made by the new process; the others come as descriptors.
    #[prost(message, repeated, tag = "1")]
    pub mounts: Vec<v1::Mount>,
    /// Beyond the default ones.
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<v1::DeviceNode>,
    /// Hidden under /dev/null or an empty directory.
    #[prost(string, repeated, tag = "3")]
    pub masked_paths: Vec<String>,
    /// Remounted read-only.
    #[prost(string, repeated, tag = "4")]
    pub readonly_paths: Vec<String>,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`.
    #[prost(uint64, tag = "5")]
    pub propagation: u64,
    /// Whether the root is read-only once everything is in place.
    #[prost(bool, tag = "6")]
    pub read_only: bool,
}
