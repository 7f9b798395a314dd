//! The memory that a descriptor chain names, checked and in order.

use std::ops::Deref;

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestMemoryBackend, VolatileSlice};

use crate::memory::GuestRam;

/// What is wrong with a descriptor chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("it has no descriptor")]
    Empty,
    #[error("it leads to a descriptor that does not exist or is longer than the queue")]
    Broken,
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
    #[error("a descriptor lies outside guest memory")]
    Address,
    #[error("its buffers are shorter than the device needs")]
    Short,
}

/// A run of guest memory, in pieces.
#[derive(Clone, Debug, Default)]
pub struct Buffer<'m> {
    slices: Vec<VolatileSlice<'m>>,
    length: usize,
}

impl<'m> Buffer<'m> {
    pub(super) fn push(&mut self, slice: VolatileSlice<'m>) -> Result<(), ChainError> {
        self.length = self.length.checked_add(slice.len()).ok_or(ChainError::Broken)?;
        if !slice.is_empty() {
            self.slices.push(slice);
        }
        Ok(())
    }

    /// Bytes left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The pieces, none of them empty.
    #[must_use]
    pub fn slices(&self) -> &[VolatileSlice<'m>] {
        &self.slices
    }

    /// Splits off the first `count` bytes.
    pub fn split_front(&mut self, count: usize) -> Result<Buffer<'m>, ChainError> {
        let rest_length = self.length.checked_sub(count).ok_or(ChainError::Short)?;
        let mut front = Buffer::default();
        let mut rest = Buffer::default();
        let mut wanted = count;
        for slice in self.slices.drain(..) {
            let (head, tail) = slice.split_at(wanted.min(slice.len())).map_err(|_| ChainError::Short)?;
            wanted -= head.len();
            front.push(head)?;
            rest.push(tail)?;
        }
        debug_assert_eq!(rest.length, rest_length);
        *self = rest;
        Ok(front)
    }

    /// Splits off the last `count` bytes.
    pub fn split_back(&mut self, count: usize) -> Result<Buffer<'m>, ChainError> {
        let front_length = self.length.checked_sub(count).ok_or(ChainError::Short)?;
        let front = self.split_front(front_length)?;
        Ok(std::mem::replace(self, front))
    }

    /// Reads the first `N` bytes and goes beyond them. The bytes are copied once: the guest may change its memory
    /// meanwhile, so nothing is read twice.
    pub fn read<const N: usize>(&mut self) -> Result<[u8; N], ChainError> {
        let mut bytes = [0; N];
        let front = self.split_front(N)?;
        front.copy_to(&mut bytes);
        Ok(bytes)
    }

    /// Copies what fits into `bytes`; returns how much that was.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let mut rest = bytes;
        let mut copied = 0;
        for slice in &self.slices {
            let count = slice.copy_to(rest);
            copied += count;
            let (_, tail) = rest.split_at_mut(count);
            rest = tail;
        }
        copied
    }

    /// Copies as much of `bytes` as fits into the front; returns how much that was.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        let mut copied = 0;
        for slice in &self.slices {
            let count = rest.len().min(slice.len());
            let (now, later) = rest.split_at(count);
            if slice.write_slice(now, 0).is_err() {
                break;
            }
            copied += count;
            rest = later;
        }
        copied
    }
}

/// A descriptor chain's memory: first what the device reads, then what it writes.
#[derive(Clone, Debug, Default)]
pub struct Buffers<'m> {
    pub readable: Buffer<'m>,
    pub writable: Buffer<'m>,
}

impl<'m> Buffers<'m> {
    /// Walks a chain. Whatever the guest wrote into its descriptors, the result lies wholly in guest memory.
    ///
    /// `most` bounds the number of descriptors: indirect tables are not offered, so the queue's size is the limit
    /// (section 2.7.5.3.1) even where a chain claims such a table.
    pub fn gather<M>(chain: DescriptorChain<M>, memory: &'m GuestRam, most: u16) -> Result<Self, ChainError>
    where
        M: Deref<Target = GuestRam>,
    {
        let mut buffers = Self::default();
        let mut writing = false;
        let mut complete = None;
        for (index, descriptor) in chain.enumerate() {
            if index >= usize::from(most) {
                return Err(ChainError::Broken);
            }
            let length = usize::try_from(descriptor.len()).map_err(|_| ChainError::Broken)?;
            let target = match (descriptor.is_write_only(), writing) {
                (false, true) => return Err(ChainError::Order),
                (false, false) => &mut buffers.readable,
                (true, _) => {
                    writing = true;
                    &mut buffers.writable
                }
            };
            for slice in memory.get_slices(descriptor.addr(), length) {
                target.push(slice.map_err(|_| ChainError::Address)?)?;
            }
            complete = Some(!descriptor.has_next());
        }
        match complete {
            None => Err(ChainError::Empty),
            // The iterator gave up before the chain's own end.
            Some(false) => Err(ChainError::Broken),
            Some(true) => Ok(buffers),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use virtio_queue::desc::{RawDescriptor, split::Descriptor};
    use virtio_queue::mock::MockSplitQueue;
    use virtio_queue::{Queue, QueueT};
    use vm_memory::GuestAddress;

    use super::*;

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    /// Address, length, flags, next.
    type Raw = (u64, u32, u16, u16);

    fn ram() -> GuestRam {
        GuestRam::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap()
    }

    fn gather<'m>(ram: &'m GuestRam, descriptors: &[Raw]) -> Result<Buffers<'m>, ChainError> {
        let mock = MockSplitQueue::new(ram, 16);
        for (index, (address, length, flags, next)) in descriptors.iter().enumerate() {
            let raw = RawDescriptor::from(Descriptor::new(*address, *length, *flags, *next));
            mock.desc_table().store(u16::try_from(index).unwrap(), raw).unwrap();
        }
        mock.avail().ring().ref_at(0).unwrap().store(0);
        mock.avail().idx().store(1);
        let mut queue: Queue = mock.create_queue().unwrap();
        Buffers::gather(queue.pop_descriptor_chain(ram).unwrap(), ram, 16)
    }

    #[test]
    fn a_good_chain_is_split_into_its_directions() {
        let ram = ram();
        let buffers = gather(&ram, &[(0x1000, 16, NEXT, 1), (0x2000, 32, NEXT | WRITE, 2), (0x3000, 1, WRITE, 0)]);
        let buffers = buffers.unwrap();
        assert_eq!((buffers.readable.len(), buffers.writable.len()), (16, 33));
    }

    #[test]
    fn bad_chains_are_refused_with_their_reason() {
        let ram = ram();
        let cases: [(&[Raw], ChainError); 5] = [
            (&[(0x1000, 16, NEXT | WRITE, 1), (0x2000, 16, 0, 0)], ChainError::Order),
            (&[(0xf_fff0, 17, 0, 0)], ChainError::Address),
            (&[(u64::MAX, 16, 0, 0)], ChainError::Address),
            (&[(0x1000, 16, NEXT, 16)], ChainError::Broken),
            (&[(0x1000, 16, NEXT, 0)], ChainError::Broken),
        ];
        for (descriptors, reason) in cases {
            assert_eq!(gather(&ram, descriptors).unwrap_err(), reason, "{descriptors:?}");
        }
    }

    #[test]
    fn splitting_beyond_the_end_is_short_and_takes_nothing() {
        let ram = ram();
        let mut buffer = gather(&ram, &[(0x1000, 16, 0, 0)]).unwrap().readable;
        assert_eq!(buffer.split_front(17).unwrap_err(), ChainError::Short);
        assert_eq!(buffer.split_back(17).unwrap_err(), ChainError::Short);
        assert_eq!(buffer.len(), 16);
    }

    proptest! {
        #[test]
        fn bytes_survive_any_partition(pieces in prop::collection::vec(1_u32..64, 1..12), at in 0_usize..64) {
            let ram = ram();
            let last = pieces.len() - 1;
            let descriptors: Vec<_> = pieces.iter().enumerate().map(|(index, length)| {
                let next = u16::try_from(index + 1).unwrap();
                (0x1000 + 0x100 * index as u64, *length, if index == last { WRITE } else { WRITE | NEXT }, next)
            }).collect();
            let mut buffer = gather(&ram, &descriptors).unwrap().writable;
            let total = buffer.len();
            let bytes: Vec<u8> = (0..=255).cycle().take(total).collect();
            prop_assert_eq!(buffer.copy_from(&bytes), total);
            let at = at.min(total);
            let back = buffer.split_back(total - at).unwrap();
            let mut read = vec![0; total];
            prop_assert_eq!(buffer.copy_to(&mut read), at);
            prop_assert_eq!(back.copy_to(&mut read[at..]), total - at);
            prop_assert_eq!(read, bytes);
        }

        #[test]
        fn arbitrary_descriptors_never_panic(
            raw in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u16>(), 0_u16..20), 1..16)
        ) {
            let ram = ram();
            let _ = gather(&ram, &raw);
            let near: Vec<_> = raw.iter().map(|d| (d.0 % 0x12_0000, d.1 % 0x8000, d.2, d.3)).collect();
            let _ = gather(&ram, &near);
        }
    }
}
