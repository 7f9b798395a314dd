//! Who a process is: limits, groups, user, capabilities. The order is the point of this file.

use husk_agent_api::v1;
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::seccomp::Filter;
use crate::error::{Context, Result};

/// umask when the request has none, as container runtimes have it.
const DEFAULT_UMASK: u32 = 0o022;

/// Sets the OOM score; the zygote's own (-1000) must never be inherited. Needs the agent's /proc.
pub(super) fn set_oom_score_adj(process: &v1::Process) -> Result<()> {
    let score = process.oom_score_adj.unwrap_or(0);
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
        .on("write", format_args!("/proc/self/oom_score_adj {score}"))
}

/// Raises hard limits to those of the request where they are lower: in a user namespace nobody may. All of them are set
/// by [`assume`], when none can be in the way any more.
pub(super) fn raise_limits(process: &v1::Process) -> Result<()> {
    for limit in &process.rlimits {
        let (soft, hard) = crate::sys::rlimit(limit.resource).on("prlimit64", limit.resource)?;
        if limit.hard > hard {
            crate::sys::set_rlimit(limit.resource, soft, limit.hard)
                .on("prlimit64", format_args!("resource {} {soft}:{}", limit.resource, limit.hard))?;
        }
    }
    Ok(())
}

/// Gives up the agent's identity for the container's, and loads the filter unless that comes last.
///
/// From the filter on, only capset, prctl, read, write and execve are called: a profile need not allow more than that.
pub(super) fn assume(process: &v1::Process, filter: Option<v1::SeccompFilter>) -> Result<Filter> {
    let mut filter = Filter::new(filter, process.no_new_privileges)?;
    rustix::process::umask(umask(process));
    for limit in &process.rlimits {
        crate::sys::set_rlimit(limit.resource, limit.soft, limit.hard)
            .on("prlimit64", format_args!("resource {} {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    let user = process.user.clone().unwrap_or_default();
    let sets = process.capabilities.unwrap_or_default();
    // Dropping from the bounding set needs CAP_SETPCAP, so it comes before the user changes.
    drop_bounding(sets.bounding)?;
    // A user other than root would lose the permitted set with setuid.
    rustix::thread::set_keep_capabilities(true).on("prctl", "PR_SET_KEEPCAPS")?;
    let groups: Vec<Gid> = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).on("setgroups", format_args!("{:?}", user.additional_gids))?;
    let gid = Gid::from_raw(user.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).on("setresgid", user.gid)?;
    let uid = Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).on("setresuid", user.uid)?;
    rustix::thread::set_keep_capabilities(false).on("prctl", "PR_SET_KEEPCAPS")?;
    let known = CapabilitySet::from_bits_retain(known_capabilities());
    filter.load_first()?;
    let set = |bits: u64| CapabilitySet::from_bits_retain(bits) & known;
    let wanted = CapabilitySets {
        effective: set(sets.effective),
        permitted: set(sets.permitted),
        inheritable: set(sets.inheritable),
    };
    rustix::thread::set_capabilities(None, wanted).on("capset", format_args!("{sets:?}"))?;
    // Ambient ones must already be permitted and inheritable.
    rustix::thread::clear_ambient_capability_set().on("prctl", "PR_CAP_AMBIENT_CLEAR_ALL")?;
    for capability in each(sets.ambient & known.bits()) {
        rustix::thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << capability), true)
            .on("prctl", format_args!("PR_CAP_AMBIENT_RAISE {capability}"))?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).on("prctl", "PR_SET_NO_NEW_PRIVS")?;
    }
    Ok(filter)
}

fn umask(process: &v1::Process) -> Mode {
    let umask = process.user.as_ref().and_then(|user| user.umask).unwrap_or(DEFAULT_UMASK);
    Mode::from_raw_mode(umask & 0o777)
}

/// Capability numbers of a mask.
fn each(mask: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| mask & (1 << bit) != 0)
}

/// Mask of the capabilities that this kernel has.
fn known_capabilities() -> u64 {
    each(u64::MAX)
        .take_while(|bit| {
            rustix::thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << bit)).is_ok()
        })
        .fold(0, |mask, bit| mask | (1 << bit))
}

fn drop_bounding(keep: u64) -> Result<()> {
    for capability in each(!keep) {
        let one = CapabilitySet::from_bits_retain(1 << capability);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Beyond the last one that the kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).on("prctl", format_args!("PR_CAPBSET_DROP {capability}")),
        }
    }
    Ok(())
}

/// Gives up every capability: for a process that only waits.
pub(super) fn drop_everything() -> Result<()> {
    drop_bounding(0)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .on("capset", "none")?;
    rustix::thread::set_no_new_privs(true).on("prctl", "PR_SET_NO_NEW_PRIVS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_lists_its_numbers() {
        assert_eq!(each(0b1010_0001).collect::<Vec<_>>(), [0, 5, 7]);
        assert_eq!(each(1 << 63).collect::<Vec<_>>(), [63]);
    }

    #[test]
    fn the_kernel_knows_the_common_capabilities() {
        assert_eq!(known_capabilities() & 0xff_ffff, 0xff_ffff);
    }
}
