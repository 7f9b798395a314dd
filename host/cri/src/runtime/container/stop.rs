//! StopContainer.

use std::sync::Arc;
use std::time::Duration;

use husk_client::still_there;
use husk_spec::signals;
use tokio::time::timeout;

use super::super::Engine;
use crate::api::Signal;
use crate::error::Error;
use crate::state::{Container, ContainerPhase};

/// How long a killed container may take to be gone. One that even SIGKILL does not end is ended with its pod.
const KILL_END: Duration = Duration::from_secs(30);

impl Engine {
    /// Ends a container: its stop signal, and SIGKILL after the grace; without grace, SIGKILL at once. Answers when its
    /// end is noted. Nothing happens to one that does not run.
    pub(in crate::runtime) async fn stop_container(
        &self,
        container: &Arc<Container>,
        grace: Duration,
    ) -> Result<(), Error> {
        // Whoever starts it decides first.
        drop(container.changing.lock().await);
        match container.phase() {
            ContainerPhase::Running { .. } => {}
            ContainerPhase::Making | ContainerPhase::Created | ContainerPhase::Exited { .. } => return Ok(()),
        }
        let Some(shim) = container.sandbox.shim() else {
            // Its watcher notes the end, for the shim has gone.
            let _ = timeout(KILL_END, container.exited()).await;
            return Ok(());
        };
        if !grace.is_zero() {
            let signal = container.record.with(|record| record.stop_signal);
            let there = still_there(shim.kill(&container.id, None, signal, false).await)?;
            let patience = if there { grace } else { KILL_END };
            if timeout(patience, container.exited()).await.is_ok() {
                return Ok(());
            }
        }
        still_there(shim.kill(&container.id, None, signals::KILL, true).await)?;
        timeout(KILL_END, container.exited()).await.map_err(|_| {
            let seconds = KILL_END.as_secs();
            Error::DeadlineExceeded(format!("container {} did not end within {seconds} s of SIGKILL", container.id))
        })
    }
}

/// CRI's signals with their numbers.
pub(in crate::runtime) fn signal_names() -> impl Iterator<Item = (Signal, u32)> {
    // The enumeration has no holes.
    (1..).map_while(|value| Signal::try_from(value).ok()).filter_map(|signal| Some((signal, number(signal).ok()?)))
}

/// The number of one of CRI's signals.
pub(super) fn number(signal: Signal) -> Result<u32, Error> {
    let name = signal.as_str_name().trim_start_matches("SIGNAL_").replace("PLUS", "+").replace("MINUS", "-");
    // Older names of signals that exist once.
    let name = match name.as_str() {
        "SIGCLD" => "SIGCHLD",
        "SIGIOT" => "SIGABRT",
        "SIGPOLL" => "SIGIO",
        name => name,
    };
    signals::parse(name).map_err(|error| Error::InvalidArgument(format!("stop_signal: {error}")))
}

/// What the image says of its stop signal, or SIGTERM.
pub(super) fn of_image(name: Option<&str>) -> Result<u32, Error> {
    match name {
        None | Some("") => Ok(signals::TERM),
        Some(name) => {
            signals::parse(name).map_err(|error| Error::InvalidArgument(format!("the image's StopSignal: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_cri_has_a_number() {
        assert_eq!(signal_names().count(), 65);
        for (signal, expected) in [
            (Signal::Sigterm, 15),
            (Signal::Sigkill, 9),
            (Signal::Sigpoll, 29),
            (Signal::Sigrtmin, 34),
            (Signal::Sigrtminplus3, 37),
            (Signal::Sigrtmaxminus1, 63),
            (Signal::Sigrtmax, 64),
        ] {
            assert_eq!(number(signal).unwrap(), expected, "{signal:?}");
        }
        assert_eq!(of_image(Some("SIGQUIT")).unwrap(), 3);
        assert!(of_image(Some("SIGNOTHING")).is_err());
    }
}
