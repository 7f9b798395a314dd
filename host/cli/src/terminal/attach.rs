//! Being attached to a process: its streams are ours, our signals are its own, until it has ended and all its output
//! has arrived.

use std::io;

use anyhow::Context as _;
use husk_client::{Exit, Fifos, Shim, TaskError};
use tokio::signal::unix::{SignalKind, signal};

use super::copy;
use super::raw::{self, RawTerminal};
use super::signals::Forwarded;

/// A task, or an exec in it, that has been created.
#[derive(Clone, Copy)]
pub(crate) struct Process<'a> {
    pub(crate) shim: &'a Shim,
    pub(crate) id: &'a str,
    pub(crate) exec: Option<&'a str>,
    pub(crate) terminal: bool,
}

pub(crate) fn can_be_terminal() -> bool {
    raw::stdin_is_terminal()
}

/// Copies streams and passes signals and window sizes on until `exit` is known; answers how the process ended.
///
/// Called when the shim has opened its ends of the FIFOs.
pub(crate) async fn run(
    process: Process<'_>,
    fifos: Fifos,
    mut signals: Forwarded,
    exit: impl Future<Output = Result<Exit, TaskError>>,
) -> anyhow::Result<Exit> {
    let streams = fifos.into_streams().context("cannot open the process's streams")?;
    // Taken before the first byte is read, so that nothing typed is echoed twice.
    let _raw = if process.terminal && raw::stdin_is_terminal() {
        Some(RawTerminal::enter().context("cannot put the terminal into raw mode")?)
    } else {
        None
    };
    let copying = copy::start(streams).context("cannot copy the process's streams")?;
    let mut resized = window_changes(process.terminal)?;
    if process.terminal {
        resize(process).await;
    }
    tokio::pin!(exit);
    let ended = loop {
        tokio::select! {
            ended = &mut exit => break ended,
            number = signals.next() => forward(process, number).await,
            () = next_change(&mut resized) => resize(process).await,
        }
    };
    // However slow our reader is, it gets everything. A process that was left behind may hold the streams open, as it
    // may with a shell's pipe: then a signal ends the wait.
    tokio::select! {
        () = copying.drained() => {}
        _ = signals.next() => {}
    }
    Ok(ended?)
}

/// The process may have ended this moment: then there is nobody to tell.
async fn forward(process: Process<'_>, number: u32) {
    if let Err(error) = process.shim.kill(process.id, process.exec, number, false).await {
        tracing::debug!("signal {number} was not passed on: {error}");
    }
}

async fn resize(process: Process<'_>) {
    if let Some((rows, columns)) = raw::window_size()
        && let Err(error) = process.shim.resize(process.id, process.exec, rows, columns).await
    {
        tracing::debug!("the window size was not passed on: {error}");
    }
}

fn window_changes(terminal: bool) -> io::Result<Option<tokio::signal::unix::Signal>> {
    terminal.then(|| signal(SignalKind::window_change())).transpose()
}

async fn next_change(changes: &mut Option<tokio::signal::unix::Signal>) {
    let changed = match changes {
        Some(changes) => changes.recv().await,
        None => None,
    };
    if changed.is_none() {
        std::future::pending().await
    }
}
