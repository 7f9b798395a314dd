//! What kubelet does to a container runtime, replayed against huskd with real pods: the order of its requests, the
//! shape of what it asks for, and what it makes of the answers.
//!
//! [`node::Node`] is a node with huskd and nothing else, [`kubelet::Kubelet`] kubelet's client with its rules about
//! answers, [`pod::Pod`] a pod as kubelet prepares it on the host.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ending;
mod images;
mod kubelet;
mod life;
mod lists;
mod logs;
mod node;
mod pod;
mod probes;
mod relist;
mod resize;
mod restart;
mod termination;
mod volumes;
