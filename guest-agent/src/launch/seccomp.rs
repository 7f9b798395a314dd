//! The container's system call filter: is it one, and when is it loaded?
//!
//! With `no_new_privileges` anybody may load a filter, so it is loaded as the last thing before execve. Without, it needs
//! CAP_SYS_ADMIN in effect, so it is loaded just before capabilities are set.

use husk_agent_api::v1::SeccompFilter;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{Context, Error, Result};
use crate::sys::SockFilter;

/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;
/// `SECCOMP_FILTER_FLAG_LOG` and `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
const FLAGS: u32 = 2 | 4;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;
/// `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;
/// `BPF_LD | BPF_W | BPF_ABS`.
const LOAD: u16 = 0x20;
/// Of `struct seccomp_data`.
const DATA_BYTES: u32 = 64;
/// `SECCOMP_RET_USER_NOTIF`: nobody would answer, and every such call would wait for ever.
const NOTIFY: u32 = 0x7fc0_0000;
const ACTION: u32 = 0xffff_0000;

/// Refuses what is no filter. The kernel checks it again.
pub fn check(filter: &SeccompFilter) -> Result<()> {
    if filter.flags & !FLAGS != 0 {
        return Err(Error::invalid(format!("seccomp.flags: {:#x} has others than LOG and SPEC_ALLOW", filter.flags)));
    }
    let code = instructions(&filter.program)?;
    let last = code.len().saturating_sub(1);
    for (at, instruction) in code.iter().enumerate() {
        let fault = |what: &str| Err(Error::invalid(format!("seccomp.program: instruction {at} {what}")));
        let SockFilter { code, then, otherwise, value } = *instruction;
        let farthest = match code & 7 {
            _ if code == RETURN && value & ACTION == NOTIFY => {
                return fault("notifies, and there is nobody to be told");
            }
            _ if code == RETURN => continue,
            _ if code == LOAD && (value >= DATA_BYTES || value % 4 != 0) => {
                return fault("loads from outside of the call");
            }
            // Loads, stores, arithmetic, register moves.
            0..=4 | 7 => 0,
            5 if code == JUMP => value,
            5 => u32::from(then.max(otherwise)),
            _ => return fault("is none that filters are made of"),
        };
        // The next one must be there, and what is jumped to.
        let farthest = usize::try_from(farthest).unwrap_or(usize::MAX);
        if at.saturating_add(1).saturating_add(farthest) > last {
            return fault("leads out of the program");
        }
    }
    Ok(())
}

fn instructions(program: &[u8]) -> Result<Vec<SockFilter>> {
    let (code, rest) = program.as_chunks::<8>();
    if code.is_empty() || code.len() > MAX_INSTRUCTIONS || !rest.is_empty() {
        let bytes = program.len();
        return Err(Error::invalid(format!(
            "seccomp.program: {bytes} bytes are not 1 to 4096 instructions of 8 bytes"
        )));
    }
    let instruction = |&[c0, c1, then, otherwise, v0, v1, v2, v3]: &[u8; 8]| SockFilter {
        code: u16::from_le_bytes([c0, c1]),
        then,
        otherwise,
        value: u32::from_le_bytes([v0, v1, v2, v3]),
    };
    Ok(code.iter().map(instruction).collect())
}

/// A filter on its way into the kernel.
pub(super) struct Filter {
    pending: Option<(Vec<SockFilter>, u32)>,
    last: bool,
}

impl Filter {
    pub(super) fn new(filter: Option<SeccompFilter>, no_new_privileges: bool) -> Result<Self> {
        let pending = match filter {
            Some(filter) => Some((instructions(&filter.program)?, filter.flags)),
            None => None,
        };
        Ok(Self { pending, last: no_new_privileges })
    }

    /// Loads it while CAP_SYS_ADMIN is permitted, if it must be then.
    pub(super) fn load_first(&mut self) -> Result<()> {
        if self.last || self.pending.is_none() {
            return Ok(());
        }
        // The change of user has taken it out of effect.
        let mut sets = rustix::thread::capabilities(None).on("capget", "own capabilities")?;
        sets = CapabilitySets { effective: sets.effective | CapabilitySet::SYS_ADMIN, ..sets };
        rustix::thread::set_capabilities(None, sets).on("capset", "CAP_SYS_ADMIN for the seccomp filter")?;
        self.load()
    }

    /// Loads it if that has not been done.
    pub(super) fn load_last(mut self) -> Result<()> {
        self.load()
    }

    fn load(&mut self) -> Result<()> {
        let Some((code, flags)) = self.pending.take() else { return Ok(()) };
        crate::sys::set_seccomp_filter(&code, flags).on("seccomp", format_args!("{} instructions", code.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(code: &[(u16, u8, u8, u32)]) -> SeccompFilter {
        let bytes = |(code, then, otherwise, value): &(u16, u8, u8, u32)| {
            let mut bytes = code.to_le_bytes().to_vec();
            bytes.extend([*then, *otherwise]);
            bytes.extend(value.to_le_bytes());
            bytes
        };
        SeccompFilter { program: code.iter().flat_map(bytes).collect(), flags: 4 }
    }

    const ALLOW: (u16, u8, u8, u32) = (RETURN, 0, 0, 0x7fff_0000);

    #[test]
    fn a_filter_passes() {
        check(&filter(&[(LOAD, 0, 0, 4), (0x15, 1, 0, 3), ALLOW, ALLOW])).unwrap();
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let long = vec![ALLOW; MAX_INSTRUCTIONS + 1];
        for code in [
            &[][..],
            &long,
            &[(LOAD, 0, 0, 0)],
            &[(LOAD, 0, 0, 64), ALLOW],
            &[(LOAD, 0, 0, 2), ALLOW],
            &[(0x15, 1, 0, 3), ALLOW],
            &[(0x15, 0, 1, 3), ALLOW],
            &[(JUMP, 0, 0, 1), ALLOW],
            &[(JUMP, 0, 0, u32::MAX), ALLOW],
            &[(RETURN, 0, 0, NOTIFY | 5)],
        ] {
            assert!(check(&filter(code)).is_err(), "{code:?}");
        }
        let mut cut = filter(&[ALLOW]);
        cut.program.pop();
        assert!(check(&cut).is_err());
        assert!(check(&SeccompFilter { flags: 8, ..filter(&[ALLOW]) }).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_checked_without_panic(
            program in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..256),
            flags in 0_u32..16,
        ) {
            let _ = check(&SeccompFilter { program, flags });
        }
    }
}
