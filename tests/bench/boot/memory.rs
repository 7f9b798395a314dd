//! What a monitor's process takes beside the guest's RAM, by `/proc/PID/smaps` (proc(5)).

use std::fs;

use anyhow::{Context, Result, ensure};

/// KiB of a process without the mapping that is the guest's RAM.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Resident, shared pages counted whole.
    pub(crate) rss: u64,
    /// Proportional: a page shared by n processes counts as one n-th.
    pub(crate) pss: u64,
    /// Private and written to: what one more of these processes costs.
    pub(crate) private_dirty: u64,
    /// Resident part of the guest's RAM, for the record.
    pub(crate) guest_rss: u64,
}

/// Reads the usage of the process of a VM with so much RAM; 0: of another process. Room for more RAM counts as RAM: the
/// host may show both as one mapping.
pub(crate) fn usage(pid: u32, guest_mib: u64) -> Result<Usage> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse(&text, guest_mib * 1024).with_context(|| format!("reading {path}"))
}

fn parse(smaps: &str, guest_kib: u64) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut guest_ram = 0;
    let mut in_guest_ram = false;
    for line in smaps.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let Some(kib) = value.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok()) else {
            continue;
        };
        match name {
            // The first line of each mapping's figures.
            "Size" => {
                in_guest_ram = guest_kib > 0 && kib >= guest_kib;
                if in_guest_ram {
                    guest_ram += kib;
                }
            }
            "Rss" if in_guest_ram => usage.guest_rss += kib,
            "Rss" => usage.rss += kib,
            "Pss" if !in_guest_ram => usage.pss += kib,
            "Private_Dirty" if !in_guest_ram => usage.private_dirty += kib,
            _ => {}
        }
    }
    ensure!(guest_ram >= guest_kib, "expected a mapping of {guest_kib} KiB, the guest's RAM, and found none");
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f000fa00000 rw-s 00000000 00:01 5 /memfd:guest (deleted)
Size:             256000 kB
Rss:               40000 kB
Pss:               40000 kB
Private_Dirty:     40000 kB
55d000000000-55d000100000 r-xp 00000000 fe:00 9 /usr/bin/husk-vmm
Size:               1024 kB
Rss:                 800 kB
Pss:                 400 kB
Private_Dirty:         8 kB
VmFlags: rd ex mr mw me
";

    #[test]
    fn guest_ram_is_counted_apart() {
        let usage = parse(SMAPS, 256_000).unwrap();
        assert_eq!((usage.rss, usage.pss, usage.private_dirty, usage.guest_rss), (800, 400, 8, 40_000));
    }

    #[test]
    fn a_process_without_the_guests_ram_is_an_error() {
        assert!(parse("Size: 1024 kB\nRss: 4 kB\n", 256_000).is_err());
    }
}
