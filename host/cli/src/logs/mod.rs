//! Reading container logs in the CRI log format, which the shim writes.

pub(crate) mod line;
pub(crate) mod reader;
