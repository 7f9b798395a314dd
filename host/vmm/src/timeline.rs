//! When the steps of a boot were reached.

use std::time::Instant;

use husk_vmm_control::Timeline;

/// Counts from the start of the process.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    timeline: Timeline,
}

impl Clock {
    /// `start` is when the process began.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self { start, timeline: Timeline::default() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The boot request has been read.
    pub fn requested(&mut self) {
        self.timeline.requested_us = self.now();
    }

    /// VM, memory and interrupt controllers exist.
    pub fn vm_created(&mut self) {
        self.timeline.vm_created_us = self.now();
    }

    /// Everything is in place.
    pub fn loaded(&mut self) {
        self.timeline.loaded_us = self.now();
    }

    /// The boot CPU enters the guest.
    pub fn started(&mut self) {
        self.timeline.started_us = self.now();
    }

    /// The agent is ready. Gives the whole timeline.
    pub fn ready(&mut self) -> Timeline {
        self.timeline.ready_us = self.now();
        self.timeline
    }
}
