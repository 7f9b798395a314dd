//! Whether a registry takes a name and a password.

use std::path::Path;

use thiserror::Error;

use crate::credentials::{Credentials, registry_name};
use crate::hosts::{self, HostsError};
use crate::reference::Reference;
use crate::registry::{self, Answer, RegistryError};

/// Credentials that were not taken.
#[derive(Debug, Error)]
pub enum LoginError {
    #[error("\"{0}\" is no registry: give a host name, such as docker.io or registry.example:5000")]
    Name(String),
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// Images of the registry are fetched elsewhere, where its password is never told.
    #[error("{registry} is reached through {hosts}, as hosts.toml says: log in there")]
    Elsewhere { registry: String, hosts: String },
    #[error("{registry} does not take the name and password ({cause})")]
    Refused { registry: String, cause: String },
    #[error("{registry} cannot be asked ({cause}): see that the network and the registry work, and try again")]
    Unavailable { registry: String, cause: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Asks `registry` (`name` or `name:port`), as the configuration of hosts says it is reached, whether it takes these.
///
/// # Errors
/// When it does not, or cannot be asked.
pub async fn check(registry: &str, credentials: &Credentials, config: &Path) -> Result<(), LoginError> {
    let refuse = || LoginError::Name(registry.to_owned());
    // Token servers want to be asked for some repository; it need not be there.
    let reference: Reference = format!("{registry}/library/login").parse().map_err(|_| refuse())?;
    if reference.registry() != registry {
        return Err(refuse());
    }
    let hosts = hosts::hosts(config, registry)?;
    let names = hosts.iter().map(|host| host.authority.clone()).collect::<Vec<_>>().join(", ");
    let own = hosts.into_iter().find(|host| registry_name(&host.authority) == registry_name(registry));
    let Some(host) = own else {
        return Err(LoginError::Elsewhere { registry: registry.to_owned(), hosts: names });
    };
    let registry = registry.to_owned();
    match registry::log_in(host, credentials, &reference).await? {
        Answer::Taken => Ok(()),
        Answer::Refused(cause) => Err(LoginError::Refused { registry, cause }),
        Answer::Unavailable(cause) => Err(LoginError::Unavailable { registry, cause }),
    }
}
