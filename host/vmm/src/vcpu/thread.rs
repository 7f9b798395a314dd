//! The thread of a vCPU: an explicit state machine around KVM_RUN.
//!
//! ```text
//!            Run              guest ended, or Finish
//! Paused ----------> Running ------------------------> Finished
//!    ^      Pause       |                                  ^
//!    +------------------+              Finish              |
//!    +-----------------------------------------------------+
//! ```
//!
//! A command reaches a running vCPU by a kick: `immediate_exit` makes the next KVM_RUN return at once, a signal makes
//! the present one return. The flag is set before the signal is sent, so no kick is lost whenever it comes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use husk_vmm_control::ExitReason;
use kvm_ioctls::{VcpuExit, VcpuFd};
use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::ports::{PortEvent, Ports};
use crate::seccomp;
use crate::virtio::slots::SlotTable;

/// Everything that a guest instruction can reach outside KVM.
#[derive(Debug)]
pub struct Bus {
    pub ports: Ports,
    pub slots: Arc<SlotTable>,
}

/// What a vCPU tells the main thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// The agent wrote the ready port.
    Ready,
    /// The VM is over.
    Ended(ExitReason),
}

/// The way from vCPUs to the main thread.
#[derive(Clone, Debug)]
pub struct Mailbox {
    events: Sender<MachineEvent>,
    wake: Arc<EventFd>,
}

impl Mailbox {
    /// A mailbox, its other end, and the eventfd that tells of mail.
    pub fn new() -> io::Result<(Self, Receiver<MachineEvent>, Arc<EventFd>)> {
        let (events, receiver) = channel();
        let wake = Arc::new(crate::event::eventfd()?);
        Ok((Self { events, wake: Arc::clone(&wake) }, receiver, wake))
    }

    fn post(&self, event: MachineEvent) {
        // The main thread outlives the vCPUs; when it does not, the process ends anyway.
        let _ = self.events.send(event);
        let _ = self.wake.write(1);
    }
}

/// What the main thread tells a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Run,
    Pause,
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Paused,
    Running,
    Finished,
}

struct Vcpu {
    fd: VcpuFd,
    commands: Receiver<Command>,
    bus: Arc<Bus>,
    mailbox: Mailbox,
}

impl Vcpu {
    fn main(mut self) -> VcpuFd {
        let mut state = State::Paused;
        if let Err(error) = seccomp::confine(seccomp::Role::Vcpu) {
            self.mailbox.post(MachineEvent::Ended(ExitReason::Fault { message: error.to_string() }));
            state = State::Finished;
        }
        loop {
            state = match state {
                State::Paused => self.wait(),
                State::Running => self.run(),
                State::Finished => return self.fd,
            };
        }
    }

    fn wait(&self) -> State {
        // The main thread is gone when its end is closed.
        self.commands.recv().map_or(State::Finished, after)
    }

    fn run(&mut self) -> State {
        loop {
            match run_once(&mut self.fd, &self.bus) {
                Step::Continue => {}
                Step::Event(PortEvent::Ready) => self.mailbox.post(MachineEvent::Ready),
                Step::Event(PortEvent::Ended(reason)) => {
                    self.mailbox.post(MachineEvent::Ended(reason));
                    return State::Finished;
                }
                Step::Kicked => {
                    // Cleared before the commands are read: a kick after that takes effect on the next KVM_RUN.
                    self.fd.set_kvm_immediate_exit(0);
                    match self.commands.try_recv() {
                        Ok(command) => return after(command),
                        Err(TryRecvError::Empty) => {}
                        Err(TryRecvError::Disconnected) => return State::Finished,
                    }
                }
            }
        }
    }
}

fn after(command: Command) -> State {
    match command {
        Command::Run => State::Running,
        Command::Pause => State::Paused,
        Command::Finish => State::Finished,
    }
}

enum Step {
    Continue,
    Kicked,
    Event(PortEvent),
}

fn fault(message: impl Into<String>) -> Step {
    Step::Event(PortEvent::Ended(ExitReason::Fault { message: message.into() }))
}

/// Runs the guest until it needs us, and gives it what it needs.
fn run_once(fd: &mut VcpuFd, bus: &Bus) -> Step {
    match fd.run() {
        Ok(VcpuExit::MmioRead(address, data)) => bus.slots.read(address, data),
        Ok(VcpuExit::MmioWrite(address, data)) => bus.slots.write(address, data),
        Ok(VcpuExit::IoIn(port, data)) => bus.ports.read(port, data),
        Ok(VcpuExit::IoOut(port, data)) => {
            if let Some(event) = bus.ports.write(port, data) {
                return Step::Event(event);
            }
        }
        Ok(VcpuExit::Shutdown) => return Step::Event(PortEvent::Ended(ExitReason::TripleFault)),
        Ok(VcpuExit::SystemEvent(..)) => return Step::Event(PortEvent::Ended(ExitReason::Reset)),
        Ok(VcpuExit::Intr) => return Step::Kicked,
        Ok(VcpuExit::FailEntry(reason, cpu)) => {
            return fault(format!("the CPU refused to enter the guest: reason {reason:#x} on host CPU {cpu}"));
        }
        Ok(VcpuExit::InternalError) => return fault(internal_error(fd)),
        Ok(other) => return fault(format!("KVM stopped the guest unexpectedly: {other:?}")),
        Err(error) => match error.errno() {
            // EAGAIN: a vCPU that waited for its start-up interrupt has got it.
            libc::EINTR | libc::EAGAIN => return Step::Kicked,
            errno => return fault(format!("KVM_RUN failed: {}", io::Error::from_raw_os_error(errno))),
        },
    }
    Step::Continue
}

/// What KVM tells about an internal error (`Documentation/virt/kvm/api.rst`, KVM_EXIT_INTERNAL_ERROR), with where the
/// guest was.
fn internal_error(fd: &mut VcpuFd) -> String {
    // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, for which KVM fills this member; any bits are valid in it.
    let suberror = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
    let what = match suberror {
        1 => "an instruction could not be emulated",
        2 => "simultaneous exceptions",
        3 => "an event could not be delivered",
        4 => "an unexpected exit",
        _ => "an unknown cause",
    };
    format!("KVM internal error {suberror}: {what}; is this a host whose KVM runs ordinary guests? `husk check` tells")
}

/// The address of a vCPU's `kvm_run.immediate_exit`.
#[derive(Debug)]
struct ImmediateExit(*const AtomicU8);

// SAFETY: it is only used for atomic stores, and its owner keeps the mapping alive: see `VcpuHandle`.
unsafe impl Send for ImmediateExit {}

/// The main thread's hold on a vCPU.
#[derive(Debug)]
pub struct VcpuHandle {
    commands: Sender<Command>,
    immediate_exit: ImmediateExit,
    /// Gives the vCPU back when joined; until then the thread, ended or not, keeps `kvm_run` mapped.
    thread: Option<JoinHandle<VcpuFd>>,
}

impl VcpuHandle {
    /// Starts the thread of a vCPU, paused.
    pub fn spawn(index: u8, mut fd: VcpuFd, bus: Arc<Bus>, mailbox: Mailbox) -> io::Result<Self> {
        let immediate_exit = ImmediateExit((&raw mut fd.get_kvm_run().immediate_exit).cast::<AtomicU8>().cast_const());
        let (commands, receiver) = channel();
        let vcpu = Vcpu { fd, commands: receiver, bus, mailbox };
        let thread = std::thread::Builder::new().name(format!("vcpu{index}")).spawn(move || vcpu.main())?;
        Ok(Self { commands, immediate_exit, thread: Some(thread) })
    }

    /// Gives a command. A vCPU that has finished ignores it.
    pub fn command(&self, command: Command) {
        let Some(thread) = &self.thread else { return };
        let _ = self.commands.send(command);
        // SAFETY: the thread has not been joined, so its VcpuFd and with it the mapping exist. KVM and the vCPU's thread
        // access this byte concurrently, as the API intends.
        unsafe { (*self.immediate_exit.0).store(1, Ordering::SeqCst) };
        // A thread that has ended but is not joined may be signalled, to no effect.
        let _ = thread.kill(SIGRTMIN());
    }

    /// Waits until the vCPU has finished.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for VcpuHandle {
    fn drop(&mut self) {
        self.command(Command::Finish);
        self.join();
    }
}

extern "C" fn handle_kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// Makes the kick's signal interrupt KVM_RUN instead of ending the process. Once per process.
pub fn install_kick_handler() -> io::Result<()> {
    register_signal_handler(SIGRTMIN(), handle_kick).map_err(|error| io::Error::from_raw_os_error(error.errno()))
}
