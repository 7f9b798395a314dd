//! What the operations of [`super::Cni`] can fail with.

use super::attachment::BadAttachment;
use super::cache::CacheError;
use super::plugin::PluginError;
use super::result::BadResult;

#[derive(Debug, thiserror::Error)]
pub enum CniError {
    #[error(transparent)]
    Attachment(#[from] BadAttachment),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error(transparent)]
    Result(#[from] BadResult),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("container {container_id} is attached to network {network} as {ifname} already; delete that first")]
    AlreadyAttached { network: String, container_id: String, ifname: String },
    #[error("network {network}: CHECK came with cniVersion 0.4.0 and this is {version}")]
    NoCheck { network: String, version: super::Version },
    #[error("container {container_id} is not attached to network {network} as {ifname}: there is no result of its ADD")]
    NotAttached { network: String, container_id: String, ifname: String },
    #[error(
        "plugin {plugin} of network {network} speaks CNI {speaks} and the network wants {wants}; change its cniVersion"
    )]
    PluginVersion { plugin: String, network: String, speaks: String, wants: super::Version },
    #[error("{add}; and what the network's plugins had done until then is not undone: {undo}")]
    NotUndone { add: Box<CniError>, undo: Box<CniError> },
}
