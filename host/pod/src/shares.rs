//! What of the host's file systems the pod's containers see.
//!
//! One virtio-fs device shows all of it, plugged at the first use. Each tree is an export of its own under a name that
//! is never used twice, shared by those containers that want the same one: in the guest it is then one file system
//! object, so that caches and locks agree.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use husk_agent_api::v1;
use husk_vmm_control::{Device, SlotIndex};
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::sync::Mutex;

use crate::agent::{Agent, AgentError, random_token};
use crate::devices::{PlugError, plug};
use crate::host::tree::{Identity, Tree, TreeError};
use crate::sockets::SocketProxy;
use crate::spec::HostTree;
use crate::vmm::{Vmm, VmmError};

/// What the guest mounts the device by.
const TAG: &str = "husk";
/// Prefix of the names of trees; named volumes cannot have it.
const TREE: &str = "husk.tree.";

#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("the VMM's own descriptors cannot be opened: {0}")]
    Descriptors(#[source] std::io::Error),
    #[error("the kernel gave no random numbers: {0}")]
    Random(#[source] std::io::Error),
    #[error("cannot share {path}: {source}")]
    Vmm { path: String, source: VmmError },
    #[error("the guest does not take {path}: {source}")]
    Agent { path: String, source: AgentError },
}

/// A right to use a tree; see [`Shares::release`].
#[derive(Debug)]
#[must_use]
pub(crate) struct ShareLease {
    key: Key,
    name: String,
}

impl ShareLease {
    /// The volume's name in the guest.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It is read-only by the host's doing in some places and not in others: for the guest, which sees one file system,
    /// it is not.
    pub(crate) fn is_writable_below(&self) -> bool {
        self.key.access == Access::WritableBelow
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    identity: Identity,
    access: Access,
}

/// Who lets nobody write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Access {
    Writable,
    /// The VMM, to all of the tree.
    ReadOnly,
    /// The host's kernel, to the tree's own mount; mounts below it are as the host has them.
    WritableBelow,
}

#[derive(Debug)]
struct Share {
    name: String,
    users: u32,
    /// For a socket; its life is that of the share.
    proxy: Option<SocketProxy>,
}

#[derive(Debug)]
pub(crate) struct Shares {
    agent: Agent,
    vmm: Arc<Vmm>,
    /// Held while a tree comes or goes: two containers that want the same one wait for one export.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    slot: Option<SlotIndex>,
    made: u64,
    shares: HashMap<Key, Share>,
}

impl Shares {
    pub(crate) fn new(agent: Agent, vmm: Arc<Vmm>) -> Self {
        Self { agent, vmm, table: Mutex::default() }
    }

    /// Shows a tree to the guest, or shares one that it sees already. What is `read_only` cannot be changed by the
    /// guest at all, unless another container of the pod has the same tree writable.
    pub(crate) async fn acquire(&self, wanted: &HostTree, read_only: bool) -> Result<ShareLease, ShareError> {
        let opened = wanted.clone();
        // The host's file systems may be slow.
        let failed = |source| TreeError::Open { path: wanted.source.clone(), source };
        let tree = tokio::task::spawn_blocking(move || {
            let tree = Tree::open(&opened)?;
            let mixed = read_only && opened.writable_below && tree.socket.is_none();
            Ok::<_, TreeError>((mixed.then(|| tree.has_mounts_below()).transpose(), tree))
        });
        let (mixed, tree) = tree.await.map_err(|error| failed(std::io::Error::other(error)))??;
        let access = match (read_only, mixed.map_err(failed)?) {
            (false, _) => Access::Writable,
            (true, Some(true)) => Access::WritableBelow,
            (true, _) => Access::ReadOnly,
        };
        let identity = tree.identity;
        let mut table = self.table.lock().await;
        let writable = Key { identity, access: Access::Writable };
        let shared = access == Access::ReadOnly && table.shares.contains_key(&writable);
        let key = if shared { writable } else { Key { identity, access } };
        if let Some(share) = table.shares.get_mut(&key) {
            share.users = share.users.saturating_add(1);
            return Ok(ShareLease { key, name: share.name.clone() });
        }
        let path = wanted.source.display().to_string();
        table.made = table.made.wrapping_add(1);
        let name = format!("{TREE}{}", table.made);
        let proxy = if tree.socket.is_some() {
            Some(self.connect(&name, tree, path).await?)
        } else {
            let slot = self.device(&mut table, &path).await?;
            self.show(slot, &name, tree, access, path).await?;
            None
        };
        table.shares.insert(key, Share { name: name.clone(), users: 1, proxy });
        Ok(ShareLease { key, name })
    }

    /// The slot of the device, which stays for the pod's whole life.
    async fn device(&self, table: &mut Table, path: &str) -> Result<SlotIndex, ShareError> {
        if let Some(slot) = table.slot {
            return Ok(slot);
        }
        // Its own directory of descriptors is how the VMM, which has no /proc, opens a file that it knows by O_PATH.
        let own = format!("/proc/{}/fd", self.vmm.pid());
        let own = openat(CWD, own, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| ShareError::Descriptors(errno.into()))?;
        let device = Device::Fs { tag: TAG.into() };
        let plugged = plug(&self.vmm, &self.agent, device, &[own.as_fd()]).await;
        let (slot, _) = plugged.map_err(|error| match error {
            PlugError::Vmm(source) => ShareError::Vmm { path: path.to_owned(), source },
            PlugError::Guest(source) => ShareError::Agent { path: path.to_owned(), source },
        })?;
        table.slot = Some(slot);
        Ok(slot)
    }

    async fn show(
        &self,
        slot: SlotIndex,
        name: &str,
        tree: Tree,
        access: Access,
        path: String,
    ) -> Result<(), ShareError> {
        let shared = tree.into_shared(access == Access::WritableBelow)?;
        if let Err(source) = self.vmm.export(slot, name, access == Access::ReadOnly, shared.as_fd()).await {
            return Err(ShareError::Vmm { path, source });
        }
        let source = v1::create_volume_request::Source::Shared(v1::SharedTree { slot: slot.0, tag: TAG.into() });
        let request = v1::CreateVolumeRequest { name: name.into(), source: Some(source), gid: None };
        if let Err(source) = self.agent.create_volume(request).await {
            self.hide(slot, name).await;
            return Err(ShareError::Agent { path, source });
        }
        tracing::debug!(tree = path, name, ?access, "tree of the host shared");
        Ok(())
    }

    /// Makes a socket in the guest whose clients reach the host's.
    async fn connect(&self, name: &str, tree: Tree, path: String) -> Result<SocketProxy, ShareError> {
        let (mode, uid, gid) = tree.socket.unwrap_or_default();
        let token = random_token().map_err(ShareError::Random)?;
        let socket = v1::HostSocket { token, mode, uid, gid };
        let source = Some(v1::create_volume_request::Source::Socket(socket));
        let request = v1::CreateVolumeRequest { name: name.into(), source, gid: None };
        self.agent.create_volume(request).await.map_err(|source| ShareError::Agent { path, source })?;
        Ok(SocketProxy::start(&self.agent, token, tree.into_place()))
    }

    async fn hide(&self, slot: SlotIndex, name: &str) {
        match self.vmm.unexport(slot, name).await {
            Ok(()) | Err(VmmError::Ended(_)) => {}
            Err(error) => tracing::warn!(name, %error, "tree of the host not taken back"),
        }
    }

    /// Gives a tree back; the last user's is taken from the guest, whatever it still holds open.
    pub(crate) async fn release(&self, lease: ShareLease) {
        let mut table = self.table.lock().await;
        let Some(share) = table.shares.get_mut(&lease.key) else { return };
        share.users = share.users.saturating_sub(1);
        if share.users > 0 {
            return;
        }
        let is_socket = share.proxy.is_some();
        table.shares.remove(&lease.key);
        if let Err(error) = self.agent.remove_volume(lease.name.clone()).await
            && !matches!(error, AgentError::Ended(_))
        {
            tracing::warn!(volume = lease.name, %error, "guest does not give a tree back");
        }
        if let Some(slot) = table.slot.filter(|_| !is_socket) {
            self.hide(slot, &lease.name).await;
        }
    }
}
