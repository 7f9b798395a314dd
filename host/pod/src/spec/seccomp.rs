//! `linux.seccomp`: compiled here, loaded by the agent.

use husk_agent_api::v1;
use husk_seccomp::ProfileError;
use oci_spec::runtime::LinuxSeccomp;

use super::SpecError;

pub(crate) fn filter(profile: &LinuxSeccomp) -> Result<v1::SeccompFilter, SpecError> {
    let filter = husk_seccomp::compile(profile).map_err(|error| match error {
        ProfileError::Unsupported { field, value, why } => {
            SpecError::unsupported(format!("linux.seccomp.{field}"), value, why)
        }
        ProfileError::Invalid { field, value, why } => SpecError::invalid(format!("linux.seccomp.{field}"), value, why),
        ProfileError::Unreadable(why) => SpecError::invalid("linux.seccomp", "(set)", why),
    })?;
    Ok(v1::SeccompFilter { program: filter.program, flags: filter.flags })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec::{PodTraits, container, testing};

    const POD: PodTraits = PodTraits { shares_pids: false, single_container: false };

    #[test]
    fn a_profile_becomes_a_program() {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]});
        let filter = container(&testing::with("/linux/seccomp", profile), POD).unwrap().seccomp.unwrap();
        assert!(!filter.program.is_empty() && filter.program.len().is_multiple_of(8));
        assert_eq!(filter.flags, 4);
    }

    #[test]
    fn a_refusal_names_the_field() {
        let profile = json!({"defaultAction": "SCMP_ACT_NOTIFY"});
        let error = container(&testing::with("/linux/seccomp", profile), POD).unwrap_err();
        assert_eq!(error.field(), "linux.seccomp.defaultAction");
    }
}
