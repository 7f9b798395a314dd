//! A runtime of the Container Network Interface, specification versions 0.3.0 to 1.1.0.
//!
//! [`Networks`] finds network configurations; [`Cni`] runs their plugins for one [`Attachment`] at a time and notes in a
//! cache, in libcni's format, what a later process needs to undo it. Plugins are separate programs of the
//! administrator's choice: what they write is bounded and checked, and how long they run is limited.

mod attachment;
mod builtin;
mod cache;
mod config;
mod error;
mod networks;
mod plugin;
mod request;
mod result;
mod runtime;
#[cfg(test)]
mod tests;
mod version;

pub use attachment::{Attachment, BadAttachment, Bandwidth, Capability, Dns, PortMapping, Protocol, RuntimeConfig};
pub use builtin::{
    BRIDGE, BRIDGE_PLUGINS, BRIDGE_SUBNET, BRIDGE_SUBNET_6, Wants, bridge_network, bridge_subnets,
    keep_router_advertisements,
};
pub use cache::{CACHE_DIR, CacheError};
pub use config::{ConfigError, Network};
pub use error::CniError;
pub use networks::{CONFIG_DIR, Networks, NoNetwork};
pub use plugin::{Command, PluginError, PluginFailure};
pub use result::{AddResult, BadResult, ResultInterface, ResultIp, ResultRoute};
pub use runtime::{Cni, DEADLINE, Deleted, Installed, PLUGIN_DIRS};
pub use version::Version;
