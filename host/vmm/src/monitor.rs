//! The main thread: control socket, machine, and nothing else.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use husk_vmm_control::{
    Boot, Call, CallError, Device, ErrorKind, Event, ExitReason, FromVmm, Outcome, Received, Reply, Request,
    TransportError, receive, send,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::event::descriptor;
use crate::machine::{FsCallError, Machine, PlugError, Resources, slot_error_kind};
use crate::seccomp::{self, Role};
use crate::timeline::Clock;
use crate::vcpu::MachineEvent;

/// Why the VMM ends other than by the end of its VM.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error(transparent)]
    Control(#[from] TransportError),
    #[error("waiting for events: {0}")]
    Poll(#[from] rustix::io::Errno),
}

/// The main thread's state.
#[derive(Debug)]
pub struct Monitor {
    control: OwnedFd,
    clock: Clock,
    machine: Option<Machine>,
    ready_seen: bool,
}

/// Whether to go on.
enum Next {
    Continue,
    /// The VM, if there is one, is over, and for this reason.
    End(ExitReason),
}

fn refuse(kind: ErrorKind, message: impl Into<String>) -> CallError {
    CallError { kind, message: message.into() }
}

fn no_machine() -> CallError {
    refuse(ErrorKind::State, "there is no VM yet: send boot first")
}

fn done(result: Result<(), FsCallError>) -> Result<Reply, CallError> {
    result.map(|()| Reply::Done).map_err(|error| refuse(error.kind(), error.to_string()))
}

impl Monitor {
    /// `control` is the inherited `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(control: OwnedFd, clock: Clock) -> Self {
        Self { control, clock, machine: None, ready_seen: false }
    }

    /// Serves the control socket until the VM ends or the socket closes.
    pub fn run(mut self) -> Result<(), MonitorError> {
        loop {
            let (control, machine) = self.wait()?;
            // The machine first: its events happened before what is asked now.
            if machine && let Next::End(reason) = self.on_machine()? {
                return self.end(reason);
            }
            if control && let Next::End(reason) = self.on_control()? {
                return self.end(reason);
            }
        }
    }

    /// Waits; tells whether control socket and machine have something.
    fn wait(&self) -> Result<(bool, bool), MonitorError> {
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
        if let Some(machine) = &self.machine {
            fds.push(PollFd::from_borrowed_fd(descriptor(machine.wake()), PollFlags::IN));
        }
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok((ready(0), ready(1)))
    }

    fn tell(&self, message: &FromVmm) -> Result<(), MonitorError> {
        Ok(send(self.control.as_fd(), message, &[])?)
    }

    fn on_machine(&mut self) -> Result<Next, MonitorError> {
        let events: Vec<_> = self.machine.iter().flat_map(Machine::events).collect();
        for event in events {
            match event {
                MachineEvent::Ready if self.ready_seen => {}
                MachineEvent::Ready => {
                    self.ready_seen = true;
                    let timeline = self.clock.ready();
                    self.tell(&FromVmm::Event(Event::Ready(timeline)))?;
                }
                MachineEvent::Ended(reason) => return Ok(Next::End(reason)),
            }
        }
        Ok(Next::Continue)
    }

    fn on_control(&mut self) -> Result<Next, MonitorError> {
        let Received { message: Request { id, call }, fds } = match receive(self.control.as_fd()) {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(Next::End(ExitReason::Requested)),
            // There is no id to answer to. The other side is broken; so are its ideas of this VM.
            Err(error) => return Err(error.into()),
        };
        let shutdown = call == Call::Shutdown;
        let outcome = self.perform(call, fds).map_or_else(Outcome::Error, Outcome::Ok);
        self.tell(&FromVmm::Reply { id, outcome })?;
        Ok(if shutdown { Next::End(ExitReason::Requested) } else { Next::Continue })
    }

    fn perform(&mut self, call: Call, fds: Vec<OwnedFd>) -> Result<Reply, CallError> {
        match call {
            Call::Boot(boot) => {
                self.clock.requested();
                self.boot(&boot, fds).map(|()| Reply::Done)
            }
            Call::Plug(device) => self.plug(&device, fds),
            Call::Unplug { slot, force } => {
                let [] = take_fds(fds, "unplug")?;
                let unplugged = self.machine_mut()?.unplug(slot, force);
                unplugged.map(|()| Reply::Done).map_err(|error| refuse(slot_error_kind(&error), error.to_string()))
            }
            Call::Export { slot, name, read_only } => {
                let [tree] = take_fds(fds, "export")?;
                done(self.machine()?.export(slot, &name, tree, read_only))
            }
            Call::Unexport { slot, name } => {
                let [] = take_fds(fds, "unexport")?;
                done(self.machine()?.unexport(slot, &name))
            }
            Call::RequestMemory { mib } => {
                let [] = take_fds(fds, "request_memory")?;
                let requested = self.machine()?.request_memory(mib);
                requested.map(|()| Reply::Done).map_err(|error| refuse(error.kind(), error.to_string()))
            }
            Call::Status => {
                let [] = take_fds(fds, "status")?;
                Ok(Reply::Status(self.machine()?.status()))
            }
            Call::Shutdown => Ok(Reply::Done),
        }
    }

    fn machine(&self) -> Result<&Machine, CallError> {
        self.machine.as_ref().ok_or_else(no_machine)
    }

    fn machine_mut(&mut self) -> Result<&mut Machine, CallError> {
        self.machine.as_mut().ok_or_else(no_machine)
    }

    fn boot(&mut self, request: &Boot, fds: Vec<OwnedFd>) -> Result<(), CallError> {
        if self.machine.is_some() {
            return Err(refuse(ErrorKind::State, "this process has its VM already: start another husk-vmm"));
        }
        let [kvm, kernel, initramfs, vsock_listener, console] = take_fds(fds, "boot")?;
        let resources =
            Resources { kvm, kernel: File::from(kernel), initramfs: File::from(initramfs), vsock_listener, console };
        let machine = Machine::build(request, resources, &mut self.clock)
            .map_err(|error| refuse(error.kind(), error.to_string()))?;
        // The vCPUs and the vsock thread exist and are confined by filters of their own. From here on this thread makes
        // only device threads, and no guest code has run yet.
        seccomp::confine(Role::Main).map_err(|error| refuse(ErrorKind::Io, error.to_string()))?;
        self.clock.started();
        machine.run();
        self.machine = Some(machine);
        Ok(())
    }

    fn plug(&mut self, device: &Device, resources: Vec<OwnedFd>) -> Result<Reply, CallError> {
        let plugged = self.machine_mut()?.plug(device, resources);
        plugged.map(|slot| Reply::Plugged { slot }).map_err(|error: PlugError| refuse(error.kind(), error.to_string()))
    }

    /// Says why, then ends everything in order.
    fn end(mut self, reason: ExitReason) -> Result<(), MonitorError> {
        let Some(machine) = self.machine.take() else { return Ok(()) };
        // Nobody may be there to hear it.
        let told = self.tell(&FromVmm::Event(Event::Exited(reason)));
        machine.stop();
        match told {
            Err(MonitorError::Control(TransportError::Io(error)))
                if error.kind() != std::io::ErrorKind::BrokenPipe
                    && error.kind() != std::io::ErrorKind::ConnectionReset =>
            {
                Err(TransportError::Io(error).into())
            }
            _ => Ok(()),
        }
    }
}

fn take_fds<const N: usize>(fds: Vec<OwnedFd>, call: &str) -> Result<[OwnedFd; N], CallError> {
    let count = fds.len();
    <[OwnedFd; N]>::try_from(fds)
        .map_err(|_| refuse(ErrorKind::Invalid, format!("{call} comes with {count} file descriptors, {N} are needed")))
}
