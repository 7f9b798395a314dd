//! `linux.resources.memory` and `hugepageLimits`.

use husk_agent_api::v1;
use oci_spec::runtime::{LinuxHugepageLimit, LinuxMemory};

use super::{CGROUP_V1, SpecError};

pub(super) fn memory(wanted: &LinuxMemory, limits: &mut v1::Resources) -> Result<(), SpecError> {
    let unwanted = [
        ("linux.resources.memory.kernel", wanted.kernel().is_some_and(|value| value > 0)),
        ("linux.resources.memory.kernelTCP", wanted.kernel_tcp().is_some_and(|value| value > 0)),
        ("linux.resources.memory.swappiness", wanted.swappiness().is_some()),
        ("linux.resources.memory.disableOOMKiller", wanted.disable_oom_killer() == Some(true)),
        ("linux.resources.memory.useHierarchy", wanted.use_hierarchy() == Some(false)),
    ];
    if let Some((field, _)) = unwanted.into_iter().find(|(_, set)| *set) {
        return Err(SpecError::unsupported(field, "(set)", CGROUP_V1));
    }
    limits.check_memory = wanted.check_before_update() == Some(true);
    limits.memory_max = limit("linux.resources.memory.limit", wanted.limit())?;
    limits.memory_low = limit("linux.resources.memory.reservation", wanted.reservation())?;
    limits.memory_swap_max = swap_max(wanted.swap(), wanted.limit())?;
    Ok(())
}

/// 0 leaves the kernel's value alone, -1 is no limit.
fn limit(field: &str, value: Option<i64>) -> Result<Option<i64>, SpecError> {
    match value {
        None | Some(0) => Ok(None),
        Some(value) if value < -1 => Err(SpecError::invalid(field, value.to_string(), "use -1 for no limit")),
        Some(value) => Ok(Some(value)),
    }
}

/// OCI's swap is memory and swap together; cgroup v2's `memory.swap.max` is swap alone.
/// (runc: `ConvertMemorySwapToCgroupV2Value`.)
pub(super) fn swap_max(swap: Option<i64>, memory: Option<i64>) -> Result<Option<i64>, SpecError> {
    const FIELD: &str = "linux.resources.memory.swap";
    let memory = memory.unwrap_or(0);
    match swap.unwrap_or(0) {
        // Unlimited memory without a word on swap means unlimited swap.
        0 => Ok((memory == -1).then_some(-1)),
        -1 => Ok(Some(-1)),
        swap if swap < -1 => Err(SpecError::invalid(FIELD, swap.to_string(), "use -1 for no limit")),
        swap if memory <= 0 => {
            Err(SpecError::invalid(FIELD, swap.to_string(), "it needs linux.resources.memory.limit beside it"))
        }
        swap => match swap.checked_sub(memory) {
            Some(difference) if difference >= 0 => Ok(Some(difference)),
            _ => {
                let why = format!("it counts memory and swap together, so it is at least memory.limit ({memory})");
                Err(SpecError::invalid(FIELD, swap.to_string(), why))
            }
        },
    }
}

/// As control files: the guest knows which page sizes it has. A limit of 0 holds for a size that it does not have.
pub(super) fn huge_pages(wanted: &[LinuxHugepageLimit], limits: &mut v1::Resources) -> Result<(), SpecError> {
    for page in wanted {
        let size = page.page_size();
        let field = format!("linux.resources.hugepageLimits[{}]", crate::spec::shown(size));
        let digits = ["KB", "MB", "GB"].into_iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        if !(1..=4).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            let why = "a page size looks like 2MB or 1GB";
            return Err(SpecError::invalid(field, page.limit().to_string(), why));
        }
        let value = match page.limit() {
            -1 => "max".to_owned(),
            bytes @ 0.. => bytes.to_string(),
            bytes => return Err(SpecError::invalid(field, bytes.to_string(), "use -1 for no limit")),
        };
        // Pages in use and pages reserved, as runc has it.
        for file in ["max", "rsvd.max"] {
            limits.files.insert(format!("hugetlb.{size}.{file}"), value.clone());
        }
    }
    Ok(())
}
