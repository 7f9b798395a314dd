//! `husk`: containers and Kubernetes pods from a shell, each pod in a microVM of its own.
//!
//! `commands` has one file per command; `pods` is what they work with; `kube` reads manifests, `spec` makes OCI specs,
//! `terminal` and `logs` carry streams, `output` prints. The engine of a pod is its shim, reached through
//! `husk-client`; this program only asks it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod commands;
mod engine;
mod error;
mod host;
mod images;
mod kube;
mod logs;
mod network;
mod output;
mod paths;
mod pods;
mod seccomp;
mod spec;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    terminal::raw::restore_on_panic();
    let cli = match commands::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; anything else is husk's own, and 125 as with podman.
            let code = if error.use_stderr() { error::exit::HUSK } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    log_to_stderr(cli.debug);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(commands::run(cli.command));
            // A thread may still sit in a read of standard input that never returns.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(anyhow::Error::from(error).context("cannot start husk's runtime")),
    };
    terminal::raw::restore();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{}", error::report(&error));
            ExitCode::from(error::exit_code(&error))
        }
    }
}

fn log_to_stderr(debug: bool) {
    let level = if debug { tracing::Level::DEBUG } else { tracing::Level::WARN };
    // Only one subscriber can be set, and this is the only place.
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).without_time().try_init();
}
