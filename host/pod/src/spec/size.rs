//! How large a pod's VM is, and how large it can become.

use husk_agent_api::v1;

use super::SpecError;

pub(super) const MIB: u64 = 1024 * 1024;
/// Memory beside the containers': guest kernel, agent, page tables and the kernel's own slabs, in bytes. What a
/// RuntimeClass' `overhead` has to state, together with the VMM's own.
pub const GUEST_OVERHEAD: u64 = 128 * MIB;
/// Up to here the kernel's page structures, 64 bytes for each page of 4 KiB, are part of [`GUEST_OVERHEAD`].
const SMALL: u64 = 2048 * MIB;
/// Each further byte of the containers' costs this part of one more.
const PAGE_STRUCTURES: u64 = 64;
/// Limits of the VMM's `Boot` message.
pub(super) const MIN_MEMORY_MIB: u64 = 64;
pub(super) const MAX_MEMORY_MIB: u64 = 1024 * 1024;
const DEFAULT_VCPUS: u64 = 2;
const DEFAULT_PERIOD: u64 = 100_000;
/// vCPUs that a VM has at least, where the host has as many, so that the pod can be given more CPUs. Each that is not
/// used costs some 0.2 MiB in the guest and one thread of the VMM.
const SPARE_VCPUS: u8 = 8;
/// What hot-pluggable memory is a multiple of, and what of it can be plugged, in MiB.
const HOTPLUG_UNIT_MIB: u64 = 128;
const PLUG_UNIT_MIB: u64 = 2;

/// The shape of a pod's VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmSize {
    pub memory_mib: u64,
    pub vcpus: u8,
}

/// The most that the host can give one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ceiling {
    pub(crate) memory_mib: u64,
    /// 1 to 64.
    pub(crate) vcpus: u8,
}

/// CPU time: so many microseconds in each period of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuLimit {
    pub(crate) quota_us: u64,
    pub(crate) period_us: u64,
}

impl VmSize {
    /// What all containers together may use, in bytes.
    #[must_use]
    pub fn containers_bytes(self) -> u64 {
        let bytes = self.memory_mib.saturating_mul(MIB).saturating_sub(GUEST_OVERHEAD);
        let further = bytes.saturating_sub(SMALL);
        bytes.saturating_sub(further.div_ceil(PAGE_STRUCTURES + 1))
    }

    /// What they may not, in MiB.
    pub(crate) fn overhead_mib(self) -> u64 {
        self.memory_mib.saturating_sub(self.containers_bytes() / MIB)
    }

    /// The most that this VM can grow to while it runs, as the VMM has to know when it boots; the VMM may find less room
    /// for memory. That the host has this much is decided when it is asked for.
    pub(crate) fn room(self, ceiling: Ceiling) -> Self {
        let hotplug_mib = ceiling.memory_mib.min(MAX_MEMORY_MIB).saturating_sub(self.memory_mib);
        let hotplug_mib = hotplug_mib.saturating_sub(hotplug_mib % HOTPLUG_UNIT_MIB);
        Self {
            memory_mib: self.memory_mib.saturating_add(hotplug_mib),
            vcpus: self.vcpus.max(ceiling.vcpus.min(SPARE_VCPUS)),
        }
    }
}

/// Memory of a VM whose containers together may use `bytes`.
pub(crate) fn memory_mib(bytes: u64) -> Option<u64> {
    let structures = bytes.saturating_sub(SMALL).div_ceil(PAGE_STRUCTURES);
    let mib = bytes.saturating_add(structures).saturating_add(GUEST_OVERHEAD).div_ceil(MIB);
    (mib <= MAX_MEMORY_MIB).then_some(mib.max(MIN_MEMORY_MIB))
}

/// Of that, what has to be plugged into a VM that booted with `boot_mib`: whole blocks.
pub(crate) fn plugged_mib(memory_mib: u64, boot_mib: u64) -> u64 {
    memory_mib.saturating_sub(boot_mib).next_multiple_of(PLUG_UNIT_MIB)
}

/// vCPUs that use up a limit of CPU time; no more than there are CPUs.
pub(crate) fn vcpus(limit: Option<CpuLimit>, most: u8) -> u8 {
    let wanted = limit.map_or(DEFAULT_VCPUS, |limit| limit.quota_us.div_ceil(limit.period_us.max(1)));
    u8::try_from(wanted).unwrap_or(u8::MAX).clamp(1, most.max(1))
}

/// A change of a pod's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SizeChange {
    /// Bytes of all containers together; none: as it is.
    pub(crate) memory: Option<u64>,
    /// None: as it is; `Some(None)`: no limit.
    pub(crate) cpu: Option<Option<CpuLimit>>,
}

impl SizeChange {
    /// What limits mean for the VM. No limit of memory is the VM's own size.
    pub(crate) fn of(limits: &v1::Resources) -> Result<Self, SpecError> {
        let memory = match limits.memory_max.map(u64::try_from) {
            None | Some(Err(_)) => None,
            Some(Ok(bytes)) if memory_mib(bytes).is_none() => {
                let why = "a VM has at most 1 TiB";
                return Err(SpecError::invalid("linux.resources.memory.limit", bytes.to_string(), why));
            }
            Some(Ok(bytes)) => Some(bytes),
        };
        let period_us = limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD);
        let cpu =
            limits.cpu_quota_us.map(|quota| u64::try_from(quota).ok().map(|quota_us| CpuLimit { quota_us, period_us }));
        Ok(Self { memory, cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(memory_mib: u64, vcpus: u8) -> VmSize {
        VmSize { memory_mib, vcpus }
    }

    #[test]
    fn a_vm_can_grow_as_far_as_its_host_goes() {
        let ceiling = |memory_mib, vcpus| Ceiling { memory_mib, vcpus };
        assert_eq!(size(192, 1).room(ceiling(6000, 4)), size(192 + 5760, 4));
        assert_eq!(size(192, 1).room(ceiling(6000, 64)), size(192 + 5760, SPARE_VCPUS));
        assert_eq!(size(192, 20).room(ceiling(100, 64)), size(192, 20));
    }

    #[test]
    fn memory_is_plugged_in_whole_blocks() {
        assert_eq!(memory_mib(1), Some(129));
        assert_eq!((plugged_mib(1024, 192), plugged_mib(1024, 193), plugged_mib(100, 192)), (832, 832, 0));
        assert_eq!(memory_mib(u64::MAX), None);
    }

    #[test]
    fn page_structures_of_a_large_vm_are_not_the_containers() {
        assert_eq!(memory_mib(SMALL), Some(2048 + 128));
        assert_eq!(memory_mib(SMALL + 64 * 1024 * MIB), Some(2048 + 128 + 65 * 1024));
        assert_eq!(size(2048 + 128 + 65 * 1024, 1).overhead_mib(), 128 + 1024);
    }

    proptest::proptest! {
        #[test]
        fn a_vm_has_room_for_what_it_was_made_for(bytes in 1_u64..1 << 39) {
            let size = size(memory_mib(bytes).unwrap(), 1);
            proptest::prop_assert!(size.containers_bytes() >= bytes);
            proptest::prop_assert!(size.containers_bytes() < bytes + 2 * MIB);
        }
    }

    #[test]
    fn vcpus_use_up_the_limit() {
        let limit = |quota_us| Some(CpuLimit { quota_us, period_us: 100_000 });
        assert_eq!([vcpus(limit(250_000), 8), vcpus(limit(1), 8), vcpus(None, 8), vcpus(None, 1)], [3, 1, 2, 1]);
        assert_eq!(vcpus(limit(u64::MAX), 8), 8);
    }

    #[test]
    fn limits_become_a_change_of_size() {
        let limits = v1::Resources {
            memory_max: Some(1 << 30),
            cpu_quota_us: Some(150_000),
            cpu_period_us: None,
            ..v1::Resources::default()
        };
        let cpu = Some(Some(CpuLimit { quota_us: 150_000, period_us: 100_000 }));
        assert_eq!(SizeChange::of(&limits).unwrap(), SizeChange { memory: Some(1 << 30), cpu });
        let none = v1::Resources { memory_max: Some(-1), cpu_quota_us: Some(-1), ..v1::Resources::default() };
        assert_eq!(SizeChange::of(&none).unwrap(), SizeChange { memory: None, cpu: Some(None) });
        assert_eq!(SizeChange::of(&v1::Resources::default()).unwrap(), SizeChange::default());
        assert!(SizeChange::of(&v1::Resources { memory_max: Some(i64::MAX), ..v1::Resources::default() }).is_err());
    }
}
