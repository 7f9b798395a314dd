//! A running pod grows and shrinks.
//!
//! What a pod has are three limits one in another: the host's cgroup around the VM, the VM, the guest's cgroup around
//! the containers. They grow from the outside in and shrink from the inside out, so that at no time one of them is
//! smaller than what stands in it, and nothing is killed for it. A step that fails takes back those before it.
//!
//! Memory above what the VM booted with is plugged and unplugged (virtio-mem). What the guest's kernel cannot free stays
//! plugged, and the pod has it until it is asked to shrink again; its containers' limits hold all the same.

use std::sync::Arc;

use husk_agent_api::v1;
use oci_spec::runtime::LinuxResources;
use tokio::time::{Duration, Instant, sleep};

use super::Pod;
use crate::error::ResizeError;
use crate::host::limits::{self, HostLimits};
use crate::host::room;
use crate::spec::{self, CpuLimit, SizeChange, VmSize};

/// Between two looks at what the guest has plugged.
const LOOK: Duration = Duration::from_millis(20);
/// Of [`crate::Deadlines::memory`], how many times that a guest may take in all, whatever progress it makes.
const PATIENCE: u32 = 20;

impl Pod {
    /// Changes the limits of all containers together, and the VM with them. Fields that are absent stay as they are.
    /// Answers the size that the VM has now: more memory than wanted where the guest cannot free it. Goes on to its end
    /// also when the future is dropped.
    pub async fn resize(self: &Arc<Self>, resources: &LinuxResources) -> Result<VmSize, ResizeError> {
        let mut limits = self.locate(spec::resources(resources, &[])?).await?;
        let change = SizeChange::of(&limits)?;
        if limits.memory_max == Some(-1) {
            limits.memory_max = i64::try_from(self.size.now().containers_bytes()).ok();
        }
        self.change_size(change, limits).await
    }

    /// The same for the VM of a single container, whose limits are set on the container itself: only its memory is also
    /// the pod's.
    pub(super) async fn resize_around(self: &Arc<Self>, container: &v1::Resources) -> Result<VmSize, ResizeError> {
        let change = SizeChange::of(container)?;
        let memory_max = container.memory_max.filter(|bytes| *bytes >= 0);
        self.change_size(change, v1::Resources { memory_max, ..v1::Resources::default() }).await
    }

    /// Whether a container's limit is above what the VM has.
    pub(super) fn is_outgrown_by(&self, container: &v1::Resources) -> bool {
        let bytes = container.memory_max.and_then(|bytes| u64::try_from(bytes).ok());
        bytes.is_some_and(|bytes| bytes > self.size.now().containers_bytes())
    }

    async fn change_size(self: &Arc<Self>, change: SizeChange, limits: v1::Resources) -> Result<VmSize, ResizeError> {
        let pod = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _turn = pod.size.turn().await;
            let before = pod.size.now();
            let result = pod.take_steps(change, limits, before).await;
            match &result {
                Ok(()) => tracing::info!(pod = pod.name, ?before, now = ?pod.size.now(), "pod resized"),
                Err(error) => tracing::info!(pod = pod.name, %error, now = ?pod.size.now(), "pod not resized"),
            }
            result.map(|()| pod.size.now())
        });
        task.await.map_err(|error| ResizeError::Abandoned(error.to_string()))?
    }

    async fn take_steps(&self, change: SizeChange, limits: v1::Resources, before: VmSize) -> Result<(), ResizeError> {
        let plug = self.check(change, before).await?;
        let plugged = before.memory_mib.saturating_sub(self.size.boot_mib());
        let vcpus = change.cpu.map_or(before.vcpus, |cpu| spec::vcpus(cpu, self.size.most().vcpus));
        if plug > plugged {
            self.grow(plug, plugged).await?;
        }
        if let Err(error) = self.change_inside(change.cpu, vcpus, before.vcpus, limits).await {
            if plug > plugged {
                self.shrink(plugged).await?;
            }
            return Err(error);
        }
        if plug < plugged {
            self.shrink(plug).await?;
        }
        Ok(())
    }

    /// What can be refused before anything changes; else the memory to be plugged, in MiB.
    async fn check(&self, change: SizeChange, now: VmSize) -> Result<u64, ResizeError> {
        let most = self.size.most();
        if let Some(Some(limit)) = change.cpu {
            let wanted = spec::vcpus(Some(limit), u8::MAX);
            if wanted > most.vcpus {
                return Err(ResizeError::Vcpus { wanted, most: most.vcpus });
            }
        }
        let Some(bytes) = change.memory else { return Ok(now.memory_mib.saturating_sub(self.size.boot_mib())) };
        let used = self.agent.stats(String::new()).await?;
        let used = used.memory_usage.saturating_sub(used.memory_inactive_file);
        if used > bytes {
            return Err(ResizeError::InUse { wanted: bytes, used });
        }
        let wanted = spec::memory_mib(bytes).unwrap_or(u64::MAX);
        if wanted > most.memory_mib {
            let overhead = VmSize { memory_mib: wanted, ..most }.overhead_mib();
            return Err(ResizeError::Memory { wanted, most: most.memory_mib, overhead });
        }
        let more = wanted.saturating_sub(now.memory_mib);
        match room::available_mib() {
            Some(available) if more > available => Err(ResizeError::NoRoom { more, available }),
            _ => Ok(spec::plugged_mib(wanted, self.size.boot_mib())),
        }
    }

    /// Host's cgroup, then VM. Where the guest does not take it all, it shall have what it had.
    async fn grow(&self, plug: u64, plugged: u64) -> Result<(), ResizeError> {
        self.bound(plug)?;
        let reached = self.plug(plug).await;
        if matches!(reached, Ok(reached) if reached == plug) {
            return Ok(());
        }
        self.shrink(plugged).await?;
        Err(ResizeError::NotPlugged { wanted: plug.saturating_sub(plugged), taken: reached?.saturating_sub(plugged) })
    }

    /// VM, then host's cgroup. What the guest cannot free it keeps.
    async fn shrink(&self, plug: u64) -> Result<(), ResizeError> {
        let reached = self.plug(plug).await?;
        if reached > plug {
            tracing::warn!(pod = self.name, wanted = plug, reached, "the guest does not free all of its memory");
            self.vmm.request_memory(reached).await?;
        }
        self.bound(reached.max(plug))
    }

    /// Limits the VM on the host to its memory with so much plugged.
    fn bound(&self, plug: u64) -> Result<(), ResizeError> {
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        let bytes = HostLimits::memory_of(self.size.boot_mib().saturating_add(plug));
        Ok(cgroup.set("memory.max", &bytes.to_string())?)
    }

    /// Has the guest plug and unplug until it has so much, or gets no further; answers what it has.
    async fn plug(&self, mib: u64) -> Result<u64, ResizeError> {
        self.vmm.request_memory(mib).await?;
        let patience = self.deadlines.memory;
        let begin = Instant::now();
        let (mut nearest, mut since) = (u64::MAX, begin);
        loop {
            let plugged = self.vmm.hotplug().await?.plugged_mib;
            self.size.has_plugged(plugged);
            let distance = plugged.abs_diff(mib);
            if distance < nearest {
                (nearest, since) = (distance, Instant::now());
            }
            let over = since.elapsed() > patience || begin.elapsed() > patience.saturating_mul(PATIENCE);
            if distance == 0 || over {
                return Ok(plugged);
            }
            sleep(LOOK).await;
        }
    }

    /// CPUs of the guest, CPU time on the host, and the limits of the containers' cgroup.
    async fn change_inside(
        &self,
        cpu: Option<Option<CpuLimit>>,
        vcpus: u8,
        before: u8,
        limits: v1::Resources,
    ) -> Result<(), ResizeError> {
        let weight = limits.cpu_weight;
        if vcpus != before {
            if let Err(error) = self.agent.online_cpus(u32::from(vcpus)).await {
                self.agent.online_cpus(u32::from(before)).await?;
                return Err(error.into());
            }
            self.size.has_online(vcpus);
        }
        let request = v1::UpdateContainerRequest { container_id: String::new(), resources: Some(limits) };
        if let Err(error) = self.agent.update_container(request).await {
            if vcpus != before {
                self.agent.online_cpus(u32::from(before)).await?;
                self.size.has_online(before);
            }
            return Err(error.into());
        }
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        if let Some(weight) = weight {
            cgroup.set("cpu.weight", &weight.to_string())?;
        }
        if let Some(cpu) = cpu {
            limits::set_cpu(cgroup, cpu)?;
        }
        Ok(())
    }
}
