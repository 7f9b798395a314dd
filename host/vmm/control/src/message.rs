//! Requests, replies and events of the control socket.

use serde::{Deserialize, Serialize};

/// Number of a virtio-mmio slot: the N of the guest's `virtio-mmio.N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotIndex(pub u32);

/// A call with the caller's number for it; the reply repeats the number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub id: u64,
    pub call: Call,
}

/// What the VMM can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// Builds the VM and lets it run. Once per process.
    ///
    /// File descriptors, in order: `/dev/kvm`; kernel (ELF `vmlinux`); initramfs; listening unix stream socket of the
    /// vsock device (hybrid protocol: `CONNECT <port>\n`, answered `OK <port>\n`); a file or pipe for the console.
    Boot(Boot),
    /// Fills the lowest free slot with a device; the guest sees it when its driver is bound.
    /// Answered by [`Reply::Plugged`].
    Plug(Device),
    /// Empties a slot. While the guest's driver still holds the device this is refused with [`ErrorKind::Busy`], unless
    /// `force` tears it away.
    Unplug { slot: SlotIndex, force: bool },
    /// Shows a directory or a single regular file in the root of the file system in a slot, under `name`: 1 to 255
    /// bytes without slash or NUL, not `.` or `..`, used once. At most 1,024 at a time. When `read_only`, the VMM
    /// refuses every change, whatever the guest's mount flags.
    ///
    /// File descriptor: the directory or file, opened with `O_PATH`.
    ///
    /// [`ErrorKind::EmptySlot`], or [`ErrorKind::Invalid`] when the slot holds no [`Device::Fs`], the name is bad or
    /// taken, or the descriptor is of another kind.
    Export { slot: SlotIndex, name: String, read_only: bool },
    /// Takes an export back at once: what the guest holds open of it is closed, and answers ESTALE or EBADF.
    ///
    /// [`ErrorKind::EmptySlot`], or [`ErrorKind::Invalid`] when the slot holds no [`Device::Fs`] or there is no such
    /// export.
    Unexport { slot: SlotIndex, name: String },
    /// Says how much of its hot-pluggable memory the guest shall have plugged, in MiB: even, at most
    /// [`HotplugState::size_mib`]. At the start it is 0. The guest's driver follows when it can; [`Status::hotplug`] tells how
    /// far it is. What it plugs beyond, it is refused; what it does not give back, it keeps.
    ///
    /// [`ErrorKind::Invalid`] for another number, [`ErrorKind::State`] in a VM without such memory.
    RequestMemory { mib: u64 },
    /// Answered by [`Reply::Status`].
    Status,
    /// Stops the VM at once and ends the process.
    Shutdown,
}

/// The shape of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Guest RAM in MiB, 64 to 1 Mi.
    pub memory_mib: u64,
    /// Memory in MiB that can be plugged later ([`Call::RequestMemory`]): a multiple of 128, at most 1 Mi; 0 for none.
    /// Address space only, until the guest has plugged it. There is less where the machine's guest-physical addresses
    /// end before: [`Status::hotplug`] tells.
    pub hotplug_mib: u64,
    /// 1 to 64.
    pub vcpus: u8,
    /// How many of them the guest's kernel brings online by itself, 1 to `vcpus`; the others are there, offline.
    pub online_vcpus: u8,
    /// The guest's vsock context id, at least 3.
    pub guest_cid: u32,
    /// Appended to the VMM's own kernel command line; printable ASCII.
    pub cmdline: String,
    /// After this many bytes the console's output is dropped and counted.
    pub console_limit: u64,
}

/// A device to be plugged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Device {
    /// virtio-blk over a raw image. File descriptors: the image, opened read-only when `read_only`; a read-only one may
    /// go on in further files, each to its end. Sizes must be multiples of 512 bytes.
    Blk {
        read_only: bool,
        /// Serial number that the guest can read, at most 20 bytes of ASCII.
        serial: String,
    },
    /// virtio-net. File descriptor: a tap made with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`; the VMM sets the length of
    /// its headers and its offloads.
    Net {
        /// The guest's address: unicast.
        mac: [u8; 6],
        /// At least 68; none: the driver's default, 1500.
        mtu: Option<u16>,
    },
    /// virtio-fs: one file system, empty until [`Call::Export`]; the guest mounts its root by the tag once, and each
    /// export is a directory or file in it. File descriptor: `/proc/PID/fd` of the VMM's own process, opened with
    /// `O_PATH`; the VMM opens the guest's files through it, since it has no `/proc` itself.
    Fs {
        /// What the guest mounts: 1 to 36 bytes of printable ASCII without space.
        tag: String,
    },
}

/// Whatever the VMM sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromVmm {
    Reply { id: u64, outcome: Outcome },
    Event(Event),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok(Reply),
    Error(CallError),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    Plugged { slot: SlotIndex },
    Status(Status),
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    pub kind: ErrorKind,
    /// What was tried on what, the cause, and what the caller can do.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is malformed or a value is out of range.
    Invalid,
    /// Not in this state, e.g. a second boot or a plug before it.
    State,
    /// Every slot is filled.
    NoFreeSlot,
    /// There is nothing in that slot.
    EmptySlot,
    /// The guest's driver still holds the device.
    Busy,
    /// `/dev/kvm` cannot run this guest.
    Kvm,
    /// The kernel or initramfs is not one, or does not fit.
    Image,
    /// A system call failed.
    Io,
}

/// What the VMM tells unasked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The agent wrote the ready port.
    Ready(Timeline),
    /// The VM ended; the process follows it.
    Exited(ExitReason),
}

/// When the steps of a boot were reached, in microseconds since the VMM process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The boot request had been read.
    pub requested_us: u64,
    /// VM, memory and interrupt controllers existed.
    pub vm_created_us: u64,
    /// Kernel, initramfs, boot parameters and devices were in place.
    pub loaded_us: u64,
    /// The boot CPU entered the guest.
    pub started_us: u64,
    /// The agent wrote the ready port.
    pub ready_us: u64,
}

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The agent wrote the exit port.
    Exit { code: u8 },
    /// The guest reset itself by the i8042: with `panic=1 reboot=k`, a kernel panic ends like this.
    Reset,
    /// A fault while a fault of a fault was delivered (KVM_EXIT_SHUTDOWN): no kernel does this on purpose, and none can
    /// say anything about it.
    TripleFault,
    /// [`Call::Shutdown`], or the control socket closed.
    Requested,
    /// A vCPU could not go on; the text is KVM's reason.
    Fault { message: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub slots: Vec<SlotState>,
    /// None in a VM without hot-pluggable memory.
    pub hotplug: Option<HotplugState>,
    /// Console bytes dropped after the limit.
    pub console_dropped: u64,
    /// Open vsock connections.
    pub vsock_connections: u32,
}

/// Memory that can be plugged, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotplugState {
    /// What there is of [`Boot::hotplug_mib`].
    pub size_mib: u64,
    /// What the guest shall have plugged.
    pub requested_mib: u64,
    /// What it has, by the device's own count.
    pub plugged_mib: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotState {
    pub slot: SlotIndex,
    /// "blk", "fs", "vsock"; empty slots are not listed.
    pub device: String,
    /// The guest's driver has set DRIVER_OK.
    pub active: bool,
}
