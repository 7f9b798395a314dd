//! The device rules of a container: an eBPF program on its cgroup that decides about every mknod(2) and open(2) of a
//! device, whatever capabilities the process has (the lesson of CVE-2020-2023).
//!
//! The rules are the OCI runtime specification's defaults and the nodes that the request names. Making a node is allowed,
//! as runtimes have it, and opening one is what counts, but for the pod's disks: mount(2) of a file system that is
//! mounted already finds it by the node's number and never opens the device.

use husk_agent_api::v1::DeviceNode;
use rustix::io::Errno;

use super::Cgroup;
use super::bpf::{Instruction, Kind, attach, instruction, op};
use crate::error::{Context, Result};
use crate::sys;

/// `BPF_DEVCG_DEV_*` of linux/bpf.h.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
/// `BPF_DEVCG_ACC_MKNOD`.
const MKNOD: u32 = 1;

/// Character devices that every container may open: null, zero, full, random, urandom, tty, ptmx, ptys. Not console,
/// though engines allow it: that is the VM's own. A container's `/dev/console` is a pty.
const DEFAULTS: [(u32, Option<u32>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

/// A program's answers.
const REFUSE: u32 = 0;
const ALLOW: u32 = 1;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program for the default devices and `nodes`. The context is `struct bpf_cgroup_dev_ctx`: kind and access in one
/// word, major, minor.
fn program(nodes: &[DeviceNode], disks: Option<u32>) -> Vec<Instruction> {
    let mut code = vec![
        instruction(op::LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(op::MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(op::SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(op::AND, KIND, 0, 0, 0xffff),
        instruction(op::LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(op::LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for (major, minor) in DEFAULTS {
        match minor {
            Some(minor) => decide(&mut code, &[(KIND, CHARACTER), (MAJOR, major), (MINOR, minor)], ALLOW),
            None => decide(&mut code, &[(KIND, CHARACTER), (MAJOR, major)], ALLOW),
        }
    }
    for node in nodes {
        let kind = match node.r#type.as_str() {
            "c" | "u" => CHARACTER,
            "b" => BLOCK,
            // A FIFO is no device.
            _ => continue,
        };
        decide(&mut code, &[(KIND, kind), (MAJOR, node.major), (MINOR, node.minor)], ALLOW);
    }
    if let Some(major) = disks {
        decide(&mut code, &[(KIND, BLOCK), (MAJOR, major)], REFUSE);
    }
    decide(&mut code, &[(ACCESS, MKNOD)], ALLOW);
    code.push(instruction(op::MOVE, RESULT, 0, 0, REFUSE));
    code.push(instruction(op::EXIT, 0, 0, 0, 0));
    code
}

/// Adds "this verdict if each register has its value".
fn decide(code: &mut Vec<Instruction>, conditions: &[(u8, u32)], verdict: u32) {
    // From a failed condition over the later ones, the move and the exit.
    let mut over: i16 = 2;
    let mut jumps = Vec::new();
    for (register, value) in conditions.iter().rev() {
        jumps.push(instruction(op::JUMP_IF_NOT_EQUAL, *register, 0, over, *value));
        over = over.saturating_add(1);
    }
    code.extend(jumps.into_iter().rev());
    code.push(instruction(op::MOVE, RESULT, 0, 0, verdict));
    code.push(instruction(op::EXIT, 0, 0, 0, 0));
}

/// Puts a container under the rules.
pub fn restrict(cgroup: &Cgroup, nodes: &[DeviceNode]) -> Result<()> {
    let known = std::fs::read_to_string("/proc/devices").on("read", "/proc/devices")?;
    attach(cgroup, Kind::Device, &program(nodes, disk_major(&known)))
}

/// The major number of virtio disks, in the text of /proc/devices.
fn disk_major(devices: &str) -> Option<u32> {
    let (_, block) = devices.split_once("Block devices:")?;
    block.lines().find_map(|line| line.trim().strip_suffix(" virtblk")?.parse().ok())
}

/// What a container gets that asks for all devices: those of the guest that are nobody's in particular. Not among them:
/// the pod's disks, consoles, and what reaches the machine itself, such as the processors' registers.
///
/// A loop device exists once something asked for it (`LOOP_CTL_ADD` of linux/loop.h), which is done here.
pub fn shared() -> Result<Vec<DeviceNode>> {
    const CHARACTERS: [(&str, u32, u32); 4] =
        [("/dev/kmsg", 1, 11), ("/dev/net/tun", 10, 200), ("/dev/fuse", 10, 229), ("/dev/loop-control", 10, 237)];
    const LOOPS: u32 = 8;
    let control = std::fs::File::open("/dev/loop-control").on("open", "/dev/loop-control")?;
    for number in 0..LOOPS {
        match sys::add_loop_device(&control, number) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).on("ioctl LOOP_CTL_ADD", number),
        }
    }
    let node = |path: &str, kind: &str, major, minor| DeviceNode {
        path: path.to_owned(),
        r#type: kind.to_owned(),
        major,
        minor,
        mode: 0o660,
        ..DeviceNode::default()
    };
    let characters = CHARACTERS.iter().map(|(path, major, minor)| node(path, "c", *major, *minor));
    Ok(characters.chain((0..LOOPS).map(|n| node(&format!("/dev/loop{n}"), "b", 7, n))).collect())
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
        let code = program(&[], Some(254));
        assert!(run(&code, CHARACTER, READ | WRITE, 1, 3));
        assert!(run(&code, CHARACTER, READ | WRITE, 136, 12));
        assert!(!run(&code, CHARACTER, READ, 1, 1), "mem");
        assert!(!run(&code, CHARACTER, READ, 1, 11), "kmsg");
        assert!(!run(&code, BLOCK, READ, 1, 3));
        assert!(!run(&code, BLOCK, READ, 254, 0));
    }

    #[test]
    fn nodes_may_be_made_but_not_opened() {
        let code = program(&[], Some(254));
        assert!(run(&code, BLOCK, MKNOD, 7, 99));
        assert!(!run(&code, BLOCK, MKNOD | READ, 7, 99));
        assert!(!run(&code, BLOCK, MKNOD, 254, 0), "a disk of the pod");
    }

    #[test]
    fn requested_devices_may_be_opened() {
        let node =
            |kind: &str, major, minor| DeviceNode { r#type: kind.to_owned(), major, minor, ..DeviceNode::default() };
        let code = program(&[node("c", 10, 200), node("b", 254, 16), node("p", 0, 0)], Some(254));
        assert!(run(&code, CHARACTER, READ | WRITE, 10, 200));
        assert!(run(&code, BLOCK, READ, 254, 16) && run(&code, BLOCK, MKNOD, 254, 16));
        assert!(!run(&code, CHARACTER, READ, 254, 16));
        assert!(!run(&code, CHARACTER, READ, 0, 0));
    }

    #[test]
    fn the_disks_major_number_is_found() {
        let text = "Character devices:\n  1 mem\n\nBlock devices:\n  7 loop\n254 virtblk\n259 blkext\n";
        assert_eq!(disk_major(text), Some(254));
        assert_eq!(disk_major("Character devices:\n254 virtblk\n"), None);
    }
}
