//! A stand-in for the VMM and the guest agent behind it, which does what a test asks of it.
//!
//! `fake-vmm --control-fd N` speaks the VMM's control protocol on N and, after a boot, the agent's protocol behind the
//! hybrid vsock socket. It behaves well, but for the words in the file `behaviour` beside the path by which it was
//! started: `die=resume`, `hang=boot`, `refuse=plug`, `forge-events` and so on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's program")]

mod agent;
mod behaviour;
mod control;
mod vsock;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use behaviour::Behaviour;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [program, option, number] = arguments.as_slice() else { panic!("usage: fake-vmm --control-fd N") };
    assert_eq!(option, "--control-fd");
    let control: RawFd = number.parse().expect("a number");
    let behaviour = Behaviour::read(&Path::new(program).with_file_name("behaviour"));
    // SAFETY: the number names the inherited socket, which nothing else in this process uses.
    let control = unsafe { OwnedFd::from_raw_fd(control) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let guard = runtime.enter();
    control::serve(control, behaviour);
    drop(guard);
    runtime.shutdown_background();
}
