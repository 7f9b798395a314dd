//! The guest's wall clock follows the host's.
//!
//! Between two looks it runs on KVM's clock, at the rate of the host's hardware: what NTP corrects on the host, and what
//! the host slept, it learns from here.

use std::io;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::agent::{Agent, AgentError};
use crate::vmm::ended_now;

/// Between two looks, in seconds; hardware that is wrong by 50 ppm makes 3 ms of it.
const INTERVAL: i64 = 60;
/// What is not worth a correction, in nanoseconds.
const TOLERANCE: u64 = 1_000_000;

/// Corrects the guest's clock now, every minute, and at once when the host's is set or the host wakes up. Ends with the VM.
pub(super) async fn keep_in_step(agent: Agent) {
    let mut ended = agent.ended();
    let keeping = async {
        let alarm = match Alarm::new() {
            Ok(alarm) => alarm,
            Err(error) => return tracing::warn!(%error, "the guest's clock is not kept in step: no timer"),
        };
        loop {
            match correct(&agent).await {
                Ok(0) => {}
                Ok(offset_ns) => tracing::debug!(offset_ns, "guest clock corrected"),
                Err(error) => tracing::debug!(%error, "guest clock not corrected"),
            }
            if let Err(error) = alarm.wait().await {
                return tracing::warn!(%error, "the guest's clock is not kept in step: the timer failed");
            }
        }
    };
    tokio::select! {
        () = keeping => {}
        _ = ended_now(&mut ended) => {}
    }
}

/// One look, and a correction by the nanoseconds that are returned.
async fn correct(agent: &Agent) -> Result<i64, AgentError> {
    let asked = now();
    let guest = agent.adjust_clock(0).await?;
    let offset = offset(asked, guest, now());
    if offset != 0 {
        agent.adjust_clock(offset).await?;
    }
    Ok(offset)
}

/// What the guest's clock lacks, in nanoseconds; 0 when that may as well be the way of the question and its answer.
fn offset(asked: u64, guest: u64, answered: u64) -> i64 {
    // When the host's clock was set between the two, the next look is near.
    let way = answered.saturating_sub(asked);
    let middle = asked.saturating_add(way / 2);
    let missing = i128::from(middle) - i128::from(guest);
    if missing.unsigned_abs() <= u128::from(TOLERANCE.max(way / 2)) {
        return 0;
    }
    i64::try_from(missing).unwrap_or(if missing < 0 { i64::MIN } else { i64::MAX })
}

/// CLOCK_REALTIME, in nanoseconds since the epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A timer on the wall clock that also fires when that clock is set (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`).
#[derive(Debug)]
struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: `AsyncFd` owns the descriptor, and nothing here takes it out or closes it before `AsyncFd` goes.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self(timer))
    }

    /// Returns after [`INTERVAL`], or when the clock was set.
    async fn wait(&self) -> io::Result<()> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let at = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: now.tv_sec.saturating_add(INTERVAL), tv_nsec: now.tv_nsec },
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &at)?;
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut [0; 8]) {
                Ok(_) | Err(Errno::CANCELED) => return Ok(()),
                Err(Errno::AGAIN | Errno::INTR) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_the_way_explains_is_left_alone() {
        assert_eq!(offset(100 * SECOND, 100 * SECOND, 100 * SECOND), 0);
        assert_eq!(offset(100 * SECOND, 100 * SECOND, 102 * SECOND), 0);
        assert_eq!(offset(100 * SECOND, 102 * SECOND, 102 * SECOND), 0);
    }

    #[test]
    fn the_middle_of_the_way_is_when_the_guest_looked() {
        assert_eq!(offset(100 * SECOND, 90 * SECOND, 102 * SECOND), 11_000_000_000);
        assert_eq!(offset(100 * SECOND, 110 * SECOND, 102 * SECOND), -9_000_000_000);
        // A clock that was set back meanwhile.
        assert_eq!(offset(100 * SECOND, 100 * SECOND, 40 * SECOND), 0);
    }

    #[test]
    fn no_answer_of_a_guest_overflows() {
        assert_eq!(offset(SECOND, u64::MAX, SECOND), i64::MIN);
        assert_eq!(offset(u64::MAX, 0, u64::MAX), i64::MAX);
    }

    #[tokio::test]
    async fn an_alarm_waits() {
        let alarm = Alarm::new().unwrap();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), alarm.wait()).await;
        assert!(waited.is_err(), "{waited:?}");
    }
}
