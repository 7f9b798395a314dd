//! What pods and their containers take: statistics, and the metrics of cAdvisor's names that kubelet serves.
//!
//! No answer waits for a guest. Each running pod has a sampler ([`watch`]) that asks its shim every [`INTERVAL`] and keeps
//! the answers with their times in the pod and its containers ([`PodSamples`], [`Sampled`]); lists are made of what is
//! kept, and a slow or hostile guest delays nobody's answers but makes its own old. While nobody asks ([`Interest`])
//! nothing is sampled, so that an idle pod stays idle.
//!
//! Of a pod itself, CPU and memory are the host's count (the cgroup of its VMM): the VM is what the pod takes of the
//! node. Of containers everything is the guest's word, and so are a pod's network and processes; it may be wrong, and the
//! arithmetic here expects it to be.
//!
//! Requests and their filters are `runtime::service`'s business.

mod container;
mod convert;
pub mod metrics;
mod sampled;
mod sampler;
mod sandbox;

pub(crate) use container::container;
pub use sampled::{Counted, Sample, Sampled};
pub use sampler::{INTERVAL, Interest, PodSamples};
pub(crate) use sampler::{freshen, watch};
pub(crate) use sandbox::sandbox;
