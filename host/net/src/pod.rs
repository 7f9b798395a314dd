//! A pod's network namespace and what CNI plugins made in it, as a whole: made, found again by the pod's id, taken away.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::cni::{AddResult, Attachment, Bandwidth, Cni, CniError, Network, RuntimeConfig};
use crate::netns::{NetNs, NetNsError, RUN_NETNS};

/// The interface in the namespace and in the guest.
const INTERFACE: &str = "eth0";

/// A burst is what a limit lets pass in a tenth of a second,
const BURSTS_PER_SECOND: u64 = 10;
/// but one segment of 64 KiB at least, in bits, lest tc cut each of them up,
const LEAST_BURST: u64 = 64 * 1024 * 8;
/// and what the plugin's 32 bits hold at most.
const MOST_BURST: u64 = u32::MAX as u64;

/// Where the network of one pod is. All of it can be said from the pod's id, so nothing has to be remembered.
#[derive(Debug, Clone)]
pub struct PodNetwork {
    cni: Cni,
    id: String,
    name: String,
    lock: PathBuf,
}

/// Who the pod is, as plugins are told by `CNI_ARGS`.
#[derive(Debug, Clone, Copy)]
pub struct PodIdentity<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
}

/// Why a pod has no network.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    #[error(transparent)]
    Cni(#[from] CniError),
}

impl PodNetwork {
    /// The network of the pod `id`. `run` is a directory for the lock by which one detaches at a time.
    #[must_use]
    pub fn new(cni: Cni, id: &str, run: &Path) -> Self {
        Self { cni, id: id.to_owned(), name: format!("husk-{id}"), lock: run.join("network.lock") }
    }

    /// The name of the pod's network namespace on the host.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        Path::new(RUN_NETNS).join(&self.name)
    }

    /// Makes the namespace and has the network's plugins furnish it. What a failure leaves, [`PodNetwork::detach`]
    /// removes.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    pub async fn attach(
        &self,
        network: &Network,
        pod: PodIdentity<'_>,
        runtime: RuntimeConfig,
    ) -> Result<AddResult, AttachError> {
        NetNs::create(Path::new(RUN_NETNS), &self.name).await?;
        let pairs = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", pod.namespace),
            ("K8S_POD_NAME", pod.name),
            ("K8S_POD_INFRA_CONTAINER_ID", &self.id),
            ("K8S_POD_UID", pod.uid),
        ];
        let attachment = Attachment {
            container_id: self.id.clone(),
            netns: Some(self.netns()),
            ifname: INTERFACE.to_owned(),
            args: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            runtime,
        };
        Ok(self.cni.add(network, &attachment).await?)
    }

    /// Takes the pod off its network and removes its namespace. Idempotent; never fails: what cannot be done now is what
    /// the next removal finds.
    ///
    /// One at a time, by a lock: several processes may end a pod, and of two DELs that overlap the plugins may each leave
    /// something to the other.
    pub async fn detach(&self) {
        if !self.has_remains() {
            return;
        }
        let pod = &self.id;
        let _alone = lock(self.lock.clone()).await;
        self.restore_namespace().await;
        match self.cni.attachments(Some(pod)) {
            Ok(attachments) => {
                for (network, attachment) in attachments.into_iter().flatten() {
                    match self.cni.del(&network, &attachment).await {
                        Ok(deleted) => tracing::debug!("pod {pod}: left network {}: {deleted:?}", network.name()),
                        Err(error) => tracing::warn!("pod {pod}: it could not leave its network: {error}"),
                    }
                }
            }
            Err(error) => tracing::warn!("pod {pod}: its networks are not known: {error}"),
        }
        if let Err(error) = NetNs::remove(&self.netns()) {
            tracing::warn!("pod {pod}: {error}");
        }
    }

    /// A namespace for plugins to look for the pod's interface in, if its own has lost its name: without one the bridge
    /// plugin leaves its masquerading rules. CNI puts an interface with the pod's addresses there.
    async fn restore_namespace(&self) {
        let path = self.netns();
        if !matches!(NetNs::open(&path), Err(NetNsError::Missing { .. })) {
            return;
        }
        let restored = match NetNs::remove(&path) {
            Ok(()) => NetNs::create(Path::new(RUN_NETNS), &self.name).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = restored {
            tracing::warn!("pod {}: rules of its network may remain on the host: {error}", self.id);
        }
    }

    /// Whether anything of the pod's network is there.
    fn has_remains(&self) -> bool {
        self.netns().exists()
            || self.cni.attachments(Some(&self.id)).is_ok_and(|mut attachments| attachments.next().is_some())
    }
}

/// Held until it is dropped. Without it the work is done all the same.
async fn lock(path: PathBuf) -> Option<File> {
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::create(path)?;
        file.lock()?;
        std::io::Result::Ok(file)
    });
    locked.await.ok()?.inspect_err(|error| tracing::warn!("the lock of networks: {error}")).ok()
}

impl Bandwidth {
    /// Rates in bits per second with their bursts; `None`: no limit. Kubernetes' other runtimes ask for bursts of 4 Gbit,
    /// which leave the first half gigabyte of a transfer unlimited.
    #[must_use]
    pub fn limited(ingress: Option<u64>, egress: Option<u64>) -> Self {
        let burst =
            |rate: Option<u64>| rate.map_or(0, |rate| (rate / BURSTS_PER_SECOND).clamp(LEAST_BURST, MOST_BURST));
        Self {
            ingress_rate: ingress.unwrap_or_default(),
            ingress_burst: burst(ingress),
            egress_rate: egress.unwrap_or_default(),
            egress_burst: burst(egress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_a_tenth_of_a_second_within_bounds() {
        let bursts = |rate| Bandwidth::limited(Some(rate), None).ingress_burst;
        assert_eq!([1_000, 100_000_000, 1 << 40].map(bursts), [524_288, 10_000_000, 4_294_967_295]);
        let open = Bandwidth::limited(None, Some(1_000));
        assert_eq!((open.ingress_rate, open.ingress_burst), (0, 0));
    }
}
