//! Pods as the CLI keeps them: what was asked for, what is on disk, and who looks after it while it runs.
//!
//! There is no daemon. A pod has a directory below `HUSK_RUN/pods` with its record (`pod.json`), its bundles and its
//! logs, and a supervisor while its containers run: the foreground `husk run` itself, or a detached `husk supervise`.
//! The pod's VM belongs to its shim, not to the supervisor: when a supervisor dies the pod lives on, and every command
//! finds out the truth from the shim and the record (`observe`).
//!
//! - `plan`: what a user asked for; `prepare`: images and specs made of it; `record`, `directory`: what is kept;
//! - `boot`, `runner`, `supervisor`, `backoff`, `health`: running it; `teardown`: ending and removing it;
//! - `lookup`, `observe`: finding pods and containers, and their present state;
//! - `size`: how large a pod is by its containers; `vmm`: what a pod costs the host; `volumes`: named volumes; `host_path`: paths of the host; `atomic_writer`: files that husk writes for pods.

pub(crate) mod atomic_writer;
pub(crate) mod backoff;
pub(crate) mod boot;
pub(crate) mod detach;
pub(crate) mod directory;
pub(crate) mod health;
pub(crate) mod host_path;
pub(crate) mod ids;
pub(crate) mod lookup;
pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod prepare;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod runner;
pub(crate) mod size;
pub(crate) mod supervisor;
pub(crate) mod teardown;
pub(crate) mod vmm;
pub(crate) mod volumes;
