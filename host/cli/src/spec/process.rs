//! The process of a container, or of an exec: arguments, environment, user, capabilities.

use std::collections::BTreeMap;
use std::path::PathBuf;

use husk_spec::capabilities::{self, Base, Change};
use husk_spec::defaults::PATH;
use oci_spec::runtime::{BoxBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User};

use super::SpecError;
use crate::pods::plan::{CapabilityPlan, ContainerPlan, Rlimit, UserPlan};
use crate::terminal::raw;

/// Open files, as podman and containerd set it.
const NOFILE: u64 = 1_048_576;

/// What an image says about the processes that run in it, and who its user is.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageFacts {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    pub(crate) workdir: String,
    pub(crate) stop_signal: Option<String>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

pub(super) fn container(plan: &ContainerPlan, image: &ImageFacts, hostname: &str) -> Result<Process, SpecError> {
    let container = || plan.name.clone();
    let args = args(plan, image);
    if args.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoCommand { container: container() });
    }
    if plan.user.must_not_be_root && image.uid == 0 {
        return Err(SpecError::Root { container: container() });
    }
    let directory = plan.workdir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| image.workdir.clone());
    let directory = if directory.is_empty() { "/".to_owned() } else { directory };
    if !directory.starts_with('/') {
        return Err(SpecError::WorkingDirectory { container: container(), directory });
    }
    let capabilities = capabilities::sets(change(&plan.capabilities), base(plan.exposure.privileged), image.uid)
        .map_err(|name| SpecError::Capability { container: container(), name })?;
    let mut process = Process::default();
    process
        .set_terminal(Some(plan.terminal))
        .set_console_size(console_size(plan.terminal))
        .set_user(user(image, &plan.user))
        .set_args(Some(args))
        .set_env(Some(env(image, &plan.env, hostname, plan.terminal)))
        .set_cwd(PathBuf::from(directory))
        .set_capabilities(Some(capabilities))
        .set_rlimits(Some(rlimits(&plan.rlimits).map_err(|name| SpecError::Rlimit { container: container(), name })?))
        .set_no_new_privileges(Some(plan.no_new_privileges));
    Ok(process)
}

/// What `husk exec` says beside the command.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExecInputs {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    pub(crate) terminal: bool,
    /// With every capability that `--privileged` gives a container.
    pub(crate) privileged: bool,
    /// `Some` when another user than the container's was asked for.
    pub(crate) user: Option<(u32, u32, Vec<u32>, String)>,
}

/// A further process in a container: like its first one, with what was asked for changed.
///
/// # Errors
///
/// When the working directory is no absolute path.
pub(crate) fn exec_process(container: &str, first: &Process, inputs: ExecInputs) -> Result<Process, SpecError> {
    let mut process = first.clone();
    let mut env = first.env().clone().unwrap_or_default();
    let mut set = |name: &str, value: &str| {
        let prefix = format!("{name}=");
        env.retain(|entry| !entry.starts_with(&prefix));
        env.push(format!("{prefix}{value}"));
    };
    if inputs.terminal {
        set("TERM", "xterm");
    }
    if let Some((uid, gid, groups, home)) = inputs.user {
        let mut user = User::default();
        user.set_uid(uid).set_gid(gid).set_additional_gids(Some(groups));
        process.set_user(user);
        let capabilities = capabilities::sets(Change::default(), Base::Podman, uid).ok();
        process.set_capabilities(bounded(capabilities, first));
        set("HOME", &home);
    }
    if inputs.privileged {
        let uid = process.user().uid();
        process.set_capabilities(capabilities::sets(Change::default(), Base::Privileged, uid).ok());
    }
    for (name, value) in &inputs.env {
        set(name, value);
    }
    if let Some(directory) = inputs.workdir {
        if !directory.starts_with('/') {
            return Err(SpecError::WorkingDirectory { container: container.to_owned(), directory });
        }
        process.set_cwd(PathBuf::from(directory));
    }
    process.set_args(Some(inputs.args)).set_env(Some(env)).set_terminal(Some(inputs.terminal));
    process.set_console_size(console_size(inputs.terminal));
    Ok(process)
}

/// What is added by name a user other than root has, too, as under podman.
fn change(plan: &CapabilityPlan) -> Change<'_> {
    Change { add: &plan.add, drop: &plan.drop, ambient: &plan.add }
}

fn base(privileged: bool) -> Base {
    if privileged { Base::Privileged } else { Base::Podman }
}

/// The size of the user's own terminal, so that a process finds it from its first instruction on.
fn console_size(terminal: bool) -> Option<oci_spec::runtime::Box> {
    let (rows, columns) = raw::window_size().filter(|_| terminal)?;
    BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns)).build().ok()
}

/// Another user's capabilities may not exceed what the container was given.
fn bounded(
    wanted: Option<oci_spec::runtime::LinuxCapabilities>,
    first: &Process,
) -> Option<oci_spec::runtime::LinuxCapabilities> {
    let limit = first.capabilities().as_ref()?.bounding().clone().unwrap_or_default();
    let mut sets = wanted?;
    let cut = |set: &Option<oci_spec::runtime::Capabilities>| {
        Some(set.iter().flatten().filter(|c| limit.contains(c)).copied().collect())
    };
    let (effective, permitted) = (cut(sets.effective()), cut(sets.permitted()));
    let (inheritable, ambient) = (cut(sets.inheritable()), cut(sets.ambient()));
    sets.set_bounding(Some(limit.clone()))
        .set_effective(effective)
        .set_permitted(permitted)
        .set_inheritable(inheritable)
        .set_ambient(ambient);
    Some(sets)
}

/// Entrypoint and command by the rule that podman (`--entrypoint`, CMD) and Kubernetes (`command`, `args`) share.
fn args(plan: &ContainerPlan, image: &ImageFacts) -> Vec<String> {
    let given = plan.args.clone();
    match &plan.entrypoint {
        Some(entrypoint) => entrypoint.iter().cloned().chain(given.unwrap_or_default()).collect(),
        None => image.entrypoint.iter().cloned().chain(given.unwrap_or_else(|| image.cmd.clone())).collect(),
    }
}

/// PATH and HOME when nobody sets them, the image's entries, HOSTNAME and TERM, then what was asked for.
fn env(image: &ImageFacts, wanted: &[(String, String)], hostname: &str, terminal: bool) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        if values.insert(name.to_owned(), value.to_owned()).is_none() {
            order.push(name.to_owned());
        }
    };
    set("PATH", PATH);
    set("HOME", if image.home.is_empty() { "/" } else { &image.home });
    set("HOSTNAME", hostname);
    if terminal {
        set("TERM", "xterm");
    }
    for entry in &image.env {
        // An entry without "=" would be no variable.
        if let Some((name, value)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) {
            set(name, value);
        }
    }
    for (name, value) in wanted {
        set(name, value);
    }
    order.iter().map(|name| format!("{name}={}", values.get(name).map_or("", String::as_str))).collect()
}

fn user(image: &ImageFacts, plan: &UserPlan) -> User {
    let mut groups = if plan.strict_groups { Vec::new() } else { image.groups.clone() };
    for group in &plan.supplemental_groups {
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
    let mut user = User::default();
    user.set_uid(image.uid).set_gid(image.gid).set_additional_gids(Some(groups));
    user
}

fn rlimits(wanted: &[Rlimit]) -> Result<Vec<PosixRlimit>, String> {
    let mut limits = vec![rlimit(PosixRlimitType::RlimitNofile, NOFILE, NOFILE)?];
    for limit in wanted {
        let typ = limit.name.parse::<PosixRlimitType>().map_err(|_| limit.name.clone())?;
        limits.retain(|l| l.typ() != typ);
        limits.push(rlimit(typ, limit.soft, limit.hard)?);
    }
    Ok(limits)
}

fn rlimit(typ: PosixRlimitType, soft: u64, hard: u64) -> Result<PosixRlimit, String> {
    PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build().map_err(|e| e.to_string())
}
