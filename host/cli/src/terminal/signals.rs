//! Signals by name and number, and those that husk passes on.

use std::str::FromStr as _;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) const TERM: u32 = 15;
pub(crate) const KILL: u32 = 9;

#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{0}\" is no signal: use a name such as TERM or SIGHUP, or a number from 1 to 64")]
pub(crate) struct SignalError(String);

/// `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub(crate) fn parse(text: &str) -> Result<u32, SignalError> {
    let bad = || SignalError(text.to_owned());
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // The C library keeps 32 and 33 for itself: RTMIN is 34, RTMAX 64 (signal(7)).
    let real_time = |rest: &str, sign: char| rest.strip_prefix(sign).and_then(|n| n.parse::<u32>().ok());
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(34),
        (Some(rest), _) => real_time(rest, '+').and_then(|n| 34u32.checked_add(n)),
        (_, Some("")) => Some(64),
        (_, Some(rest)) => real_time(rest, '-').and_then(|n| 64u32.checked_sub(n)).filter(|n| *n >= 34),
        (None, None) => {
            let signal = nix::sys::signal::Signal::from_str(&format!("SIG{name}")).map_err(|_| bad())?;
            u32::try_from(signal as i32).ok()
        }
    };
    number.filter(|n| *n <= 64).ok_or_else(bad)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("hup", 1),
            ("1", 1),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "-9", "SIGFUN", "RTMIN+99", "RTMAX-60", "SIG", "RTMIN3"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
