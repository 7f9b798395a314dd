//! The microVM monitor: one process, one virtual machine.
//!
//! It knows KVM and virtio and nothing of pods. The process that starts it hands it everything as file descriptors over
//! the control socket (`husk-vmm-control`); it opens no path and needs no privileges.
//!
//! Threads: the main thread ([`monitor`]) serves the control socket; one thread per vCPU ([`vcpu`]); one per device
//! ([`virtio::worker`]). Each kind runs under its own seccomp filter ([`seccomp`]).
//!
//! Main path: [`machine::Machine::build`] reads as the recipe of a VM.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("husk-vmm runs on x86-64 Linux only");

pub mod boot;
pub mod console;
pub mod event;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod monitor;
pub mod ports;
pub mod probe;
pub mod seccomp;
pub mod timeline;
pub mod vcpu;
pub mod virtio;
pub mod vm;
