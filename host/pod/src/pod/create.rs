//! Making a container.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use husk_agent_api::{is_valid_id, v1};
use oci_spec::runtime::Spec;
use tracing::Instrument;

use super::Pod;
use super::table::Holdings;
use crate::agent::{ProcessStreams, StdioWanted, Tokens, attach};
use crate::devices::{Access, DiskImage};
use crate::error::CreateError;
use crate::host::limits::HostLimits;
use crate::spec::{
    self, BlockDevice, ContainerPlan, MountSource, PidNamespace, PlannedDevice, PlannedMount, SpecError,
};
use crate::text;

impl Pod {
    /// Creates a container; its process waits for [`Pod::start_container`]. `rootfs` are EROFS images, topmost first. Answers with the
    /// process's pid in the guest and its streams. Goes on to its end, or undoes itself, also when the future is
    /// dropped.
    pub async fn create_container(
        self: &Arc<Self>,
        id: &str,
        spec: &Spec,
        rootfs: &[DiskImage],
        stdio: StdioWanted,
    ) -> Result<(u32, ProcessStreams), CreateError> {
        if !is_valid_id(id) {
            return Err(CreateError::BadId { id: text::printable(id, 80) });
        }
        let plan = self.plan(id, spec, rootfs, stdio)?;
        if !self.table.begin(id) {
            return Err(CreateError::AlreadyExists { id: id.into() });
        }
        let (pod, owned_id, rootfs) = (Arc::clone(self), id.to_owned(), rootfs.to_vec());
        let span = tracing::info_span!("create", pod = self.name, container = id);
        let task = async move { pod.create_or_undo(owned_id, plan, &rootfs, stdio).await };
        match tokio::spawn(task.instrument(span)).await {
            Ok(result) => result,
            Err(error) => {
                self.table.forget(id);
                Err(CreateError::Abandoned { id: id.into(), why: error.to_string() })
            }
        }
    }

    /// What can be refused before the guest hears of it.
    fn plan(
        &self,
        id: &str,
        spec: &Spec,
        rootfs: &[DiskImage],
        stdio: StdioWanted,
    ) -> Result<ContainerPlan, CreateError> {
        let plan = spec::container(spec, self.traits)
            .and_then(|plan| check_terminal(&plan.process, stdio).map(|()| plan))
            .map_err(|source| CreateError::Spec { id: id.into(), source })?;
        if rootfs.is_empty() {
            return Err(CreateError::NoRootfs { id: id.into() });
        }
        Ok(plan)
    }

    async fn create_or_undo(
        &self,
        id: String,
        plan: ContainerPlan,
        rootfs: &[DiskImage],
        stdio: StdioWanted,
    ) -> Result<(u32, ProcessStreams), CreateError> {
        let mut holdings = Holdings::default();
        let score = plan.process.oom_score_adj;
        match self.create(&id, plan, rootfs, stdio, &mut holdings).await {
            Ok((pid, streams)) => {
                self.rank(score);
                self.table.created(&id, pid, holdings);
                tracing::info!(guest_pid = pid, "container created");
                Ok((pid, streams))
            }
            Err(error) => {
                self.let_go(holdings).await;
                self.table.forget(&id);
                tracing::info!(%error, "container not created");
                Err(error)
            }
        }
    }

    /// For the host's OOM killer the VM is as dear as the dearest of its containers: with it all of them go.
    fn rank(&self, score: Option<i32>) {
        let Some(score) = score else { return };
        if self.oom_score.fetch_min(score, Ordering::Relaxed) > score {
            HostLimits { oom_score_adj: Some(score), ..HostLimits::default() }.rank(self.vmm_pid());
        }
    }

    async fn create(
        &self,
        id: &str,
        plan: ContainerPlan,
        rootfs: &[DiskImage],
        stdio: StdioWanted,
        holdings: &mut Holdings,
    ) -> Result<(u32, ProcessStreams), CreateError> {
        let (pid_mode, pid_target) =
            self.pid_mode(plan.pids).map_err(|source| CreateError::Spec { id: id.into(), source })?;
        let lower_slots = self.plug_rootfs(id, rootfs, holdings).await?;
        let mounts = self.provide_mounts(id, plan.mounts, holdings).await?;
        let devices = self.provide_devices(id, plan.devices, holdings).await?;
        let resources = self.locate(plan.limits).await.map_err(|source| CreateError::Spec { id: id.into(), source })?;
        let tokens = Tokens::random(stdio).map_err(|source| CreateError::Stream { id: id.into(), source })?;
        let request = v1::CreateContainerRequest {
            container_id: id.into(),
            root_fs: Some(v1::RootFs { lower_slots, read_only: plan.root_read_only }),
            mounts,
            devices,
            process: Some(v1::Process { stdio: Some(tokens.message()), ..plan.process }),
            resources: Some(resources),
            pid_mode: pid_mode.into(),
            pid_target,
            user_namespace: plan.user_namespace,
            clocks: plan.clocks,
            seccomp: plan.seccomp,
            all_devices: plan.all_devices,
            masked_paths: plan.masked_paths,
            readonly_paths: plan.readonly_paths,
            root_propagation: plan.root_propagation.into(),
        };
        let result = match self.agent.create_container(request).await {
            Ok(pid) => attach(self.agent.socket(), tokens, self.deadlines.stream)
                .await
                .map(|streams| (pid, streams))
                .map_err(|source| CreateError::Stream { id: id.into(), source }),
            Err(source) => Err(CreateError::Agent { id: id.into(), source }),
        };
        if result.is_err() {
            // Idempotent, and after a deadline the container may exist after all.
            if let Err(error) = self.agent.remove_container(id.into()).await {
                tracing::debug!(%error, "half-made container not removed");
            }
        }
        result
    }

    /// The process namespace in the agent's words, and the container whose it is.
    fn pid_mode(&self, wanted: PidNamespace) -> Result<(v1::PidMode, String), SpecError> {
        Ok(match wanted {
            PidNamespace::Own => (v1::PidMode::Container, String::new()),
            PidNamespace::Pod => (v1::PidMode::Pod, String::new()),
            PidNamespace::Node => (v1::PidMode::Node, String::new()),
            // Containers are numbered by the guest and the pod's task by the host. Where the two meet, it is the
            // container: who shares the pod's namespace is in it, too.
            PidNamespace::Task(number) => match self.table.container_of(number) {
                Some(target) => (v1::PidMode::Target, target),
                None if number == self.vmm_pid() => (v1::PidMode::Pod, String::new()),
                None => return Err(spec::no_such_task(number)),
            },
        })
    }

    async fn plug_rootfs(
        &self,
        id: &str,
        rootfs: &[DiskImage],
        holdings: &mut Holdings,
    ) -> Result<Vec<u32>, CreateError> {
        let mut slots = Vec::with_capacity(rootfs.len());
        for image in rootfs {
            let lease = self.devices.acquire(image, Access::ReadOnly).await;
            let lease = lease.map_err(|source| CreateError::Device { id: id.into(), source })?;
            slots.push(lease.slot());
            holdings.images.push(lease);
        }
        Ok(slots)
    }

    async fn provide_devices(
        &self,
        id: &str,
        planned: Vec<PlannedDevice>,
        holdings: &mut Holdings,
    ) -> Result<Vec<v1::DeviceNode>, CreateError> {
        let mut nodes = Vec::with_capacity(planned.len());
        for device in planned {
            nodes.push(match device {
                PlannedDevice::Node(node) => node,
                PlannedDevice::Block(BlockDevice { node, major, minor, read_only }) => {
                    let access = if read_only { Access::ReadOnly } else { Access::Exclusive };
                    let lease = self.devices.acquire_block(major, minor, access).await;
                    let lease = lease.map_err(|source| CreateError::Device { id: id.into(), source })?;
                    let slot = Some(lease.slot());
                    holdings.images.push(lease);
                    v1::DeviceNode { slot, ..node }
                }
            });
        }
        Ok(nodes)
    }

    async fn provide_mounts(
        &self,
        id: &str,
        planned: Vec<PlannedMount>,
        holdings: &mut Holdings,
    ) -> Result<Vec<v1::Mount>, CreateError> {
        let mut mounts = Vec::with_capacity(planned.len());
        for mount in planned {
            let read_only = mount.read_only();
            let mut flags = mount.flags;
            let kind = match mount.source {
                MountSource::Kernel { fs_type, data } => v1::mount::Kind::Kernel(v1::KernelMount { fs_type, data }),
                MountSource::Shm => v1::mount::Kind::SharedMemory(v1::SharedMemory {}),
                MountSource::PodFile { name } => v1::mount::Kind::PodFile(v1::PodFile { name }),
                MountSource::Volume { volume, sub_path } => {
                    let ensured = self.volumes.ensure(&volume).await;
                    ensured.map_err(|source| CreateError::Volume { id: id.into(), source })?;
                    v1::mount::Kind::Volume(v1::VolumeMount { name: volume.name, sub_path })
                }
                MountSource::Disk { image, fs_type, sub_path } => {
                    let lease = self.volumes.acquire_disk(&image, fs_type, read_only).await;
                    let lease = lease.map_err(|source| CreateError::Volume { id: id.into(), source })?;
                    let name = lease.name().to_owned();
                    holdings.disks.push(lease);
                    v1::mount::Kind::Volume(v1::VolumeMount { name, sub_path })
                }
                MountSource::Host(tree) => {
                    let lease = self.shares.acquire(&tree, read_only).await;
                    let lease = lease.map_err(|source| CreateError::Volume { id: id.into(), source: source.into() })?;
                    let name = lease.name().to_owned();
                    if lease.is_writable_below() {
                        flags &= !libc::MS_RDONLY;
                    }
                    holdings.shares.push(lease);
                    v1::mount::Kind::Volume(v1::VolumeMount { name, sub_path: String::new() })
                }
            };
            let (destination, id_maps) = (mount.destination, mount.id_maps);
            mounts.push(v1::Mount { destination, flags, kind: Some(kind), id_maps });
        }
        Ok(mounts)
    }

    /// Gives back what a container held.
    pub(super) async fn let_go(&self, holdings: Holdings) {
        for disk in holdings.disks {
            self.volumes.release_disk(disk).await;
        }
        for share in holdings.shares {
            self.shares.release(share).await;
        }
        for image in holdings.images {
            self.devices.release(image).await;
        }
    }
}

/// Spec and client must agree: each would otherwise read the streams in another way.
pub(super) fn check_terminal(process: &v1::Process, stdio: StdioWanted) -> Result<(), SpecError> {
    if process.terminal == stdio.terminal {
        return Ok(());
    }
    let value = process.terminal.to_string();
    let why = "the request's terminal flag says otherwise; both must be the same";
    Err(SpecError::Invalid { field: "process.terminal".into(), value, why: why.into() })
}
