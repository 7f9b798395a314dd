//! eBPF programs on cgroups: their instructions, loading and attaching.
//!
//! A program that is attached to a cgroup holds for all below it. It can be taken away by who has the cgroup's directory
//! and may use bpf(2), so no container may reach the one that its programs are attached to.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::Cgroup;
use crate::error::{Context, Result};

/// One `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// Destination in the low half, source in the high one.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: u32,
}

/// Opcodes that the programs use (instruction-set.rst of the kernel).
pub(super) mod op {
    pub(in super::super) const LOAD_WORD: u8 = 0x61;
    /// 32 bits.
    pub(in super::super) const MOVE_REGISTER: u8 = 0xbc;
    /// 64 bits, pointers too.
    pub(in super::super) const COPY: u8 = 0xbf;
    pub(in super::super) const ADD: u8 = 0x07;
    pub(in super::super) const MOVE: u8 = 0xb7;
    pub(in super::super) const SHIFT_RIGHT: u8 = 0x74;
    pub(in super::super) const AND: u8 = 0x54;
    pub(in super::super) const JUMP_IF_NOT_EQUAL: u8 = 0x56;
    pub(in super::super) const CALL: u8 = 0x85;
    pub(in super::super) const EXIT: u8 = 0x95;
}

pub(super) const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction { code, registers: to | (from << 4), offset, immediate }
}

/// What a program decides about: `BPF_PROG_TYPE_*` and `BPF_CGROUP_*` of linux/bpf.h.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Device,
    Sysctl,
}

impl Kind {
    fn numbers(self) -> (u32, u32) {
        match self {
            Self::Device => (15, 6),
            Self::Sysctl => (23, 18),
        }
    }
}

/// bpf(2) with a zero-padded `union bpf_attr`.
fn bpf(command: libc::c_int, words: &[u32]) -> rustix::io::Result<libc::c_long> {
    let mut attributes = [0_u32; 32];
    for (to, from) in attributes.iter_mut().zip(words) {
        *to = *from;
    }
    // SAFETY: `attributes` is as long as is said; what it points to is kept alive by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    if result >= 0 {
        Ok(result)
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// The two halves of a pointer, as a little-endian machine stores it in a `union bpf_attr`.
fn halves<T>(pointer: *const T) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = (pointer.expose_provenance() as u64).to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// How often loading is tried while signals come in between.
const LOAD_ATTEMPTS: usize = 64;

/// Loads a program and attaches it to a cgroup. Those of cgroups below may only restrict further.
pub(super) fn attach(cgroup: &Cgroup, kind: Kind, code: &[Instruction]) -> Result<()> {
    const PROG_LOAD: libc::c_int = 5;
    const PROG_ATTACH: libc::c_int = 8;
    const ALLOW_MULTI: u32 = 2;
    let (program_type, attach_type) = kind.numbers();
    let length = u32::try_from(code.len()).map_err(|_| Errno::TOOBIG).on("bpf", format_args!("{kind:?} rules"))?;
    let [code_low, code_high] = halves(code.as_ptr());
    let [license_low, license_high] = halves(c"Apache-2.0".as_ptr());
    let attributes = [program_type, length, code_low, code_high, license_low, license_high];
    // A signal, such as that of a child's end, makes the verifier give up (`do_check` in kernel/bpf/verifier.c).
    let loaded = std::iter::repeat_with(|| bpf(PROG_LOAD, &attributes))
        .take(LOAD_ATTEMPTS)
        .find(|loaded| *loaded != Err(Errno::AGAIN))
        .unwrap_or(Err(Errno::AGAIN))
        .on("bpf", format_args!("BPF_PROG_LOAD of the {kind:?} rules"))?;
    let program = i32::try_from(loaded).map_err(|_| Errno::BADF).on("bpf", format_args!("{kind:?} rules"))?;
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let directory = cgroup.open()?;
    let [directory_fd, program_fd] = [directory.as_raw_fd(), program.as_raw_fd()].map(i32::cast_unsigned);
    bpf(PROG_ATTACH, &[directory_fd, program_fd, attach_type, ALLOW_MULTI])
        .on("bpf", format_args!("BPF_PROG_ATTACH to {}", cgroup.path().display()))
        .map(drop)
}
