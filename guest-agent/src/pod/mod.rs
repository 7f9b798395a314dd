//! What the containers of the pod share: identity (`identity`), devices in slots (`slots`) and volumes (`volumes`).
//! Single containers are `container`'s business.

pub mod identity;
pub mod slots;
pub mod volumes;
