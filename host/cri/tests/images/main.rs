//! huskd's images, asked for over its socket as kubelet, crictl and critest do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
mod pulls;
mod service;
