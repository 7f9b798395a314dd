//! The VMM's side of the control socket.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use husk_vmm_control::{
    Call, CallError, ErrorKind, Event, ExitReason, FromVmm, HotplugState, Outcome, Reply, Request, SlotIndex,
    SlotState, Status, Timeline, receive, send,
};

use crate::behaviour::Behaviour;
use crate::vsock;

const SLOTS: u32 = 8;

/// Serves until the other end closes or the VM is to end.
pub(crate) fn serve(socket: OwnedFd, behaviour: Behaviour) {
    let mut vmm = Vmm {
        socket,
        behaviour,
        slots: BTreeSet::new(),
        hotplug: HotplugState { size_mib: 0, requested_mib: 0, plugged_mib: 0 },
    };
    while let Ok(Some(received)) = receive::<Request>(&vmm.socket) {
        let Request { id, call } = received.message;
        let name = name(&call);
        vmm.behaviour.maybe_die(name);
        if vmm.behaviour.wants("hang", name) {
            continue;
        }
        if vmm.behaviour.wants("garbage", name) {
            rustix::io::write(&vmm.socket, b"\x00\xffnot json").unwrap();
            continue;
        }
        if vmm.behaviour.wants("refuse", name) {
            vmm.refuse(id, ErrorKind::Io, "it is \x1b[31mrefused\nfor a test");
            continue;
        }
        let ends = matches!(call, Call::Shutdown);
        vmm.answer(id, call, received.fds);
        if ends {
            vmm.tell(&FromVmm::Event(Event::Exited(ExitReason::Requested)));
            return;
        }
    }
    if vmm.behaviour.has("outlive-socket") {
        std::thread::park();
    }
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::Boot(_) => "boot",
        Call::Plug(_) => "plug",
        Call::Unplug { .. } => "unplug",
        Call::Export { .. } => "export",
        Call::Unexport { .. } => "unexport",
        Call::RequestMemory { .. } => "request-memory",
        Call::Status => "status",
        Call::Shutdown => "vmm-shutdown",
    }
}

struct Vmm {
    socket: OwnedFd,
    behaviour: Behaviour,
    slots: BTreeSet<u32>,
    hotplug: HotplugState,
}

impl Vmm {
    fn tell(&self, message: &FromVmm) {
        let _ = send(self.socket.as_fd(), message, &[]);
    }

    fn reply(&self, id: u64, reply: Reply) {
        self.tell(&FromVmm::Reply { id, outcome: Outcome::Ok(reply) });
    }

    fn refuse(&self, id: u64, kind: ErrorKind, message: &str) {
        let error = CallError { kind, message: message.into() };
        self.tell(&FromVmm::Reply { id, outcome: Outcome::Error(error) });
    }

    fn answer(&mut self, id: u64, call: Call, fds: Vec<OwnedFd>) {
        match call {
            Call::Boot(boot) => {
                self.hotplug.size_mib = boot.hotplug_mib;
                self.boot(id, fds);
            }
            Call::RequestMemory { mib } => {
                self.hotplug.requested_mib = mib;
                self.reply(id, Reply::Done);
            }
            Call::Plug(_) => {
                assert_eq!(fds.len(), 1);
                match (1..SLOTS).find(|slot| !self.slots.contains(slot)) {
                    Some(slot) => {
                        self.slots.insert(slot);
                        // Keeps the image and its lock as a VMM does, for the process's life.
                        std::mem::forget(fds);
                        self.reply(id, Reply::Plugged { slot: SlotIndex(slot) });
                    }
                    None => self.refuse(id, ErrorKind::NoFreeSlot, "every slot is filled"),
                }
            }
            Call::Unplug { slot, force } => {
                if self.behaviour.has("busy-devices") && !force {
                    self.refuse(id, ErrorKind::Busy, "the driver holds it");
                } else if self.slots.remove(&slot.0) {
                    self.reply(id, Reply::Done);
                } else {
                    self.refuse(id, ErrorKind::EmptySlot, "empty");
                }
            }
            Call::Export { slot, .. } | Call::Unexport { slot, .. } => {
                if self.slots.contains(&slot.0) {
                    self.reply(id, Reply::Done);
                } else {
                    self.refuse(id, ErrorKind::EmptySlot, "empty");
                }
            }
            Call::Status => {
                let state = |slot: &u32| SlotState { slot: SlotIndex(*slot), device: "blk".into(), active: true };
                let slots = self.slots.iter().map(state).collect();
                self.plug_and_unplug();
                let hotplug = Some(self.hotplug);
                self.reply(id, Reply::Status(Status { slots, hotplug, console_dropped: 0, vsock_connections: 0 }));
            }
            Call::Shutdown => self.reply(id, Reply::Done),
        }
    }

    /// One step of the guest's driver.
    fn plug_and_unplug(&mut self) {
        let HotplugState { requested_mib: wanted, plugged_mib: now, .. } = self.hotplug;
        self.hotplug.plugged_mib = if self.behaviour.has("never-settle") {
            if now == 2 { 4 } else { 2 }
        } else if wanted > now && self.behaviour.has("plug-little") {
            now.max(64).min(wanted)
        } else if wanted < now && self.behaviour.has("keep-memory") {
            now.min(wanted.max(128))
        } else if wanted.abs_diff(now) <= 2 {
            wanted
        } else {
            // Half of the way.
            now.midpoint(wanted)
        };
    }

    fn boot(&self, id: u64, fds: Vec<OwnedFd>) {
        let [_kvm, _kernel, _initramfs, vsock, console] = <[OwnedFd; 5]>::try_from(fds).unwrap();
        let mut console = File::from(console);
        console.write_all(b"Linux version 6.12 (fake)\n\x1b[2Jinit begins\n").unwrap();
        self.reply(id, Reply::Done);
        if self.behaviour.has("panic") {
            console.write_all(b"Kernel panic - not syncing: No working init found.\n").unwrap();
            self.tell(&FromVmm::Event(Event::Exited(ExitReason::Reset)));
            std::process::exit(0);
        }
        if self.behaviour.has("never-ready") {
            return;
        }
        let exit = self.socket.try_clone().unwrap();
        vsock::serve(UnixListener::from(vsock), self.behaviour.clone(), move |code| {
            let _ = send(exit.as_fd(), &FromVmm::Event(Event::Exited(ExitReason::Exit { code })), &[]);
            std::process::exit(0);
        });
        self.tell(&FromVmm::Event(Event::Ready(Timeline { ready_us: 1000, ..Timeline::default() })));
    }
}
