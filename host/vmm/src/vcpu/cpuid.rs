//! CPUID of each vCPU: what KVM supports, with this machine's topology.
//!
//! Topology: one package, one thread per core, APIC id = vCPU number. Sources: Intel SDM volume 2A, CPUID; AMD APM
//! volume 3, appendix E.4. Leaves 0x4000_00xx are KVM's own and stay as they are.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use crate::vm::VmError;

// Leaf 1, ECX.
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
// Leaf 1, EDX.
const HTT: u32 = 1 << 28;
/// CLFLUSH works on 8 quadwords, a cache line of 64 bytes.
const CLFLUSH_LINE: u32 = 8 << 8;

const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// Bits needed to number `count` things.
fn bits_for(count: u8) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// Bits of a guest-physical address: leaf 0x8000_0008, EAX; 36 where there is no such leaf (Intel SDM volume 2A, CPUID).
#[must_use]
pub fn address_bits(supported: &CpuId) -> u32 {
    let leaf = supported.as_slice().iter().find(|entry| entry.function == 0x8000_0008);
    leaf.map_or(36, |entry| entry.eax & 0xff)
}

/// Fits KVM's CPUID to vCPU `id` of `count`.
pub(super) fn for_vcpu(supported: &CpuId, id: u8, count: u8) -> Result<CpuId, VmError> {
    let mut entries = supported.as_slice().to_vec();
    // Leaves of Intel's extended topology are written anew, for as many levels as we have.
    entries.retain(|entry| !matches!(entry.function, 0xb | 0x1f));
    for entry in &mut entries {
        fit(entry, id, count);
    }
    let highest = entries.iter().find(|entry| entry.function == 0).map_or(0, |entry| entry.eax);
    for leaf in [0xb, 0x1f].into_iter().filter(|leaf| *leaf <= highest) {
        entries.extend(extended_topology(leaf, id, count));
    }
    CpuId::from_entries(&entries).map_err(|error| VmError::Refused {
        what: "hold the CPUID entries",
        source: std::io::Error::other(format!("{error:?}")),
    })
}

fn fit(entry: &mut kvm_cpuid_entry2, id: u8, count: u8) {
    let (id, count) = (u32::from(id), u32::from(count));
    match entry.function {
        0x1 => {
            entry.ebx = (entry.ebx & 0xff) | CLFLUSH_LINE | (count << 16) | (id << 24);
            entry.ecx |= HYPERVISOR | X2APIC | TSC_DEADLINE;
            if count > 1 {
                entry.edx |= HTT;
            } else {
                entry.edx &= !HTT;
            }
        }
        // Deterministic caches: levels 1 and 2 belong to one CPU, level 3 to all; all cores are in one package.
        0x4 if entry.eax & 0x1f != 0 => {
            let level = (entry.eax >> 5) & 7;
            let sharing = if level >= 3 { count - 1 } else { 0 };
            entry.eax = (entry.eax & 0x3fff) | (sharing << 14) | ((count - 1).min(63) << 26);
        }
        // AMD: number of cores, and how many bits of an APIC id tell them apart.
        0x8000_0008 => {
            let bits = bits_for(u8::try_from(count).unwrap_or(u8::MAX));
            entry.ecx = (entry.ecx & !0xf0ff) | (count - 1) | (bits << 12);
        }
        // AMD: caches, as leaf 4.
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = (entry.eax >> 5) & 7;
            let sharing = if level >= 3 { count - 1 } else { 0 };
            entry.eax = (entry.eax & 0x3fff) | (sharing << 14);
        }
        // AMD: extended APIC id; core id, one thread per core; one node.
        0x8000_001e => {
            entry.eax = id;
            entry.ebx = id & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Leaves 0xb and 0x1f: one entry per level and one that ends the list.
fn extended_topology(function: u32, id: u8, count: u8) -> [kvm_cpuid_entry2; 3] {
    let level = |index: u32, shift: u32, processors: u32, kind: u32| kvm_cpuid_entry2 {
        function,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: index | (kind << 8),
        edx: u32::from(id),
        ..Default::default()
    };
    [level(0, 0, 1, LEVEL_THREAD), level(1, bits_for(count), u32::from(count), LEVEL_CORE), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> CpuId {
        let leaf = |function, eax| kvm_cpuid_entry2 { function, eax, ..Default::default() };
        CpuId::from_entries(&[leaf(0, 0x1f), leaf(1, 0x600), leaf(4, 0x0c00_0163), leaf(0xb, 9), leaf(0x8000_0008, 0)])
            .unwrap()
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        let found = cpuid.as_slice().iter().filter(|e| e.function == function && e.index == index);
        let found: Vec<_> = found.copied().collect();
        assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
        found[0]
    }

    #[test]
    fn each_vcpu_has_its_apic_id_everywhere() {
        let cpuid = for_vcpu(&supported(), 3, 4).unwrap();
        assert_eq!(find(&cpuid, 1, 0).ebx >> 16, (3 << 8) | 4);
        assert_eq!(find(&cpuid, 0xb, 0).edx, 3);
        assert_eq!(find(&cpuid, 0x1f, 1).edx, 3);
        assert_ne!(find(&cpuid, 1, 0).ecx & HYPERVISOR, 0);
    }

    #[test]
    fn the_topology_is_one_package_of_single_threaded_cores() {
        let cpuid = for_vcpu(&supported(), 0, 6).unwrap();
        let (thread, core) = (find(&cpuid, 0xb, 0), find(&cpuid, 0xb, 1));
        assert_eq!((thread.eax, thread.ebx), (0, 1));
        assert_eq!((core.eax, core.ebx), (3, 6));
        assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx, 5 | (3 << 12));
        assert_eq!((find(&cpuid, 4, 0).eax >> 14) & 0xfff, 5);
        assert_eq!(find(&cpuid, 4, 0).eax >> 26, 5);
    }

    #[test]
    fn addresses_are_as_wide_as_the_machine_says() {
        let leaf = kvm_cpuid_entry2 { function: 0x8000_0008, eax: 0x3028, ..Default::default() };
        assert_eq!(address_bits(&CpuId::from_entries(&[leaf]).unwrap()), 40);
        assert_eq!(address_bits(&CpuId::from_entries(&[]).unwrap()), 36);
    }

    #[test]
    fn ids_need_as_many_bits_as_their_highest() {
        assert_eq!([1, 2, 3, 4, 5, 64].map(bits_for), [0, 1, 2, 2, 3, 6]);
    }
}
