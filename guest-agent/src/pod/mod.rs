//! What the containers of the pod share: identity (`identity`), devices in slots (`slots`) and volumes (`volumes`), with
//! their limits (`quota`) and what they give back (`trim`), and user namespaces (`users`).
//! Single containers are `container`'s business.

pub mod identity;
mod quota;
pub mod slots;
mod trim;
pub mod users;
pub mod volumes;
