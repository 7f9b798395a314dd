//! The host's side: a `husk-vmm` process and its control socket.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use husk_vmm_control::{
    Boot, Call, CallError, Device, Event, ExitReason, FromVmm, Outcome, Reply, Request, SlotIndex, Status, receive,
    send,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{guest, initramfs};

pub(crate) struct Vmm {
    pub(crate) child: Child,
    control: OwnedFd,
    next_id: u64,
    events: Vec<Event>,
    console: File,
    directory: tempfile::TempDir,
}

pub(crate) fn boot_request(test: &str) -> Boot {
    Boot {
        memory_mib: 256,
        hotplug_mib: 0,
        vcpus: 1,
        online_vcpus: 1,
        guest_cid: 3,
        cmdline: format!("test={test} {}", std::env::var("HUSK_TEST_CMDLINE").unwrap_or_default()),
        console_limit: 1 << 20,
    }
}

impl Vmm {
    /// Starts the process.
    pub(crate) fn spawn() -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_husk-vmm"));
        let number = theirs.as_raw_fd();
        command.arg("--control-fd").arg(number.to_string()).env_clear().stdin(Stdio::null());
        // SAFETY: only fcntl, which is async-signal-safe, on a descriptor that is open in the child.
        unsafe {
            command.pre_exec(move || {
                rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(number), rustix::io::FdFlags::empty())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        Self {
            child,
            control: ours,
            next_id: 0,
            events: Vec::new(),
            console: tempfile::tempfile().unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts a process and boots a VM in it.
    pub(crate) fn boot(request: Boot) -> Self {
        let mut vmm = Self::spawn();
        let kernel = std::env::var("HUSK_KERNEL").expect("HUSK_KERNEL: the guest kernel's path");
        vmm.try_boot(request, File::open(kernel).unwrap()).unwrap();
        vmm
    }

    pub(crate) fn try_boot(&mut self, request: Boot, kernel: File) -> Result<Reply, CallError> {
        let kvm = File::options().read(true).write(true).open("/dev/kvm").unwrap();
        let initramfs = initramfs::build();
        let listener = UnixListener::bind(self.socket_path()).unwrap();
        let console = self.console.try_clone().unwrap();
        let fds = [kvm.as_fd(), kernel.as_fd(), initramfs.as_fd(), listener.as_fd(), console.as_fd()];
        self.call(Call::Boot(request), &fds)
    }

    fn socket_path(&self) -> std::path::PathBuf {
        self.directory.path().join("vsock")
    }

    pub(crate) fn call(&mut self, call: Call, fds: &[BorrowedFd<'_>]) -> Result<Reply, CallError> {
        self.next_id += 1;
        send(&self.control, &Request { id: self.next_id, call }, fds).unwrap();
        loop {
            match self.receive() {
                FromVmm::Event(event) => self.events.push(event),
                FromVmm::Reply { id, outcome } => {
                    assert_eq!(id, self.next_id);
                    return match outcome {
                        Outcome::Ok(reply) => Ok(reply),
                        Outcome::Error(error) => Err(error),
                    };
                }
            }
        }
    }

    fn receive(&mut self) -> FromVmm {
        match receive::<FromVmm>(&self.control).unwrap() {
            Some(received) => received.message,
            None => panic!("the VMM ended without a word; console:\n{}", self.console()),
        }
    }

    pub(crate) fn event(&mut self) -> Event {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        match self.receive() {
            FromVmm::Event(event) => event,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn wait_ready(&mut self) -> husk_vmm_control::Timeline {
        match self.event() {
            Event::Ready(timeline) => timeline,
            other => panic!("instead of ready: {other:?}; console:\n{}", self.console()),
        }
    }

    /// Waits for the VM's end and then the process's.
    pub(crate) fn wait_exit(mut self) -> (ExitReason, ExitStatus, String) {
        let reason = match self.event() {
            Event::Exited(reason) => reason,
            other => panic!("instead of an exit: {other:?}"),
        };
        let status = self.child.wait().unwrap();
        (reason, status, self.console())
    }

    /// Closes the control socket and waits for the process.
    pub(crate) fn hang_up(mut self) -> ExitStatus {
        self.control = File::open("/dev/null").unwrap().into();
        self.child.wait().unwrap()
    }

    pub(crate) fn console(&mut self) -> String {
        let mut bytes = Vec::new();
        self.console.seek(SeekFrom::Start(0)).unwrap();
        self.console.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn plug(&mut self, image: &File, read_only: bool, serial: &str) -> Result<SlotIndex, CallError> {
        let device = Device::Blk { read_only, serial: serial.to_owned() };
        match self.call(Call::Plug(device), &[image.as_fd()])? {
            Reply::Plugged { slot } => Ok(slot),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn unplug(&mut self, slot: SlotIndex, force: bool) -> Result<Reply, CallError> {
        self.call(Call::Unplug { slot, force }, &[])
    }

    /// Asks for so much memory to be plugged, and waits until it is.
    pub(crate) fn request_memory(&mut self, mib: u64) {
        assert_eq!(self.call(Call::RequestMemory { mib }, &[]).unwrap(), Reply::Done);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
        loop {
            let hotplug = self.status().hotplug.unwrap();
            assert_eq!(hotplug.requested_mib, mib);
            if hotplug.plugged_mib == mib {
                return;
            }
            assert!(std::time::Instant::now() < end, "{hotplug:?}; console:\n{}", self.console());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub(crate) fn status(&mut self) -> Status {
        match self.call(Call::Status, &[]).unwrap() {
            Reply::Status(status) => status,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Connects to a guest port; `None` when refused.
    pub(crate) fn connect(&self, port: u32) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(self.socket_path()).unwrap();
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        // Byte by byte: data may follow.
        while answer.last() != Some(&b'\n') {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => answer.push(byte[0]),
                _ => return None,
            }
        }
        assert!(answer.starts_with(b"OK "), "{answer:?}");
        Some(stream)
    }

    pub(crate) fn raw_client(&self) -> UnixStream {
        UnixStream::connect(self.socket_path()).unwrap()
    }

    /// A line of commands to the guest.
    pub(crate) fn guest(&self) -> Guest {
        let stream = self.connect(guest::COMMANDS).unwrap();
        Guest { answers: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Resident memory of the process in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Open descriptors and threads of the process.
    pub(crate) fn footprint(&self) -> (usize, usize) {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", self.child.id())).unwrap().count();
        (count("fd"), count("task"))
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Guest {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Guest {
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.stream, "{command}").unwrap();
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the guest did not answer {command:?}");
        line.trim_end().to_owned()
    }
}
