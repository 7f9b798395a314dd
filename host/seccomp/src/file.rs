//! Profiles in files: the runtime specification's form, and that of Docker and Podman, which has rules for some
//! capabilities, kernels and architectures only. What does not concern this container is left out.

use std::str::FromStr;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSyscall,
};
use serde::Deserialize;
use syscalls::Errno;

use crate::ProfileError;

/// The guest's kernel.
const KERNEL: (u32, u32) = (6, 12);
/// As Go calls it, and with it these profiles.
const ARCHITECTURE: &str = "amd64";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    /// Podman's: the number's name.
    default_errno: Option<String>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<std::path::PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Call {
    names: Option<Vec<String>>,
    /// Of older profiles.
    name: Option<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<Conditions>,
    excludes: Option<Conditions>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Conditions {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile for a container with these capabilities in its bounding set.
///
/// # Errors
///
/// For text that is no profile, unknown fields included.
pub fn from_file(text: &str, bounding: &Capabilities) -> Result<LinuxSeccomp, ProfileError> {
    let file: File = serde_json::from_str(text).map_err(|error| ProfileError::Unreadable(error.to_string()))?;
    if file.architectures.is_some() && file.arch_map.is_some() {
        return Err(ProfileError::invalid("archMap", "(set)", "architectures is set, too: one of them is enough"));
    }
    let mapped = file.arch_map.into_iter().flatten().filter(|map| map.architecture == Arch::ScmpArchX86_64);
    let mapped = mapped.flat_map(|map| {
        std::iter::once(map.architecture).chain(map.sub_architectures.unwrap_or_default()).collect::<Vec<_>>()
    });
    let architectures = file.architectures.unwrap_or_else(|| mapped.collect());
    let mut calls = Vec::new();
    for (index, call) in file.syscalls.into_iter().flatten().enumerate() {
        calls.extend(rule(&format!("syscalls[{index}]"), call, bounding)?);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(file.default_action)
        .set_default_errno_ret(errno("defaultErrno", file.default_errno.as_deref(), file.default_errno_ret)?)
        .set_architectures((!architectures.is_empty()).then_some(architectures))
        .set_flags(file.flags)
        .set_listener_path(file.listener_path.filter(|path| !path.as_os_str().is_empty()))
        .set_listener_metadata(file.listener_metadata)
        .set_syscalls(Some(calls));
    Ok(profile)
}

/// `None` when it is for other containers.
fn rule(field: &str, call: Call, bounding: &Capabilities) -> Result<Option<LinuxSyscall>, ProfileError> {
    let includes = call.includes.unwrap_or_default();
    let excludes = call.excludes.unwrap_or_default();
    let has =
        |name: &String| Capability::from_str(name.trim_start_matches("CAP_")).is_ok_and(|c| bounding.contains(&c));
    let is_ours = |name: &String| name == ARCHITECTURE;
    let some = |list: &Option<Vec<String>>| list.iter().any(|list| !list.is_empty());
    let applies = (!some(&includes.arches) || includes.arches.iter().flatten().any(is_ours))
        && includes.caps.iter().flatten().all(has)
        && includes.min_kernel.as_deref().map_or(Ok(true), |text| is_at_least(field, text))?
        && !excludes.arches.iter().flatten().any(is_ours)
        && !excludes.caps.iter().flatten().any(has)
        && !excludes.min_kernel.as_deref().map_or(Ok(false), |text| is_at_least(field, text))?;
    if !applies {
        return Ok(None);
    }
    let mut rule = LinuxSyscall::default();
    rule.set_names(call.names.into_iter().flatten().chain(call.name).collect())
        .set_action(call.action)
        .set_errno_ret(errno(&format!("{field}.errno"), call.errno.as_deref(), call.errno_ret)?)
        .set_args(call.args);
    Ok(Some(rule))
}

fn is_at_least(field: &str, text: &str) -> Result<bool, ProfileError> {
    let version = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match version {
        Some(version) => Ok(KERNEL >= version),
        None => Err(ProfileError::invalid(format!("{field}.minKernel"), text, "a version has the form 4.8")),
    }
}

/// An error number from its name and itself, which must agree.
fn errno(field: &str, name: Option<&str>, number: Option<u32>) -> Result<Option<u32>, ProfileError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(number) };
    let named = match name.parse() {
        Ok(number) => Some(number),
        Err(_) => (1..134).find(|number| Errno::new(*number).name() == Some(name)).map(i32::unsigned_abs),
    };
    match named {
        None => Err(ProfileError::invalid(field, name, "it is no error of Linux (examples: EPERM, ENOSYS)")),
        Some(named) if number.is_some_and(|number| number != named) => {
            Err(ProfileError::invalid(field, name, "the number beside it is that of another error"))
        }
        named => Ok(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERS: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["mseal"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.13"}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
            {"name": "breakpoint", "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}}
        ]
    }"#;

    fn names(profile: &LinuxSeccomp) -> Vec<&str> {
        profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names).map(String::as_str).collect()
    }

    #[test]
    fn rules_for_other_containers_are_left_out() {
        let profile = from_file(DOCKERS, &Capabilities::new()).unwrap();
        assert_eq!(names(&profile), ["read", "ptrace", "clone3", "arch_prctl"]);
        assert_eq!(profile.default_errno_ret(), Some(38));
        assert_eq!(profile.architectures().as_ref().unwrap(), &[Arch::ScmpArchX86_64, Arch::ScmpArchX86]);
        assert_eq!(profile.syscalls().as_ref().unwrap()[2].errno_ret(), Some(1));
        let admin = from_file(DOCKERS, &[Capability::SysAdmin].into()).unwrap();
        assert_eq!(names(&admin), ["read", "ptrace", "mount", "arch_prctl"]);
    }

    #[test]
    fn what_is_no_profile_says_why() {
        for (text, why) in [
            ("", "EOF"),
            ("{}", "defaultAction"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "sycalls": []}"#, "sycalls"),
            (r#"{"defaultAction": "SCMP_ACT_DANCE"}"#, "SCMP_ACT_DANCE"),
            (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EWHAT"}"#, "EWHAT"),
            (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EPERM", "defaultErrnoRet": 2}"#, "another"),
        ] {
            let error = from_file(text, &Capabilities::new()).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
