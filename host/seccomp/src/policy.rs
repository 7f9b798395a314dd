//! What a profile means, in the reading of runc and libseccomp.
//!
//! - A rule whose verdict is the default one says nothing and is left out, as is a name that the table of system calls
//!   does not know: profiles name calls of many architectures and kernels.
//! - A rule without conditions wins over those with conditions, whatever the order. Of several with conditions the first
//!   that matches wins.
//! - Conditions on different arguments must all hold. If one argument has several, each condition is a rule of its own.
//! - A call newer than all that the profile names fails with ENOSYS unless the default lets calls through: so a program
//!   falls back to the older one, instead of taking EPERM for an answer.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use syscalls::x86_64::Sysno;

use crate::ProfileError;
use crate::bpf::Verdict;

/// `EPERM`, what a refused call says unless the profile has another number.
const EPERM: u32 = 1;
/// Largest error number of the kernel (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;
/// Arguments of a system call.
const ARGUMENTS: u8 = 6;

/// A profile's meaning for x86_64.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) default: Verdict,
    /// By number; never empty lists. At most one rule without conditions, and then it is the only one.
    pub(crate) rules: BTreeMap<u32, Vec<Rule>>,
    /// Calls with higher numbers do not exist.
    pub(crate) newest: Option<u32>,
    /// Whether the profile knows of the x32 ABI.
    pub(crate) lists_x32: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) verdict: Verdict,
    /// All of them must hold.
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) argument: u8,
    pub(crate) test: Test,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Test {
    Equal(u64),
    NotEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    /// The bits of the mask are those of the value.
    Masked {
        mask: u64,
        value: u64,
    },
}

impl Policy {
    /// # Errors
    ///
    /// The first field that cannot be honoured.
    pub(crate) fn of(profile: &LinuxSeccomp) -> Result<Self, ProfileError> {
        refuse(profile)?;
        let default = verdict("defaultAction", profile.default_action(), profile.default_errno_ret())?;
        let architectures = profile.architectures().as_deref().unwrap_or_default();
        let mut policy = Self {
            default,
            rules: BTreeMap::new(),
            newest: None,
            lists_x32: architectures.contains(&Arch::ScmpArchX32),
        };
        for (index, call) in profile.syscalls().iter().flatten().enumerate() {
            policy.add(&format!("syscalls[{index}]"), call)?;
        }
        if default.is_permissive() {
            policy.newest = None;
        }
        for rules in policy.rules.values_mut() {
            if let Some(always) = rules.iter().find(|rule| rule.conditions.is_empty()).cloned() {
                *rules = vec![always];
            }
        }
        Ok(policy)
    }

    fn add(&mut self, field: &str, call: &LinuxSyscall) -> Result<(), ProfileError> {
        if call.names().is_empty() || call.names().iter().any(String::is_empty) {
            return Err(ProfileError::invalid(format!("{field}.names"), "\"\"", "it must name system calls"));
        }
        let verdict = verdict(&format!("{field}.action"), call.action(), call.errno_ret())?;
        let conditions = conditions(&format!("{field}.args"), call.args().as_deref().unwrap_or_default())?;
        for number in call.names().iter().filter_map(|name| number(name)) {
            self.newest = self.newest.max(Some(number));
            if verdict == self.default {
                continue;
            }
            let rules = self.rules.entry(number).or_default();
            rules.extend(conditions.iter().map(|conditions| Rule { verdict, conditions: conditions.clone() }));
        }
        Ok(())
    }
}

/// Number of a call of x86_64.
pub(crate) fn number(name: &str) -> Option<u32> {
    u32::try_from(name.parse::<Sysno>().ok()?.id()).ok()
}

fn refuse(profile: &LinuxSeccomp) -> Result<(), ProfileError> {
    const NO_LISTENER: &str = "SCMP_ACT_NOTIFY needs a program on the node that decides, and the calls are in a VM";
    if let Some(path) = profile.listener_path() {
        return Err(ProfileError::unsupported("listenerPath", path.display(), NO_LISTENER));
    }
    match profile.listener_metadata().as_deref() {
        None | Some("") => Ok(()),
        Some(_) => Err(ProfileError::unsupported("listenerMetadata", "(set)", NO_LISTENER)),
    }
}

fn verdict(field: &str, action: LinuxSeccompAction, errno: Option<u32>) -> Result<Verdict, ProfileError> {
    let number = || {
        let errno = errno.unwrap_or(EPERM);
        match u16::try_from(errno) {
            Ok(number) if errno <= MAX_ERRNO => Ok(number),
            _ => Err(ProfileError::invalid(format!("{field} errnoRet"), errno, "error numbers are 0 to 4095")),
        }
    };
    let verdict = match action {
        LinuxSeccompAction::ScmpActErrno => return Ok(Verdict::errno(number()?)),
        LinuxSeccompAction::ScmpActTrace => return Ok(Verdict::trace(number()?)),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Verdict::KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => Verdict::KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => Verdict::TRAP,
        LinuxSeccompAction::ScmpActLog => Verdict::LOG,
        LinuxSeccompAction::ScmpActAllow => Verdict::ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            let why = "no program of the node can decide about calls in a VM; use SCMP_ACT_ERRNO or SCMP_ACT_ALLOW";
            return Err(ProfileError::unsupported(field, action, why));
        }
    };
    match errno {
        // The runtime specification demands an error here.
        Some(errno) => {
            Err(ProfileError::invalid(format!("{field} errnoRet"), errno, format!("{action} returns no error number")))
        }
        None => Ok(verdict),
    }
}

/// The rules' conditions: one list of those that must hold together, or one each when an argument has several.
fn conditions(field: &str, args: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>, ProfileError> {
    let all = args.iter().map(|arg| condition(field, arg)).collect::<Result<Vec<_>, _>>()?;
    let times = |argument| all.iter().filter(|condition| condition.argument == argument).count();
    if all.iter().any(|condition| times(condition.argument) > 1) {
        return Ok(all.into_iter().map(|condition| vec![condition]).collect());
    }
    Ok(vec![all])
}

fn condition(field: &str, arg: &LinuxSeccompArg) -> Result<Condition, ProfileError> {
    let argument = match u8::try_from(arg.index()) {
        Ok(index) if index < ARGUMENTS => index,
        _ => return Err(ProfileError::invalid(format!("{field}.index"), arg.index(), "arguments are 0 to 5")),
    };
    let value = arg.value();
    let test = match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        // Bits outside of the mask would make it hold for nothing; libseccomp drops them.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Test::Masked { mask: value, value: arg.value_two().unwrap_or(0) & value }
        }
    };
    Ok(Condition { argument, test })
}

/// `SECCOMP_FILTER_FLAG_*` of a profile.
pub(crate) fn flags(profile: &LinuxSeccomp) -> Result<u32, ProfileError> {
    const LOG: u32 = 1 << 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    // A profile that says nothing gets what runc gives it: no slower memory accesses because of the filter.
    let Some(flags) = profile.flags() else { return Ok(SPEC_ALLOW) };
    flags.iter().try_fold(0, |all, flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(all | LOG),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(all | SPEC_ALLOW),
        // Whoever loads it has one thread.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(all),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            Err(ProfileError::unsupported("flags", flag, "it concerns SCMP_ACT_NOTIFY, which is not supported"))
        }
    })
}
