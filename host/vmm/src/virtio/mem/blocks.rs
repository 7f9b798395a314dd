//! Which blocks of the region are plugged, and how many shall be.

use super::BLOCK;
use super::request::{BlockState, Range, Response};
use crate::memory::Hotplug;

/// Why so much cannot be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("{mib} MiB cannot be plugged: ask for a multiple of {} MiB", BLOCK >> 20)]
    Unit { mib: u64 },
    #[error("{mib} MiB cannot be plugged: the VM was booted with room for {most} MiB")]
    TooMuch { mib: u64, most: u64 },
}

/// The region at a glance, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryState {
    pub size: u64,
    /// What the guest shall have plugged.
    pub requested: u64,
    /// What it has.
    pub plugged: u64,
}

/// Blocks of the region by their numbers, checked.
type Checked = std::ops::Range<usize>;

#[derive(Debug)]
pub(super) struct Blocks {
    region: Hotplug,
    requested: u64,
    plugged: Vec<bool>,
    plugged_size: u64,
}

impl Blocks {
    /// None is plugged.
    pub(super) fn new(region: Hotplug) -> Self {
        let count = usize::try_from(region.size / BLOCK).unwrap_or(0);
        Self { region, requested: 0, plugged: vec![false; count], plugged_size: 0 }
    }

    pub(super) fn region(&self) -> Hotplug {
        self.region
    }

    pub(super) fn state(&self) -> MemoryState {
        MemoryState { size: self.region.size, requested: self.requested, plugged: self.plugged_size }
    }

    /// `struct virtio_mem_config` (section 5.15.4). All of the region is usable always.
    pub(super) fn config(&self) -> Vec<u8> {
        // node_id and padding, between block_size and addr, are for several nodes, which the machine has not.
        let usable = self.region.size;
        [BLOCK, 0, self.region.address, self.region.size, usable, self.plugged_size, self.requested]
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    pub(super) fn request(&mut self, mib: u64) -> Result<(), RequestError> {
        let most = self.region.size >> 20;
        if mib > most {
            return Err(RequestError::TooMuch { mib, most });
        }
        let bytes = mib << 20;
        if !bytes.is_multiple_of(BLOCK) {
            return Err(RequestError::Unit { mib });
        }
        self.requested = bytes;
        Ok(())
    }

    /// The blocks that the guest means, if they are blocks of the region.
    fn check(&self, range: Range) -> Option<Checked> {
        let offset = range.address.checked_sub(self.region.address)?;
        if range.blocks == 0 || !offset.is_multiple_of(BLOCK) {
            return None;
        }
        let first = usize::try_from(offset / BLOCK).ok()?;
        let end = first.checked_add(usize::from(range.blocks))?;
        (end <= self.plugged.len()).then_some(first..end)
    }

    /// The blocks if every one is plugged, or not, as `plugged` says.
    fn all(&self, range: Range, plugged: bool) -> Option<Checked> {
        let blocks = self.check(range)?;
        self.plugged.get(blocks.clone())?.iter().all(|is| *is == plugged).then_some(blocks)
    }

    fn mark(&mut self, blocks: Checked, plugged: bool) {
        for block in self.plugged.get_mut(blocks).into_iter().flatten() {
            *block = plugged;
        }
        let count = self.plugged.iter().filter(|plugged| **plugged).count();
        self.plugged_size = u64::try_from(count).unwrap_or(0).saturating_mul(BLOCK);
    }

    pub(super) fn plug(&mut self, range: Range) -> Response {
        let Some(blocks) = self.all(range, false) else { return Response::Error };
        let size = u64::from(range.blocks).saturating_mul(BLOCK);
        if self.plugged_size.saturating_add(size) > self.requested {
            return Response::Nack;
        }
        self.mark(blocks, true);
        Response::Ack
    }

    /// Whether these blocks can be unplugged: all of them are plugged.
    pub(super) fn are_plugged(&self, range: Range) -> bool {
        self.all(range, true).is_some()
    }

    /// After their memory was given back.
    pub(super) fn unplug(&mut self, range: Range) {
        if let Some(blocks) = self.check(range) {
            self.mark(blocks, false);
        }
    }

    pub(super) fn unplug_all(&mut self) {
        self.mark(0..self.plugged.len(), false);
    }

    pub(super) fn state_of(&self, range: Range) -> Response {
        let Some(blocks) = self.check(range).and_then(|blocks| self.plugged.get(blocks)) else {
            return Response::Error;
        };
        Response::AckState(match (blocks.contains(&true), blocks.contains(&false)) {
            (true, true) => BlockState::Mixed,
            (true, false) => BlockState::Plugged,
            _ => BlockState::Unplugged,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REGION: Hotplug = Hotplug { address: 4 << 30, size: 128 << 20 };

    fn range(block: u64, blocks: u16) -> Range {
        Range { address: REGION.address + block * BLOCK, blocks }
    }

    fn requested(mib: u64) -> Blocks {
        let mut blocks = Blocks::new(REGION);
        blocks.request(mib).unwrap();
        blocks
    }

    #[test]
    fn no_more_than_what_is_requested_can_be_plugged() {
        let mut blocks = requested(8);
        assert_eq!(blocks.plug(range(0, 5)), Response::Nack);
        assert_eq!(blocks.plug(range(60, 3)), Response::Ack);
        assert_eq!(blocks.plug(range(0, 2)), Response::Nack);
        assert_eq!(blocks.plug(range(0, 1)), Response::Ack);
        assert_eq!(blocks.state(), MemoryState { size: 128 << 20, requested: 8 << 20, plugged: 8 << 20 });
        // Less is requested: what is plugged stays until the guest unplugs it.
        blocks.request(0).unwrap();
        assert_eq!(blocks.plug(range(1, 1)), Response::Nack);
        assert_eq!(blocks.state().plugged, 8 << 20);
    }

    #[test]
    fn blocks_change_only_from_the_other_state() {
        let mut blocks = requested(128);
        assert_eq!(blocks.plug(range(4, 4)), Response::Ack);
        assert_eq!(blocks.plug(range(7, 2)), Response::Error);
        assert!(blocks.are_plugged(range(4, 4)));
        assert!(!blocks.are_plugged(range(3, 2)));
        assert_eq!(blocks.state_of(range(3, 2)), Response::AckState(BlockState::Mixed));
        assert_eq!(blocks.state_of(range(4, 4)), Response::AckState(BlockState::Plugged));
        blocks.unplug(range(5, 1));
        assert_eq!(blocks.state().plugged, 6 << 20);
        blocks.unplug_all();
        assert_eq!(blocks.state_of(range(0, 64)), Response::AckState(BlockState::Unplugged));
    }

    #[test]
    fn ranges_outside_the_region_or_between_blocks_are_errors() {
        let mut blocks = requested(128);
        for (address, count) in [
            (0, 1),
            (REGION.address - BLOCK, 1),
            (REGION.address, 0),
            (REGION.address + 1, 1),
            (REGION.address + 4096, 1),
            (REGION.address, 65),
            (REGION.address + REGION.size, 1),
            (REGION.address + REGION.size - BLOCK, 2),
            (u64::MAX - BLOCK + 1, u16::MAX),
            (u64::MAX, 1),
        ] {
            let range = Range { address, blocks: count };
            assert_eq!(blocks.plug(range), Response::Error, "{range:?}");
            assert_eq!(blocks.state_of(range), Response::Error, "{range:?}");
            assert!(!blocks.are_plugged(range), "{range:?}");
        }
    }

    #[test]
    fn whole_blocks_up_to_the_region_can_be_requested() {
        let mut blocks = Blocks::new(REGION);
        assert_eq!(blocks.request(3), Err(RequestError::Unit { mib: 3 }));
        assert_eq!(blocks.request(130), Err(RequestError::TooMuch { mib: 130, most: 128 }));
        assert_eq!(blocks.request(u64::MAX), Err(RequestError::TooMuch { mib: u64::MAX, most: 128 }));
        blocks.request(128).unwrap();
    }

    #[test]
    fn the_configuration_is_laid_out_as_linux_reads_it() {
        let mut blocks = requested(4);
        blocks.plug(range(0, 1));
        let config = blocks.config();
        let field = |at: usize| u64::from_le_bytes(config[at..at + 8].try_into().unwrap());
        assert_eq!(config.len(), 56);
        assert_eq!((field(0), field(16), field(24), field(32)), (BLOCK, 4 << 30, 128 << 20, 128 << 20));
        assert_eq!((field(40), field(48)), (2 << 20, 4 << 20));
    }

    fn any_range() -> impl Strategy<Value = Range> {
        let near = (0_u64..70, 0_u16..70, 0_u64..2).prop_map(|(block, blocks, odd)| Range {
            address: (REGION.address - BLOCK + block * BLOCK).saturating_add(odd * 4096),
            blocks,
        });
        let far = (any::<u64>(), any::<u16>()).prop_map(|(address, blocks)| Range { address, blocks });
        prop_oneof![8 => near, 1 => far]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Plug(Range),
        Unplug(Range),
        UnplugAll,
        Request(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => any_range().prop_map(Step::Plug),
            8 => any_range().prop_map(Step::Unplug),
            1 => Just(Step::UnplugAll),
            4 => (0_u64..140).prop_map(Step::Request),
        ]
    }

    proptest! {
        /// Whatever is asked: the sum is that of the blocks, and nothing is plugged beyond what was requested then.
        #[test]
        fn no_sequence_of_requests_loses_count(steps in prop::collection::vec(any_step(), 1..40)) {
            let mut blocks = Blocks::new(REGION);
            for step in steps {
                let before = blocks.state();
                match step {
                    Step::Plug(range) => {
                        if blocks.plug(range) == Response::Ack {
                            prop_assert!(blocks.state().plugged <= before.requested);
                            prop_assert!(blocks.are_plugged(range));
                        } else {
                            prop_assert_eq!(blocks.state(), before);
                        }
                    }
                    Step::Unplug(range) => {
                        if blocks.are_plugged(range) {
                            blocks.unplug(range);
                            prop_assert_eq!(before.plugged - blocks.state().plugged, u64::from(range.blocks) * BLOCK);
                        }
                    }
                    Step::UnplugAll => blocks.unplug_all(),
                    Step::Request(mib) => drop(blocks.request(mib)),
                }
                let plugged = blocks.plugged.iter().filter(|plugged| **plugged).count();
                prop_assert_eq!(blocks.state().plugged, u64::try_from(plugged).unwrap() * BLOCK);
            }
        }
    }
}
