//! Namespaces of containers: whose processes they see, which ids their users have, what their clocks show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod debug;
mod modes;
mod users;
