//! File-system work whose input is hostile: resolving a path below a root, removing a tree, and mounts that are built
//! detached and attached by file descriptor, so that no path is looked up twice. What is mounted where is decided by
//! `pod`, `container` and `launch`. Beside that, names of block devices.

mod device;
pub mod mount;
pub mod remove;
pub mod resolve;

pub use device::device_name;
