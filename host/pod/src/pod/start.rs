//! Making a pod.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::{Instant, SystemTime};

use husk_agent_api::{is_valid_id, v1};
use husk_vmm_control::{Boot, CallError, ErrorKind};
use tokio::sync::watch;
use tracing::Instrument;

use super::size::Size;
use super::table::Table;
use super::{BootTimeline, Pod, PodConfig, micros_since};
use super::{clock, forward};
use crate::agent::{Agent, follow};
use crate::assets::Assets;
use crate::devices::{Access, Devices};
use crate::error::StartError;
use crate::host::cgroup::Cgroup;
use crate::host::dirs::{PodDirs, open_log};
use crate::host::limits::HostLimits;
use crate::host::teardown::{CgroupOrDirError, create_cgroup, record_process, release};
use crate::host::{Placement, ScratchDisk, room, scratch};
use crate::network::{self, Network};
use crate::shares::Shares;
use crate::spec::{self, Ceiling, PodTraits, SandboxPlan, VmSize};
use crate::vmm::{EndedWatch, SpawnWanted, Vmm, VmmError, ended_now};
use crate::volumes::Volumes;
use crate::{entropy, text};

/// Every VM has a vsock device of its own in user space, so the number need not differ.
const GUEST_CID: u32 = 3;
/// Console bytes that are kept for one VM.
const CONSOLE_LIMIT: u64 = 4 * 1024 * 1024;
/// Two full SHA-512 blocks' worth; the protocol asks for 32 bytes at least.
const ENTROPY: usize = 64;

impl Pod {
    /// Makes the pod: its directories, its scratch disk, its VM; answers when containers can come. When a step fails,
    /// or the future is dropped, everything before it is undone.
    pub async fn start(config: PodConfig) -> Result<Arc<Self>, StartError> {
        let span = tracing::info_span!("pod", namespace = config.namespace, id = config.id);
        start(config).instrument(span).await
    }
}

async fn start(config: PodConfig) -> Result<Arc<Pod>, StartError> {
    let begin = Instant::now();
    let ceiling = room::ceiling();
    let plan = check(&config, ceiling)?;
    let room = plan.size.room(ceiling);
    let mut timeline = BootTimeline::default();
    let name = format!("{}/{}", config.namespace, config.id);

    let dirs = PodDirs::new(&config.state_dir, &config.data_dir);
    let undo = make_dirs(&dirs, &name)?;
    prepare_scratch(&config, &undo).await?;
    let network = match &plan.netns {
        Some(netns) => Some(Network::open(netns).await?),
        None => None,
    };
    let resources = BootResources::open(&config, &dirs)?;

    let cgroup = make_cgroup(&config, &dirs, &plan.host)?;
    let vmm = Arc::new(spawn_vmm(&config, &dirs, cgroup.as_ref(), name.clone())?);
    plan.host.rank(vmm.pid());
    record_process(&dirs, vmm.pid())?;
    timeline.vmm_spawned_us = micros_since(begin);

    timeline.vmm = boot(&vmm, plan.size, room, &config.assets, resources).await?;
    timeline.ready_us = micros_since(begin);

    let agent = Agent::new(&dirs.vsock(), vmm.ended(), config.deadlines);
    let hello = agent.hello().await?;
    timeline.hello_us = micros_since(begin);
    timeline.agent_main_us = hello.main_at_us;
    timeline.agent_listening_us = hello.listening_at_us;

    let (size, host) = (plan.size, plan.host);
    let traits = PodTraits { shares_pids: plan.share_pids, single_container: config.single_container };
    agent.resume(identity(plan, network.as_ref())?).await?;
    timeline.resumed_us = micros_since(begin);
    if let Some(network) = network {
        network.plug(&vmm, &agent).await?;
        timeline.network_us = micros_since(begin);
    }

    let devices = Arc::new(Devices::new(Arc::clone(&vmm), agent.clone()));
    let scratch = mount_scratch(&devices, &agent, &dirs).await?;
    timeline.scratch_us = micros_since(begin);
    if let Some(cgroup) = &cgroup {
        host.apply_cpu(cgroup)?;
    }

    let hotplug_mib = vmm.hotplug().await?.size_mib;
    let most = VmSize { memory_mib: size.memory_mib.saturating_add(hotplug_mib), ..room };

    let table = Arc::new(Table::new());
    let (released, tasks) = watch_over(&vmm, &agent, &table, undo);
    tracing::info!(
        vmm_pid = vmm.pid(),
        memory_mib = size.memory_mib,
        vcpus = size.vcpus,
        start_us = timeline.scratch_us,
        "pod started"
    );
    Ok(Arc::new(Pod {
        name,
        deadlines: config.deadlines,
        traits,
        size: Size::new(size, most),
        timeline,
        kernel_release: text::printable(&hello.kernel_release, 64),
        volumes: Volumes::new(agent.clone(), Arc::clone(&devices)),
        shares: Shares::new(agent.clone(), Arc::clone(&vmm)),
        forwards: forward::places(),
        vmm,
        agent,
        devices,
        scratch,
        cgroup,
        oom_score: AtomicI32::new(i32::MAX),
        table,
        released,
        tasks,
    }))
}

/// What can be refused before anything exists.
fn check(config: &PodConfig, ceiling: Ceiling) -> Result<SandboxPlan, StartError> {
    for (what, value) in [("pod namespace", &config.namespace), ("pod id", &config.id)] {
        if !is_valid_id(value) {
            return Err(StartError::BadId { what, value: text::printable(value, 80) });
        }
    }
    let plan = spec::sandbox(&config.spec, &config.id, config.single_container, ceiling.vcpus)?;
    // Its memory is given only as the guest touches it; but what can never be given is better said now.
    match room::available_mib() {
        Some(available) if plan.size.memory_mib > available => {
            let (needed, overhead) = (plan.size.memory_mib, plan.size.overhead_mib());
            Err(StartError::NoRoom { needed, overhead, available })
        }
        _ => Ok(plan),
    }
}

/// Removes what a pod has on the host, unless it is told that there is a VM to wait for.
#[derive(Debug)]
struct Undo {
    dirs: PodDirs,
    logs_too: bool,
    /// Gone with the guard: how work on another thread learns that it came too late.
    alive: Arc<()>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        for remains in release(&self.dirs) {
            tracing::warn!(remains, "not removed");
        }
        if self.logs_too {
            let logs = [self.dirs.console_log(), self.dirs.vmm_log()];
            for log in logs {
                let _ = std::fs::remove_file(log);
            }
            remove_empty(&self.dirs);
        }
    }
}

/// Removes the directories, where nobody else has put anything in.
fn remove_empty(dirs: &PodDirs) {
    for dir in [dirs.state(), dirs.data()] {
        let _ = std::fs::remove_dir(dir);
    }
}

/// Makes the directories, and clears what an earlier pod of this id left that nobody removed.
fn make_dirs(dirs: &PodDirs, name: &str) -> Result<Undo, StartError> {
    if std::os::unix::net::UnixStream::connect(dirs.vsock()).is_ok() {
        return Err(StartError::AlreadyRuns { pod: name.into() });
    }
    dirs.create()?;
    let undo = Undo { dirs: dirs.clone(), logs_too: true, alive: Arc::default() };
    release(dirs);
    Ok(undo)
}

async fn prepare_scratch(config: &PodConfig, undo: &Undo) -> Result<(), StartError> {
    let (template, bytes) = (config.scratch_template_dir.clone(), config.scratch_bytes);
    let (dirs, alive) = (undo.dirs.clone(), Arc::downgrade(&undo.alive));
    let made = tokio::task::spawn_blocking(move || {
        let made = scratch::create(&template, &dirs.scratch(), bytes);
        // The start may have been abandoned meanwhile; a guard that goes from here on finds the image itself.
        if alive.strong_count() == 0 {
            let _ = std::fs::remove_file(dirs.scratch());
            remove_empty(&dirs);
        }
        made
    });
    made.await.map_err(|error| StartError::Abandoned(error.to_string()))??;
    Ok(())
}

/// What the VMM is handed for the boot, in the order of `Call::Boot`.
#[derive(Debug)]
struct BootResources {
    kvm: File,
    kernel: File,
    initramfs: File,
    vsock: UnixListener,
    console: File,
}

impl BootResources {
    fn open(config: &PodConfig, dirs: &PodDirs) -> Result<Self, StartError> {
        let socket = dirs.vsock();
        Ok(Self {
            kvm: open_kvm(&config.assets.kvm)?,
            kernel: open(&config.assets.kernel)?,
            initramfs: open(&config.assets.initramfs)?,
            vsock: UnixListener::bind(&socket).map_err(|source| StartError::Socket { path: socket, source })?,
            console: open_log(&dirs.console_log())?,
        })
    }
}

fn open(path: &Path) -> Result<File, StartError> {
    File::open(path).map_err(|source| StartError::Open { path: path.to_owned(), source })
}

fn open_kvm(path: &Path) -> Result<File, StartError> {
    File::options().read(true).write(true).open(path).map_err(|source| {
        let mend = match source.kind() {
            std::io::ErrorKind::NotFound => {
                "load the module kvm_intel or kvm_amd, enable virtualization in the firmware, or, where this machine \
                 is itself a VM, nested virtualization on its host"
            }
            std::io::ErrorKind::PermissionDenied => "run as root or as a member of the group kvm",
            _ => "check that this machine can run KVM guests",
        };
        StartError::Kvm { path: path.to_owned(), source, mend }
    })
}

/// Makes the pod's cgroup with its limits, but for the one of CPU time.
fn make_cgroup(config: &PodConfig, dirs: &PodDirs, limits: &HostLimits) -> Result<Option<Cgroup>, StartError> {
    let Placement::Cgroup(path) = &config.cgroup else { return Ok(None) };
    let cgroup = create_cgroup(dirs, path).map_err(|error| match error {
        CgroupOrDirError::Cgroup(error) => StartError::Cgroup(error),
        CgroupOrDirError::Dir(error) => StartError::Dir(error),
    })?;
    limits.apply(&cgroup)?;
    Ok(Some(cgroup))
}

/// Starts the VMM inside the pod's cgroup.
fn spawn_vmm(config: &PodConfig, dirs: &PodDirs, cgroup: Option<&Cgroup>, pod: String) -> Result<Vmm, StartError> {
    let cgroup = cgroup.map(Cgroup::entrance).transpose()?;
    let wanted = SpawnWanted {
        pod,
        program: &config.assets.vmm,
        cgroup,
        log: open_log(&dirs.vmm_log())?,
        log_path: dirs.vmm_log(),
        console_path: dirs.console_log(),
    };
    Ok(Vmm::spawn(wanted, config.deadlines)?)
}

/// Boots the VM and waits for its agent. The descriptors are the VMM's alone afterwards.
async fn boot(
    vmm: &Vmm,
    size: VmSize,
    room: VmSize,
    assets: &Assets,
    resources: BootResources,
) -> Result<husk_vmm_control::Timeline, StartError> {
    let boot = Boot {
        memory_mib: size.memory_mib,
        hotplug_mib: room.memory_mib.saturating_sub(size.memory_mib),
        vcpus: room.vcpus,
        online_vcpus: size.vcpus,
        guest_cid: GUEST_CID,
        cmdline: String::new(),
        console_limit: CONSOLE_LIMIT,
    };
    let fds = [
        resources.kvm.as_fd(),
        resources.kernel.as_fd(),
        resources.initramfs.as_fd(),
        resources.vsock.as_fd(),
        resources.console.as_fd(),
    ];
    vmm.boot(boot, &fds).await.map_err(|error| match error {
        // The VMM knows descriptors, not paths: which files they are, is said here.
        VmmError::Refused { source: CallError { kind: ErrorKind::Image, .. }, .. } => {
            StartError::Image { kernel: assets.kernel.clone(), initramfs: assets.initramfs.clone(), source: error }
        }
        other => other.into(),
    })?;
    drop(resources);
    Ok(vmm.ready().await?)
}

/// Who the guest is: nothing of this was in it when it booted.
fn identity(plan: SandboxPlan, network: Option<&Network>) -> Result<v1::ResumeRequest, StartError> {
    let mut random = vec![0; ENTROPY];
    entropy::fill(&mut random).map_err(StartError::Random)?;
    let hosts = network::hosts(&plan.hostname, network, &plan.hosts);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(v1::ResumeRequest {
        entropy: random,
        wall_clock_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        hostname: plan.hostname,
        domainname: plan.domainname,
        hosts: hosts.into_bytes(),
        resolv_conf: plan.resolv_conf.into_bytes(),
        sysctls: plan.sysctls,
        resources: Some(plan.resources),
        shm_bytes: plan.shm_bytes,
        online_cpus: u32::from(plan.size.vcpus),
    })
}

async fn mount_scratch(devices: &Devices, agent: &Agent, dirs: &PodDirs) -> Result<ScratchDisk, StartError> {
    // Plugged for the pod's whole life: its lease is never given back.
    let lease = devices.acquire(&dirs.scratch().into(), Access::Exclusive).await.map_err(StartError::ScratchDevice)?;
    agent.mount_scratch(lease.slot()).await?;
    Ok(ScratchDisk::new(lease.slot(), dirs.data()))
}

/// Follows the guest's events, keeps its clock, and clears up after the VM whenever it ends.
fn watch_over(
    vmm: &Vmm,
    agent: &Agent,
    table: &Arc<Table>,
    mut undo: Undo,
) -> (watch::Receiver<bool>, Vec<tokio::task::JoinHandle<()>>) {
    // From here on the logs may be wanted.
    undo.logs_too = false;
    let (tell, released) = watch::channel(false);
    let events = Arc::clone(table);
    let span = tracing::Span::current();
    let follower = tokio::spawn(follow(agent.clone(), move |event| events.receive(event)).instrument(span.clone()));
    let clock = tokio::spawn(clock::keep_in_step(agent.clone()).instrument(span.clone()));
    let end = clear_up(vmm.ended(), Arc::clone(table), undo, tell).instrument(span);
    (released, vec![follower, clock, tokio::spawn(end)])
}

async fn clear_up(mut ended: EndedWatch, table: Arc<Table>, undo: Undo, tell: watch::Sender<bool>) {
    let end = ended_now(&mut ended).await;
    let cleared = tokio::task::spawn_blocking(move || drop(undo)).await;
    if let Err(error) = cleared {
        tracing::warn!(%error, "not cleared up");
    }
    table.vm_ended(&end);
    tell.send_replace(true);
}
