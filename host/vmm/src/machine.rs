//! A whole machine: from a boot request and its descriptors to running vCPUs.
//!
//! [`Machine::build`] is the recipe, read top to bottom. A step that fails drops what the steps before made.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryIter};

use husk_fs::{ExportError, Limits, Server};
use husk_vmm_control::{Boot, Device, ErrorKind, HotplugState, SlotIndex, Status};
use vmm_sys_util::eventfd::EventFd;

use crate::boot::{self, CmdlineError, ImageError, PlaceError};
use crate::console::{ConsoleLog, Dropped};
use crate::layout::{BALLOON_SLOT, MEM_SLOT, VSOCK_SLOT};
use crate::memory::{MemoryError, MemoryMap};
use crate::ports::Ports;
use crate::timeline::Clock;
use crate::vcpu::{self, Bus, Command, MachineEvent, Mailbox, VcpuHandle};
use crate::virtio::balloon::{self, Balloon};
use crate::virtio::blk::{Blk, Disk, DiskError};
use crate::virtio::fs::{self, Fs, FsError};
use crate::virtio::mem::{self, Mem, MemHandle};
use crate::virtio::net::{self, Net, NetError, Tap};
use crate::virtio::slots::{SlotError, SlotTable};
use crate::virtio::state::{DeviceSpec, VirtioDevice};
use crate::virtio::vsock::{ConnectionCount, Vsock, VsockError};
use crate::virtio::worker::{Backend, Worker};
use crate::vm::{Vm, VmError, open_kvm};

/// Most vCPUs of a machine.
pub const VCPUS_MAX: u8 = 64;

/// What a machine is built from, in the order in which it arrives.
#[derive(Debug)]
pub struct Resources {
    pub kvm: OwnedFd,
    pub kernel: File,
    pub initramfs: File,
    pub vsock_listener: OwnedFd,
    pub console: OwnedFd,
}

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{0} vCPUs are not possible: ask for 1 to {VCPUS_MAX}")]
    Vcpus(u8),
    #[error("{online} vCPUs cannot be online at the start: ask for 1 to {vcpus}, the number of the VM's vCPUs")]
    OnlineVcpus { online: u8, vcpus: u8 },
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error(transparent)]
    Vsock(#[from] VsockError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error("cannot start a thread or make an eventfd: {0}")]
    Io(#[from] io::Error),
}

impl BuildError {
    /// The control protocol's word for it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Vcpus(_) | Self::OnlineVcpus { .. } | Self::Cmdline(_) => ErrorKind::Invalid,
            Self::Memory(MemoryError::Map { .. }) => ErrorKind::Io,
            Self::Vsock(VsockError::Listener(_)) => ErrorKind::Io,
            Self::Vsock(_) => ErrorKind::Invalid,
            Self::Image(_) | Self::Place(_) => ErrorKind::Image,
            Self::Vm(VmError::TooManyVcpus { .. }) => ErrorKind::Invalid,
            Self::Vm(_) => ErrorKind::Kvm,
            Self::Memory(_) => ErrorKind::Invalid,
            Self::Slot(_) | Self::Io(_) => ErrorKind::Io,
        }
    }
}

/// Why a device cannot be plugged.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error("plug comes with {0} file descriptors, this device has one")]
    Resources(usize),
    #[error("cannot start a device's thread: {0}")]
    Io(#[from] io::Error),
}

fn only(resources: Vec<OwnedFd>) -> Result<OwnedFd, PlugError> {
    let [resource] = <[OwnedFd; 1]>::try_from(resources).map_err(|all| PlugError::Resources(all.len()))?;
    Ok(resource)
}

impl PlugError {
    /// The control protocol's word for it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk(DiskError::Size(_)) | Self::Net(NetError::Setup(_)) | Self::Io(_) => ErrorKind::Io,
            Self::Disk(_) | Self::Net(_) | Self::Fs(_) | Self::Resources(_) => ErrorKind::Invalid,
            Self::Slot(error) => slot_error_kind(error),
        }
    }
}

/// Why a file system's exports cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum FsCallError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("slot {} holds no file system: plug one and name its slot", .0.0)]
    NoFs(SlotIndex),
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl FsCallError {
    /// The control protocol's word for it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Export(ExportError::Look { .. }) => ErrorKind::Io,
            Self::Export(_) | Self::NoFs(_) => ErrorKind::Invalid,
            Self::Slot(error) => slot_error_kind(error),
        }
    }
}

/// Why the guest cannot be asked for so much memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryCallError {
    #[error("the VM was booted without room for more memory (hotplug_mib is 0)")]
    NoRegion,
    #[error(transparent)]
    Request(#[from] mem::RequestError),
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl MemoryCallError {
    /// The control protocol's word for it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRegion => ErrorKind::State,
            Self::Request(_) => ErrorKind::Invalid,
            Self::Slot(error) => slot_error_kind(error),
        }
    }
}

/// The control protocol's word for a slot's refusal.
#[must_use]
pub fn slot_error_kind(error: &SlotError) -> ErrorKind {
    match error {
        SlotError::Full => ErrorKind::NoFreeSlot,
        SlotError::Empty(_) => ErrorKind::EmptySlot,
        SlotError::Busy { .. } => ErrorKind::Busy,
        SlotError::NoSuchSlot(_) | SlotError::Fixed { .. } => ErrorKind::Invalid,
        SlotError::Wire { .. } => ErrorKind::Io,
    }
}

/// A built machine. Dropping it ends vCPUs first, then devices, then the VM.
#[derive(Debug)]
pub struct Machine {
    vcpus: Vec<VcpuHandle>,
    slots: Arc<SlotTable>,
    /// The servers of the file system devices, by their slots.
    file_servers: BTreeMap<SlotIndex, Arc<Server>>,
    file_limits: Limits,
    /// Of a machine whose memory can grow.
    mem: Option<MemHandle>,
    vm: Vm,
    console_dropped: Dropped,
    vsock_connections: ConnectionCount,
    events: Receiver<MachineEvent>,
    wake: Arc<EventFd>,
}

impl Machine {
    /// Builds the machine, its vCPUs paused.
    pub fn build(request: &Boot, resources: Resources, clock: &mut Clock) -> Result<Self, BuildError> {
        let Resources { kvm, mut kernel, mut initramfs, vsock_listener, console } = resources;
        if !(1..=VCPUS_MAX).contains(&request.vcpus) {
            return Err(BuildError::Vcpus(request.vcpus));
        }
        let (vcpus, online) = (request.vcpus, request.online_vcpus);
        if !(1..=vcpus).contains(&online) {
            return Err(BuildError::OnlineVcpus { online, vcpus });
        }
        let cmdline = boot::command_line(online, &request.cmdline)?;
        let vsock = Vsock::new(request.guest_cid, vsock_listener)?;

        let kvm = open_kvm(kvm)?;
        let most = kvm.get_max_vcpus();
        if usize::from(request.vcpus) > most {
            return Err(VmError::TooManyVcpus { wanted: request.vcpus, most }.into());
        }
        let cpuid = vcpu::supported_cpuid(&kvm)?;
        let map = MemoryMap::new(request.memory_mib, request.hotplug_mib, vcpu::address_bits(&cpuid))?;
        let ram = map.allocate()?;
        let vm = Vm::new(&kvm, Arc::clone(&ram))?;
        clock.vm_created();

        let kernel = boot::load_kernel(&ram, &mut kernel)?;
        let initramfs = boot::load_initramfs(&ram, &mut initramfs, kernel.end)?;
        boot::write_params(&ram, map.boot(), &cmdline, initramfs)?;
        boot::write_mptable(&ram, request.vcpus)?;
        boot::write_tables(&ram)?;

        let log = ConsoleLog::new(console, request.console_limit);
        let console_dropped = log.dropped();
        let ports = Ports::new(vm.serial_line()?, log);
        let slots = SlotTable::new(vm.wiring());
        let (spec, vsock_connections) = (vsock.spec(), vsock.connection_count());
        let worker = Worker::spawn(spec.name, vsock)?;
        // The first device plugged takes slot 0.
        let slot = slots.plug(VirtioDevice::new(spec, Arc::clone(&ram), worker)?)?;
        debug_assert_eq!(slot, SlotIndex(VSOCK_SLOT));

        let worker = Worker::spawn(balloon::NAME, Balloon::default())?;
        slots.plug_at(SlotIndex(BALLOON_SLOT), VirtioDevice::new(balloon::spec(), Arc::clone(&ram), worker)?)?;

        let mut mem = None;
        if let Some(region) = map.hotplug() {
            let device = Mem::new(region);
            mem = Some(device.handle());
            let (spec, worker) = (device.spec(), Worker::spawn(mem::NAME, device)?);
            slots.plug_at(SlotIndex(MEM_SLOT), VirtioDevice::new(spec, Arc::clone(&ram), worker)?)?;
        }

        let (mailbox, events, wake) = Mailbox::new()?;
        let bus = Arc::new(Bus { ports, slots: Arc::clone(&slots) });
        let mut vcpus = Vec::with_capacity(usize::from(request.vcpus));
        for id in 0..request.vcpus {
            let fd = vcpu::create(&vm, id, request.vcpus, &cpuid, kernel.entry)?;
            vcpus.push(VcpuHandle::spawn(id, fd, Arc::clone(&bus), mailbox.clone())?);
        }
        clock.loaded();
        Ok(Self {
            vcpus,
            slots,
            file_servers: BTreeMap::new(),
            file_limits: fs::limits(),
            mem,
            vm,
            console_dropped,
            vsock_connections,
            events,
            wake,
        })
    }

    /// Lets the guest run.
    pub fn run(&self) {
        for vcpu in &self.vcpus {
            vcpu.command(Command::Run);
        }
    }

    /// Readable when [`events`](Self::events) has something.
    #[must_use]
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// What has happened since the last call.
    pub fn events(&self) -> TryIter<'_, MachineEvent> {
        // Emptied first: an event that comes in between wakes us once more, for nothing.
        let _ = self.wake.read();
        self.events.try_iter()
    }

    /// Fills the lowest free slot.
    pub fn plug(&mut self, device: &Device, resources: Vec<OwnedFd>) -> Result<SlotIndex, PlugError> {
        match device {
            Device::Blk { read_only, serial } => {
                let disk = Disk::new(resources.into_iter().map(File::from).collect(), *read_only, serial)?;
                self.plug_backend(disk.spec(), Blk::new(disk))
            }
            Device::Net { mac, mtu } => {
                let resource = only(resources)?;
                let spec = net::spec(*mac, *mtu)?;
                self.plug_backend(spec, Net::new(Tap::new(resource)?))
            }
            Device::Fs { tag } => {
                let resource = only(resources)?;
                let device = Fs::new(tag, resource, self.file_limits)?;
                let server = device.server();
                let slot = self.plug_backend(device.spec(), device)?;
                self.file_servers.insert(slot, server);
                Ok(slot)
            }
        }
    }

    fn plug_backend(&self, spec: DeviceSpec, backend: impl Backend) -> Result<SlotIndex, PlugError> {
        let worker = Worker::spawn(spec.name, backend)?;
        Ok(self.slots.plug(VirtioDevice::new(spec, Arc::clone(self.vm.ram()), worker)?)?)
    }

    /// Empties a slot.
    pub fn unplug(&mut self, slot: SlotIndex, force: bool) -> Result<(), SlotError> {
        let mut fixed = vec![(VSOCK_SLOT, crate::virtio::vsock::NAME), (BALLOON_SLOT, balloon::NAME)];
        fixed.extend(self.mem.is_some().then_some((MEM_SLOT, mem::NAME)));
        if let Some((_, device)) = fixed.into_iter().find(|(index, _)| *index == slot.0) {
            return Err(SlotError::Fixed { slot, device });
        }
        self.slots.unplug(slot, force)?;
        self.file_servers.remove(&slot);
        Ok(())
    }

    /// Shows a directory or file in the root of a file system.
    pub fn export(&self, slot: SlotIndex, name: &str, tree: OwnedFd, read_only: bool) -> Result<(), FsCallError> {
        Ok(self.file_server(slot)?.export(name, tree, read_only)?)
    }

    /// Takes an export back.
    pub fn unexport(&self, slot: SlotIndex, name: &str) -> Result<(), FsCallError> {
        Ok(self.file_server(slot)?.unexport(name)?)
    }

    fn file_server(&self, slot: SlotIndex) -> Result<&Server, FsCallError> {
        if let Some(server) = self.file_servers.get(&slot) {
            return Ok(server);
        }
        self.slots.check_filled(slot)?;
        Err(FsCallError::NoFs(slot))
    }

    /// Says how much memory the guest shall have plugged. Its driver follows when it can.
    pub fn request_memory(&self, mib: u64) -> Result<(), MemoryCallError> {
        let mem = self.mem.as_ref().ok_or(MemoryCallError::NoRegion)?;
        mem.request(mib)?;
        Ok(self.slots.announce_config(SlotIndex(MEM_SLOT))?)
    }

    #[must_use]
    pub fn status(&self) -> Status {
        let mib = |state: mem::MemoryState| HotplugState {
            size_mib: state.size >> 20,
            requested_mib: state.requested >> 20,
            plugged_mib: state.plugged >> 20,
        };
        Status {
            hotplug: self.mem.as_ref().map(|mem| mib(mem.state())),
            slots: self.slots.states(),
            console_dropped: self.console_dropped.count(),
            vsock_connections: self.vsock_connections.get(),
        }
    }

    /// Ends the vCPUs, then the devices: what the guest has given them before is still done.
    pub fn stop(mut self) {
        for vcpu in &self.vcpus {
            vcpu.command(Command::Finish);
        }
        for vcpu in &mut self.vcpus {
            vcpu.join();
        }
        self.slots.clear();
    }
}
