//! `process`: what runs, as whom, with which limits.

use std::collections::BTreeSet;

use husk_agent_api::v1;
use indexmap::IndexMap;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process, User};

use super::capabilities::capabilities;
use super::{SpecError, container_path, path_text, refuse_some, refuse_text};

/// Most bytes that args and env may have together. The kernel's own limit is a quarter of the stack's rlimit, 2 MiB by
/// default; one message to the agent carries up to 4 MiB.
const MAX_STRINGS: usize = 2 * 1024 * 1024;
/// The kernel's NGROUPS_MAX.
const MAX_GROUPS: usize = 65536;

/// The agent's form of a process, without its standard streams: their tokens are chosen when it is started.
pub(crate) fn process(process: &Process) -> Result<v1::Process, SpecError> {
    refuse(process)?;
    Ok(v1::Process {
        args: args(process)?,
        env: env(process)?,
        cwd: container_path("process.cwd", path_text("process.cwd", process.cwd())?)?,
        user: Some(user(process.user())?),
        capabilities: Some(capabilities(process.capabilities().as_ref())?),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score_adj(process.oom_score_adj())?,
        terminal: process.terminal().unwrap_or(false),
        window_size: window_size(process),
        stdio: None,
    })
}

fn refuse(process: &Process) -> Result<(), SpecError> {
    refuse_text("process.commandLine", process.command_line().as_ref(), "it is for Windows; use process.args")?;
    refuse_text("process.user.username", process.user().username().as_ref(), "it is for Windows; use uid and gid")?;
    refuse_text(
        "process.selinuxLabel",
        process.selinux_label().as_ref(),
        "the guest kernel has no SELinux; remove the label",
    )?;
    match process.apparmor_profile().as_deref() {
        None | Some("" | "unconfined") => {}
        Some(profile) => {
            return Err(SpecError::unsupported(
                "process.apparmorProfile",
                profile,
                "the guest kernel has no AppArmor; use \"unconfined\"",
            ));
        }
    }
    refuse_some("process.ioPriority", process.io_priority().as_ref(), "I/O priorities are not set in the guest")?;
    refuse_some("process.scheduler", process.scheduler().as_ref(), "scheduling policies are not set in the guest")?;
    refuse_some(
        "process.execCPUAffinity",
        process.exec_cpu_affinity().as_ref(),
        "use linux.resources.cpu.cpus for the container",
    )
}

fn args(process: &Process) -> Result<Vec<String>, SpecError> {
    let args = process.args().clone().unwrap_or_default();
    match args.first() {
        None => return Err(SpecError::invalid("process.args", "[]", "it must name a program")),
        Some(program) if program.is_empty() => {
            return Err(SpecError::invalid("process.args[0]", "", "it must name a program"));
        }
        Some(_) => {}
    }
    no_nul("process.args", &args)?;
    bounded("process.args", &args)?;
    Ok(args)
}

fn env(process: &Process) -> Result<Vec<String>, SpecError> {
    let env = process.env().clone().unwrap_or_default();
    no_nul("process.env", &env)?;
    bounded("process.env", &env)?;
    // The value may be a secret: only the name is shown.
    if let Some(bad) = env.iter().find(|entry| entry.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        let name = bad.split('=').next().unwrap_or_default();
        return Err(SpecError::invalid("process.env", name, "an entry has the form NAME=value"));
    }
    Ok(last_of_each(env))
}

/// Of a variable that is set twice the last value counts, at the place of the first, as runc does it. Given both, most
/// programs would see the first.
fn last_of_each(env: Vec<String>) -> Vec<String> {
    let mut values: IndexMap<String, String> = IndexMap::with_capacity(env.len());
    for entry in env {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        values.insert(name, entry);
    }
    values.into_values().collect()
}

fn no_nul(field: &str, strings: &[String]) -> Result<(), SpecError> {
    match strings.iter().position(|text| text.contains('\0')) {
        Some(index) => Err(SpecError::invalid(format!("{field}[{index}]"), "(not shown)", "it contains a NUL byte")),
        None => Ok(()),
    }
}

fn bounded(field: &str, strings: &[String]) -> Result<(), SpecError> {
    let total: usize = strings.iter().map(|text| text.len().saturating_add(1)).sum();
    if total > MAX_STRINGS / 2 {
        return Err(SpecError::invalid(field, format!("{total} bytes"), "at most 1 MiB can be passed to a process"));
    }
    Ok(())
}

fn user(user: &User) -> Result<v1::User, SpecError> {
    let additional_gids = user.additional_gids().clone().unwrap_or_default();
    if additional_gids.len() > MAX_GROUPS {
        let count = format!("{} groups", additional_gids.len());
        return Err(SpecError::invalid("process.user.additionalGids", count, "at most 65536 are possible"));
    }
    for (field, id) in [("process.user.uid", user.uid()), ("process.user.gid", user.gid())] {
        if id == u32::MAX {
            return Err(SpecError::invalid(field, id.to_string(), "the kernel uses this number for \"no id\""));
        }
    }
    if let Some(umask) = user.umask().filter(|umask| *umask > 0o777) {
        return Err(SpecError::invalid("process.user.umask", format!("{umask:o}"), "it has at most the bits 777"));
    }
    Ok(v1::User { uid: user.uid(), gid: user.gid(), additional_gids, umask: user.umask() })
}

fn oom_score_adj(value: Option<i32>) -> Result<Option<i32>, SpecError> {
    match value {
        Some(value) if !(-1000..=1000).contains(&value) => {
            Err(SpecError::invalid("process.oomScoreAdj", value.to_string(), "the range is -1000 to 1000"))
        }
        _ => Ok(value),
    }
}

fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<v1::Rlimit>, SpecError> {
    let mut seen = BTreeSet::new();
    limits
        .iter()
        .map(|limit| {
            let resource = rlimit_number(limit.typ());
            if !seen.insert(resource) {
                return Err(SpecError::invalid("process.rlimits", limit.typ().to_string(), "it is there twice"));
            }
            if limit.soft() > limit.hard() {
                let value = format!("{} soft {} hard {}", limit.typ(), limit.soft(), limit.hard());
                return Err(SpecError::invalid("process.rlimits", value, "the soft limit exceeds the hard one"));
            }
            Ok(v1::Rlimit { resource, soft: limit.soft(), hard: limit.hard() })
        })
        .collect()
}

/// Number of a limit in asm-generic/resource.h.
fn rlimit_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// The terminal's first size; a terminal has 16 bits for each side.
fn window_size(process: &Process) -> Option<v1::WindowSize> {
    let size = process.console_size()?;
    let side = |value: u64| u32::from(u16::try_from(value).unwrap_or(u16::MAX));
    Some(v1::WindowSize { rows: side(size.height()), columns: side(size.width()) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::testing;

    fn with(pointer: &str, value: Value) -> Result<v1::Process, SpecError> {
        process(testing::with(&format!("/process{pointer}"), value).process().as_ref().unwrap())
    }

    #[test]
    fn a_plain_process_is_translated() {
        let result = with("/cwd", json!("/srv")).unwrap();
        assert_eq!(result.args, ["sleep", "inf"]);
        assert_eq!(result.env, ["PATH=/usr/bin"]);
        assert_eq!(result.cwd, "/srv");
        assert!(result.no_new_privileges);
        assert!(!result.terminal);
        assert_eq!(result.oom_score_adj, None);
    }

    #[test]
    fn a_user_with_groups_and_umask_is_translated() {
        let user = with("/user", json!({"uid": 1000, "gid": 100, "additionalGids": [5, 6], "umask": 18}))
            .unwrap()
            .user
            .unwrap();
        assert_eq!((user.uid, user.gid, user.umask), (1000, 100, Some(0o22)));
        assert_eq!(user.additional_gids, [5, 6]);
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let env = with("/env", json!(["A=1", "B=2", "A=3", "C=", "AB=4"])).unwrap().env;
        assert_eq!(env, ["A=3", "B=2", "C=", "AB=4"]);
    }

    #[test]
    fn a_terminal_size_is_passed_and_clamped() {
        let size = with("/consoleSize", json!({"height": 24, "width": 1_000_000})).unwrap().window_size.unwrap();
        assert_eq!((size.rows, size.columns), (24, 65535));
    }

    #[test]
    fn rlimits_have_the_kernels_numbers() {
        let limits = with("/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}])).unwrap().rlimits;
        assert_eq!(limits, [v1::Rlimit { resource: 7, soft: 1024, hard: 4096 }]);
    }

    #[test]
    fn impossible_rlimits_are_refused() {
        let over = with("/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}])).unwrap_err();
        assert!(over.to_string().contains("RLIMIT_NOFILE"), "{over}");
        let entry = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
        assert!(with("/rlimits", json!([entry, entry])).is_err());
    }

    #[test]
    fn a_process_needs_a_program() {
        assert_eq!(with("/args", json!([])).unwrap_err().field(), "process.args");
        assert_eq!(with("/args", json!([""])).unwrap_err().field(), "process.args[0]");
    }

    #[test]
    fn nul_bytes_and_malformed_variables_are_refused() {
        assert!(with("/args", json!(["a\0b"])).is_err());
        assert!(with("/env", json!(["A=\0"])).is_err());
        assert!(with("/env", json!(["=x"])).is_err());
        assert!(with("/env", json!(["NAME"])).is_err());
    }

    #[test]
    fn a_refused_variable_does_not_show_its_value() {
        let message = with("/env", json!(["OK=1", "=hunter2"])).unwrap_err().to_string();
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_relative_cwd_is_refused() {
        assert_eq!(with("/cwd", json!("srv")).unwrap_err().field(), "process.cwd");
    }

    #[test]
    fn what_the_guest_cannot_do_is_refused_by_name() {
        for (pointer, value) in [
            ("/apparmorProfile", json!("cri-containerd.apparmor.d")),
            ("/selinuxLabel", json!("system_u:object_r:container_t:s0")),
            ("/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 4})),
            ("/scheduler", json!({"policy": "SCHED_FIFO"})),
            ("/commandLine", json!("cmd.exe")),
        ] {
            let error = with(pointer, value).unwrap_err();
            assert!(matches!(error, SpecError::Unsupported { .. }), "{pointer}: {error}");
            assert_eq!(error.field(), format!("process{}", pointer.replace('/', ".")));
        }
    }

    #[test]
    fn an_unconfined_process_is_accepted() {
        assert!(with("/apparmorProfile", json!("unconfined")).is_ok());
        assert!(with("/selinuxLabel", json!("")).is_ok());
    }

    #[test]
    fn out_of_range_values_are_refused() {
        assert!(with("/oomScoreAdj", json!(1001)).is_err());
        assert!(with("/user/umask", json!(0o1000)).is_err());
        assert!(with("/user/uid", json!(u32::MAX)).is_err());
        assert_eq!(with("/oomScoreAdj", json!(-997)).unwrap().oom_score_adj, Some(-997));
    }

    #[test]
    fn arguments_beyond_a_mebibyte_are_refused() {
        assert_eq!(with("/args", json!(["x", "y".repeat(1 << 20)])).unwrap_err().field(), "process.args");
    }
}
