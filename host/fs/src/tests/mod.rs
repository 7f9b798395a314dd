//! The server as a client sees it: requests as bytes, replies as bytes.

mod client;
mod hostile;
mod operations;
mod races;
mod read_only;
