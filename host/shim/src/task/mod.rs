//! The pod as containerd's tasks.
//!
//! [`engine::Engine`] knows the pod's tasks and its VM; [`lifecycle`] takes a task from creation to deletion, each step
//! one function; [`pause`] stops it in between; [`join`] lets clients join what runs; [`queries`] answers questions;
//! [`process`] is the state machine of one process. [`service`] and [`pod_service`] only translate between these and the
//! two ttrpc services.
//!
//! How the VM is made and how the guest is spoken to is `husk-pod`'s business.

mod engine;
mod error;
mod join;
mod lifecycle;
mod pause;
mod pod_service;
mod process;
mod queries;
mod service;
mod stats;
mod usage;

pub(crate) use engine::{Engine, Settings};
pub(crate) use service::services;
