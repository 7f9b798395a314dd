//! System call filters: from a profile in the OCI runtime specification's form to the classic BPF that the kernel runs.
//!
//! `file` reads profiles as people keep them in files, `default` is the one that a container has when nobody says
//! otherwise, `policy` gives a profile's rules the meaning that runc and libseccomp give them, `compile` makes the
//! program of it. Loading it is the guest agent's part. Whatever a profile asks for is compiled or refused by name.
//!
//! Profiles are compiled for x86_64, the guest's only architecture: its kernel has neither 32-bit emulation nor x32.

mod bpf;
mod compile;
mod default;
mod file;
mod policy;
#[cfg(test)]
mod tests;

use oci_spec::runtime::LinuxSeccomp;

pub use default::runtime_default;
pub use file::from_file;

/// What the guest agent loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Instructions (`struct sock_filter`), 8 bytes each; 1 to 4096 of them.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h.
    pub flags: u32,
}

/// Why a profile cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The field means something that is not done.
    #[error("{field} = {value} is not supported: {why}")]
    Unsupported { field: String, value: String, why: String },
    /// The field means nothing.
    #[error("{field} = {value} is not valid: {why}")]
    Invalid { field: String, value: String, why: String },
    /// It is no profile at all.
    #[error("it is no seccomp profile: {0}")]
    Unreadable(String),
}

impl ProfileError {
    fn unsupported(field: impl Into<String>, value: impl ToString, why: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), value: value.to_string(), why: why.into() }
    }

    fn invalid(field: impl Into<String>, value: impl ToString, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), value: value.to_string(), why: why.into() }
    }
}

/// Compiles a profile.
///
/// # Errors
///
/// The first field that cannot be honoured.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, ProfileError> {
    let flags = policy::flags(profile)?;
    let policy = policy::Policy::of(profile)?;
    let program = compile::program(&policy);
    if program.len() > bpf::MAX_INSTRUCTIONS {
        let why = format!("it makes a program of {} instructions, and the kernel takes 4096", program.len());
        return Err(ProfileError::invalid("syscalls", "(all)", why));
    }
    Ok(Filter { program: program.iter().flat_map(|instruction| instruction.bytes()).collect(), flags })
}
