//! The device rules of a container: an eBPF program on its cgroup that decides about every mknod(2) and open(2) of a
//! device, whatever capabilities the process has (the lesson of CVE-2020-2023).
//!
//! The rules are the OCI runtime specification's defaults and the nodes that the request names. Making a node is always
//! allowed, as runtimes have it; opening one is what counts.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use husk_agent_api::v1::DeviceNode;
use rustix::io::Errno;

use super::Cgroup;
use crate::error::{Context, Result};

/// `BPF_DEVCG_DEV_*` of linux/bpf.h.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
/// `BPF_DEVCG_ACC_MKNOD`.
const MKNOD: u32 = 1;

/// Character devices that every container may open: null, zero, full, random, urandom, tty, ptmx, ptys. Not console,
/// though engines allow it: that is the VM's own. A container's `/dev/console` is a pty.
const DEFAULTS: [(u32, Option<u32>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

/// One `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: u32,
}

/// Opcodes that the program uses (instruction-set.rst of the kernel).
mod op {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const MOVE_REGISTER: u8 = 0xbc;
    pub(super) const MOVE: u8 = 0xb7;
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    pub(super) const AND: u8 = 0x54;
    pub(super) const JUMP_IF_NOT_EQUAL: u8 = 0x56;
    pub(super) const EXIT: u8 = 0x95;
}

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction { code, registers: to | (from << 4), offset, immediate }
}

/// The program for the default devices and `nodes`. The context is `struct bpf_cgroup_dev_ctx`: kind and access in one
/// word, major, minor.
fn program(nodes: &[DeviceNode]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(op::LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(op::MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(op::SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(op::AND, KIND, 0, 0, 0xffff),
        instruction(op::LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(op::LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    allow(&mut code, &[(ACCESS, MKNOD)]);
    for (major, minor) in DEFAULTS {
        match minor {
            Some(minor) => allow(&mut code, &[(KIND, CHARACTER), (MAJOR, major), (MINOR, minor)]),
            None => allow(&mut code, &[(KIND, CHARACTER), (MAJOR, major)]),
        }
    }
    for node in nodes {
        let kind = match node.r#type.as_str() {
            "c" | "u" => CHARACTER,
            "b" => BLOCK,
            // A FIFO is no device.
            _ => continue,
        };
        allow(&mut code, &[(KIND, kind), (MAJOR, node.major), (MINOR, node.minor)]);
    }
    code.push(instruction(op::MOVE, RESULT, 0, 0, 0));
    code.push(instruction(op::EXIT, 0, 0, 0, 0));
    code
}

/// Adds "allow if each register has its value".
fn allow(code: &mut Vec<Instruction>, conditions: &[(u8, u32)]) {
    // From a failed condition over the later ones, the move and the exit.
    let mut over: i16 = 2;
    let mut jumps = Vec::new();
    for (register, value) in conditions.iter().rev() {
        jumps.push(instruction(op::JUMP_IF_NOT_EQUAL, *register, 0, over, *value));
        over = over.saturating_add(1);
    }
    code.extend(jumps.into_iter().rev());
    code.push(instruction(op::MOVE, RESULT, 0, 0, 1));
    code.push(instruction(op::EXIT, 0, 0, 0, 0));
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

/// Loads the program and attaches it to a container's cgroup. Cgroups below may only restrict further.
pub fn restrict(cgroup: &Cgroup, nodes: &[DeviceNode]) -> Result<()> {
    const PROG_LOAD: libc::c_int = 5;
    const PROG_ATTACH: libc::c_int = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let code = program(nodes);
    let length = u32::try_from(code.len()).map_err(|_| Errno::TOOBIG).on("bpf", "device rules")?;
    let [code_low, code_high] = halves(code.as_ptr());
    let [license_low, license_high] = halves(c"Apache-2.0".as_ptr());
    let loaded = bpf(PROG_LOAD, &[TYPE_CGROUP_DEVICE, length, code_low, code_high, license_low, license_high])
        .on("bpf", "BPF_PROG_LOAD of the device rules")?;
    let program = i32::try_from(loaded).map_err(|_| Errno::BADF).on("bpf", "device rules")?;
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let directory = cgroup.open()?;
    let [directory_fd, program_fd] = [directory.as_raw_fd(), program.as_raw_fd()].map(i32::cast_unsigned);
    bpf(PROG_ATTACH, &[directory_fd, program_fd, ATTACH_CGROUP_DEVICE, ALLOW_MULTI])
        .on("bpf", format_args!("BPF_PROG_ATTACH to {}", cgroup.path().display()))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u32 = 2;
    const WRITE: u32 = 4;

    /// Runs the program as the kernel would.
    fn run(code: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [(access << 16) | kind, major, minor];
        let mut registers = [0_u32; 11];
        let mut at = 0_usize;
        loop {
            let Instruction { code, registers: both, offset, immediate } = code[at];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            at += 1;
            match code {
                op::LOAD_WORD => registers[to] = context[usize::try_from(offset).unwrap() / 4],
                op::MOVE_REGISTER => registers[to] = registers[from],
                op::MOVE => registers[to] = immediate,
                op::SHIFT_RIGHT => registers[to] >>= immediate,
                op::AND => registers[to] &= immediate,
                op::JUMP_IF_NOT_EQUAL if registers[to] != immediate => at += usize::try_from(offset).unwrap(),
                op::JUMP_IF_NOT_EQUAL => {}
                op::EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    #[test]
    fn default_devices_may_be_opened_and_others_not() {
        let code = program(&[]);
        assert!(run(&code, CHARACTER, READ | WRITE, 1, 3));
        assert!(run(&code, CHARACTER, READ | WRITE, 136, 12));
        assert!(!run(&code, CHARACTER, READ, 1, 1), "mem");
        assert!(!run(&code, CHARACTER, READ, 1, 11), "kmsg");
        assert!(!run(&code, BLOCK, READ, 1, 3));
        assert!(!run(&code, BLOCK, READ, 254, 0));
    }

    #[test]
    fn nodes_may_be_made_but_not_opened() {
        let code = program(&[]);
        assert!(run(&code, BLOCK, MKNOD, 254, 0));
        assert!(!run(&code, BLOCK, MKNOD | READ, 254, 0));
    }

    #[test]
    fn requested_devices_may_be_opened() {
        let node =
            |kind: &str, major, minor| DeviceNode { r#type: kind.to_owned(), major, minor, ..DeviceNode::default() };
        let code = program(&[node("c", 10, 200), node("b", 254, 16), node("p", 0, 0)]);
        assert!(run(&code, CHARACTER, READ | WRITE, 10, 200));
        assert!(run(&code, BLOCK, READ, 254, 16));
        assert!(!run(&code, CHARACTER, READ, 254, 16));
        assert!(!run(&code, CHARACTER, READ, 0, 0));
    }
}
