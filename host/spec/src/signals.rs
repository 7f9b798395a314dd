//! Signals by name and number (signal(7)).

use std::str::FromStr as _;

use thiserror::Error;

pub const TERM: u32 = 15;
pub const KILL: u32 = 9;

#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{0}\" is no signal: use a name such as TERM or SIGHUP, or a number from 1 to 64")]
pub struct SignalError(String);

/// `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub fn parse(text: &str) -> Result<u32, SignalError> {
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
