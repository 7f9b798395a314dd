//! A time namespace: time_namespaces(7).

use std::os::fd::AsFd;

use husk_agent_api::v1::{ClockOffset, ClockOffsets};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::{Context, Error, Result};

/// Makes one and enters it. The agent's /proc must still be there.
pub(super) fn enter(clocks: &ClockOffsets) -> Result<()> {
    super::unshare(UnshareFlags::NEWTIME, "time namespace")?;
    let offsets = text(clocks);
    std::fs::write("/proc/self/timens_offsets", &offsets)
        .map_err(|error| Error::precondition(format!("clocks: the offsets {offsets:?} are refused: {error}")))?;
    // unshare(2) concerns only children; with this the process itself is in it, and the offsets are final.
    let path = "/proc/self/ns/time_for_children";
    let namespace = std::fs::File::open(path).on("open", path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Time)).on("setns", "time namespace")
}

/// The form of `/proc/PID/timens_offsets`.
fn text(clocks: &ClockOffsets) -> String {
    let line = |name: &str, offset: &Option<ClockOffset>| {
        let offset = offset.unwrap_or_default();
        format!("{name} {} {}\n", offset.seconds, offset.nanoseconds)
    };
    line("monotonic", &clocks.monotonic) + &line("boottime", &clocks.boottime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_written_as_the_kernel_reads_them() {
        let boottime = Some(ClockOffset { seconds: -7, nanoseconds: 5 });
        assert_eq!(text(&ClockOffsets { monotonic: None, boottime }), "monotonic 0 0\nboottime -7 5\n");
    }
}
