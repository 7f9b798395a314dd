//! The guest's wall clock, which the host keeps in step with its own.

use rustix::time::ClockId;

use crate::error::{Context as _, Result};
use crate::sys;

/// From here on a clock is set, below it is slewed (ntpd's limit, RFC 5905 section 12): programs see small differences as a
/// clock that goes a little faster or slower.
const STEP_NS: u64 = 128_000_000;

/// CLOCK_REALTIME, in nanoseconds since the epoch.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default())
}

/// Moves the clock by so many nanoseconds.
pub fn adjust(offset_ns: i64) -> Result<()> {
    let adjusted =
        if offset_ns.unsigned_abs() < STEP_NS { sys::slew_clock(offset_ns / 1000) } else { sys::step_clock(offset_ns) };
    adjusted.on("adjtimex", format_args!("{offset_ns} ns"))
}
