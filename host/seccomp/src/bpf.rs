//! Classic BPF as seccomp(2) takes it: the few instructions that a filter needs, and what it may return.

/// `BPF_MAXINSNS` of linux/bpf_common.h.
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// Operation codes (linux/bpf_common.h).
pub(crate) mod op {
    /// A = 32 bits of `struct seccomp_data` at offset k.
    pub(crate) const LOAD: u16 = 0x20;
    /// A &= k.
    pub(crate) const AND: u16 = 0x54;
    /// Forward by k.
    pub(crate) const JUMP: u16 = 0x05;
    pub(crate) const IF_EQUAL: u16 = 0x15;
    pub(crate) const IF_GREATER: u16 = 0x25;
    pub(crate) const IF_GREATER_OR_EQUAL: u16 = 0x35;
    pub(crate) const RETURN: u16 = 0x06;
}

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
pub(crate) mod data {
    pub(crate) const NUMBER: u32 = 0;
    pub(crate) const ARCHITECTURE: u32 = 4;

    /// The lower half of an argument; the upper one follows it.
    pub(crate) const fn argument(index: u8) -> u32 {
        16 + 8 * index as u32
    }
}

/// One `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    /// Instructions to skip when the condition holds.
    pub(crate) then: u8,
    /// Instructions to skip when it does not.
    pub(crate) otherwise: u8,
    pub(crate) value: u32,
}

impl Instruction {
    pub(crate) const fn new(code: u16, value: u32) -> Self {
        Self { code, then: 0, otherwise: 0, value }
    }

    pub(crate) const fn branch(code: u16, value: u32, then: u8, otherwise: u8) -> Self {
        Self { code, then, otherwise, value }
    }

    pub(crate) const fn verdict(verdict: Verdict) -> Self {
        Self::new(op::RETURN, verdict.0)
    }

    /// As the kernel of a little-endian machine reads it.
    pub(crate) fn bytes(self) -> [u8; 8] {
        let ([c0, c1], [v0, v1, v2, v3]) = (self.code.to_le_bytes(), self.value.to_le_bytes());
        [c0, c1, self.then, self.otherwise, v0, v1, v2, v3]
    }
}

/// What becomes of a system call: `SECCOMP_RET_*` with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict(pub(crate) u32);

impl Verdict {
    pub(crate) const KILL_PROCESS: Self = Self(0x8000_0000);
    pub(crate) const KILL_THREAD: Self = Self(0);
    pub(crate) const TRAP: Self = Self(0x0003_0000);
    pub(crate) const LOG: Self = Self(0x7ffc_0000);
    pub(crate) const ALLOW: Self = Self(0x7fff_0000);

    /// The call fails with this error; 0 is success without the call.
    pub(crate) fn errno(errno: u16) -> Self {
        Self(0x0005_0000 | u32::from(errno))
    }

    /// A tracer decides, and is told this number.
    pub(crate) fn trace(message: u16) -> Self {
        Self(0x7ff0_0000 | u32::from(message))
    }

    /// Whether a call goes on, or may go on, with this verdict.
    pub(crate) fn is_permissive(self) -> bool {
        self == Self::ALLOW || self == Self::LOG || self.0 & 0xffff_0000 == 0x7ff0_0000
    }
}
