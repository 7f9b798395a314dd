//! How long the engine waits for anything.

use std::time::Duration;

/// Environment variable that multiplies every deadline, e.g. `5` on a machine that emulates its CPU.
pub const TIMEOUT_SCALE: &str = "HUSK_TIMEOUT_SCALE";

/// Every deadline of the engine, in one value that is passed down. Waits end by events; a deadline only bounds what a
/// dead or hostile guest can hold up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the VMM's start to the agent's first answer.
    pub boot: Duration,
    /// One call to the guest agent.
    pub agent: Duration,
    /// One call to the VMM.
    pub vmm: Duration,
    /// Connecting one standard stream.
    pub stream: Duration,
    /// Without a block of memory plugged or unplugged, while that is what the guest was asked for.
    pub memory: Duration,
    /// From SIGKILL to the end of the VMM process.
    pub kill: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(60),
            agent: Duration::from_secs(30),
            vmm: Duration::from_secs(15),
            stream: Duration::from_secs(15),
            memory: Duration::from_secs(5),
            kill: Duration::from_secs(10),
        }
    }
}

impl Deadlines {
    /// The defaults, multiplied by [`TIMEOUT_SCALE`] when that is a number from 0.1 to 100; anything else in it is
    /// reported to the log and taken as 1.
    #[must_use]
    pub fn from_env() -> Self {
        let Ok(text) = std::env::var(TIMEOUT_SCALE) else { return Self::default() };
        match parse_scale(&text) {
            Some(scale) => Self::default().scaled(scale),
            None => {
                tracing::warn!("{TIMEOUT_SCALE}={text:?} is not a number from 0.1 to 100; deadlines stay as they are");
                Self::default()
            }
        }
    }

    fn scaled(self, scale: f64) -> Self {
        Self {
            boot: self.boot.mul_f64(scale),
            agent: self.agent.mul_f64(scale),
            vmm: self.vmm.mul_f64(scale),
            stream: self.stream.mul_f64(scale),
            memory: self.memory.mul_f64(scale),
            kill: self.kill.mul_f64(scale),
        }
    }
}

fn parse_scale(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|scale| (0.1..=100.0).contains(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_multiplies_every_deadline() {
        let doubled = Deadlines::default().scaled(2.0);
        assert_eq!(doubled.boot, Duration::from_secs(120));
        assert_eq!(doubled.kill, Duration::from_secs(20));
    }

    #[test]
    fn a_senseless_scale_is_no_scale() {
        assert_eq!(parse_scale(" 2.5 "), Some(2.5));
        for bad in ["", "0", "-1", "nan", "inf", "1e9", "fast"] {
            assert_eq!(parse_scale(bad), None, "{bad}");
        }
    }
}
