//! The device-specific configuration space (section 2.5).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the driver reads. Clones share it: the transport reads, the device may change it.
#[derive(Clone, Debug)]
pub struct ConfigSpace(Arc<Mutex<Content>>);

#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    generation: u32,
}

impl From<Vec<u8>> for ConfigSpace {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Content { bytes, generation: 0 })))
    }
}

impl ConfigSpace {
    fn lock(&self) -> MutexGuard<'_, Content> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from `offset` on; what lies beyond the end is 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let content = self.lock();
        let rest = usize::try_from(offset).ok().and_then(|offset| content.bytes.get(offset..)).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(rest) {
            *to = *from;
        }
    }

    /// Another number after every change, so that a driver which reads a field in several accesses sees that it must
    /// read again (section 2.5.1).
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.lock().generation
    }

    /// All of it.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Replaces the content.
    pub fn set(&self, bytes: Vec<u8>) {
        let mut content = self.lock();
        if content.bytes != bytes {
            content.bytes = bytes;
            content.generation = content.generation.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_and_changes_the_generation() {
        let config = ConfigSpace::from(vec![1, 2, 3]);
        let seen = config.clone();
        let mut data = [9; 2];
        seen.read(2, &mut data);
        assert_eq!(data, [3, 0]);
        config.set(vec![1, 2, 3]);
        assert_eq!(seen.generation(), 0);
        config.set(vec![1, 2, 4]);
        seen.read(1, &mut data);
        assert_eq!((data, seen.generation()), ([2, 4], 1));
        seen.read(u64::MAX, &mut data);
        assert_eq!(data, [0, 0]);
    }
}
