//! Kernel parameters that no container may write, whatever its capabilities: an eBPF program on the pod's cgroup.
//!
//! A container that may mount has a /proc of its own for writing, so nothing that is mounted over a parameter protects it.
//! `kernel.core_pattern` makes the kernel run a program of anybody's choice in the agent's root when a process crashes.
//! The other parameters of that kind (modules, hotplug) are not in this kernel.

use super::Cgroup;
use super::bpf::{Instruction, Kind, attach, instruction, op};
use crate::error::Result;

/// With the NUL at its end, in words.
const CORE_PATTERN: &[u8; 20] = b"kernel/core_pattern\0";
/// `bpf_sysctl_get_name`.
const GET_NAME: u32 = 101;
/// Bytes on the stack for a name; longer ones are cut off.
const SPACE: i16 = 24;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const SECOND: u8 = 2;
const THIRD: u8 = 3;
const FOURTH: u8 = 4;
/// Survives a call.
const SAVED: u8 = 6;
const FRAME: u8 = 10;

/// The context is `struct bpf_sysctl`: whether it is a write, position.
fn program() -> Vec<Instruction> {
    let exit = |verdict| [instruction(op::MOVE, RESULT, 0, 0, verdict), instruction(op::EXIT, 0, 0, 0, 0)];
    let mut code = vec![
        instruction(op::COPY, SAVED, CONTEXT, 0, 0),
        instruction(op::LOAD_WORD, SECOND, CONTEXT, 0, 0),
        // Reading is nobody's harm.
        instruction(op::JUMP_IF_NOT_EQUAL, SECOND, 0, 2, 0),
    ];
    code.extend(exit(1));
    code.extend([
        instruction(op::COPY, CONTEXT, SAVED, 0, 0),
        instruction(op::COPY, SECOND, FRAME, 0, 0),
        instruction(op::ADD, SECOND, 0, 0, i32::from(-SPACE).cast_unsigned()),
        instruction(op::MOVE, THIRD, 0, 0, u32::from(SPACE.unsigned_abs())),
        instruction(op::MOVE, FOURTH, 0, 0, 0),
        instruction(op::CALL, 0, 0, 0, GET_NAME),
    ]);
    let (words, _) = CORE_PATTERN.as_chunks::<4>();
    let mut at = -SPACE;
    // Over this word's jump, the loads and jumps of the later words, and the refusal.
    let mut over = 2 * i16::try_from(words.len()).unwrap_or(i16::MAX);
    for word in words {
        code.push(instruction(op::LOAD_WORD, THIRD, FRAME, at, 0));
        code.push(instruction(op::JUMP_IF_NOT_EQUAL, THIRD, 0, over, u32::from_le_bytes(*word)));
        at = at.saturating_add(4);
        over = over.saturating_sub(2);
    }
    code.extend(exit(0));
    code.extend(exit(1));
    code
}

/// Puts all containers of the pod under the rule.
pub fn protect(pod: &Cgroup) -> Result<()> {
    attach(pod, Kind::Sysctl, &program())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn allows(write: bool, name: &str) -> bool {
        let code = program();
        let mut stack = [0xaa_u8; 24];
        let mut registers = [0_u32; 11];
        let mut at = 0_usize;
        loop {
            let Instruction { code, registers: both, offset, immediate } = code[at];
            let (to, from) = (usize::from(both & 15), both >> 4);
            at += 1;
            match code {
                op::LOAD_WORD if from == FRAME => {
                    let start = usize::try_from(24 + offset).unwrap();
                    registers[to] = u32::from_le_bytes(stack[start..start + 4].try_into().unwrap());
                }
                op::LOAD_WORD => registers[to] = u32::from(write),
                op::COPY | op::ADD => {}
                op::MOVE => registers[to] = immediate,
                op::CALL => {
                    let bytes: Vec<u8> = name.bytes().take(23).chain([0]).collect();
                    stack[..bytes.len()].copy_from_slice(&bytes);
                }
                op::JUMP_IF_NOT_EQUAL if registers[to] != immediate => at += usize::try_from(offset).unwrap(),
                op::JUMP_IF_NOT_EQUAL => {}
                op::EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    #[test]
    fn the_core_pattern_can_be_read_and_not_written() {
        assert!(!allows(true, "kernel/core_pattern"));
        assert!(allows(false, "kernel/core_pattern"));
        for name in
            ["kernel/core_pattern_", "kernel/core_patter", "kernel/core_uses_pid", "net/core/somaxconn", "kernel/x"]
        {
            assert!(allows(true, name), "{name}");
        }
    }
}
