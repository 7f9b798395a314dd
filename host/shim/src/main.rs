//! `containerd-shim-husk-v2`: the engine of one pod.
//!
//! containerd, huskd and the CLI all drive a pod through this process, with containerd's Task API over ttrpc. It runs
//! the pod's VMM through `husk-pod`, carries standard streams, and lives as long as the pod does, whatever becomes of
//! those who started it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod args;
mod bootstrap;
mod bundle;
mod events;
mod stdio;
mod task;

use std::env;
use std::process::ExitCode;

use args::{Action, Args};

fn main() -> ExitCode {
    let done = Args::parse(env::args_os().skip(1)).map_err(Into::into).and_then(|args| match args.action {
        Action::Start => bootstrap::start(&args),
        Action::Serve => bootstrap::serve(&args),
        Action::Delete => bootstrap::delete(&args),
        Action::Version => bootstrap::version(),
        Action::Info => bootstrap::info(),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd and the CLI show this to their user.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
