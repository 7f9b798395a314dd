//! Further processes in a running container.

mod process;
mod sync;
