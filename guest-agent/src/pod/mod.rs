//! What the containers of the pod share: identity (`identity`), the wall clock (`clock`), CPUs (`cpus`), user namespaces
//! (`users`), devices in slots (`slots`) and volumes (`volumes`), with their limits (`quota`) and what they give back
//! (`trim`). Single containers are `container`'s business.

pub mod clock;
pub mod cpus;
pub mod identity;
pub mod quota;
pub mod slots;
mod trim;
pub mod users;
pub mod volumes;
