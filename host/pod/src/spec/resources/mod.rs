//! `linux.resources`: OCI's cgroup v1 words turned into cgroup v2 limits.
//!
//! The conversions are those of runc (github.com/opencontainers/cgroups, `utils.go`), so that a limit means the same
//! under every runtime. One file for each of [`cpu`], [`memory`] and [`io`]; [`unified`] reads cgroup v2's own words.

mod cpu;
mod io;
mod memory;
#[cfg(test)]
mod tests;
mod unified;

use husk_agent_api::v1;
use oci_spec::runtime::LinuxResources;

pub(crate) use cpu::weight;
pub(crate) use io::Throttle;

use super::devices::check_rules;
use super::{SpecError, refuse_members, refuse_some};

const CGROUP_V1: &str = "it exists only in cgroup v1, and the guest has cgroup v2";

/// Limits of a pod or container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// As the agent sets them.
    pub(crate) agent: v1::Resources,
    /// Limits of single devices, whose slots are not known yet.
    pub(crate) throttles: Vec<Throttle>,
}

/// Reads the limits. `blocks` are the block devices that the rules may allow.
pub(crate) fn resources(wanted: &LinuxResources, blocks: &[(i64, i64)]) -> Result<Limits, SpecError> {
    refuse(wanted)?;
    check_rules(wanted.devices().as_deref().unwrap_or_default(), blocks)?;
    let Limits { agent: mut limits, mut throttles } = Limits::default();
    if let Some(wanted) = wanted.memory() {
        memory::memory(wanted, &mut limits)?;
    }
    if let Some(wanted) = wanted.cpu() {
        cpu::cpu(wanted, &mut limits)?;
    }
    if let Some(wanted) = wanted.block_io() {
        io::block_io(wanted, &mut limits, &mut throttles)?;
    }
    memory::huge_pages(wanted.hugepage_limits().as_deref().unwrap_or_default(), &mut limits)?;
    limits.pids_max = match wanted.pids().map(|pids| pids.limit()) {
        None | Some(0) => None,
        Some(limit) => Some(limit.max(-1)),
    };
    if let Some(files) = wanted.unified() {
        unified::unified(files, &mut limits, &mut throttles)?;
    }
    Ok(Limits { agent: limits, throttles })
}

fn refuse(wanted: &LinuxResources) -> Result<(), SpecError> {
    refuse_members("linux.resources.rdma", wanted.rdma().as_ref(), "the guest has no RDMA devices")?;
    if let Some(network) = wanted.network() {
        refuse_some("linux.resources.network.classID", network.class_id().filter(|id| *id != 0).as_ref(), CGROUP_V1)?;
        refuse_members("linux.resources.network.priorities", network.priorities().as_ref(), CGROUP_V1)?;
    }
    Ok(())
}
