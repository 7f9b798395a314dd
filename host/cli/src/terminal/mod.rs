//! The user's side of a container's streams: raw mode, window size, signals, and the copying of bytes.

pub(crate) mod attach;
pub(crate) mod copy;
pub(crate) mod raw;
pub(crate) mod signals;
