//! The signals that husk passes on.

use husk_spec::signals::TERM;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a foreground command passes on to what it runs.
const FORWARDED: [fn() -> SignalKind; 6] = [
    SignalKind::interrupt,
    SignalKind::terminate,
    SignalKind::hangup,
    SignalKind::quit,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];

/// Signals to this process, caught from its making on.
#[derive(Debug)]
pub(crate) struct Forwarded {
    signals: Vec<(u32, Signal)>,
}

impl Forwarded {
    /// # Errors
    ///
    /// When a handler cannot be installed.
    pub(crate) fn catch() -> std::io::Result<Self> {
        let mut signals = Vec::with_capacity(FORWARDED.len());
        for kind in FORWARDED {
            let kind = kind();
            let number = u32::try_from(kind.as_raw_value()).unwrap_or(TERM);
            signals.push((number, signal(kind)?));
        }
        Ok(Self { signals })
    }

    /// Passes none on: they do here what they do to any program.
    pub(crate) fn none() -> Self {
        Self { signals: Vec::new() }
    }

    /// The number of the next signal. Cancelling loses none.
    pub(crate) async fn next(&mut self) -> u32 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.signals {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
