//! Inode numbers that are unique across exports.
//!
//! The guest sees one file system with one device number, so two files of different host file systems may not show the
//! same inode number. A number keeps its lower 48 bits; the upper 16 become the place of (export, device, upper bits) in
//! a table. Most file systems never use the upper bits, so the table has a row per export and file system.

use std::collections::HashMap;

use rustix::io::Errno;

use crate::host::{Result, Stat};

const LOWER_BITS: u32 = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Prefix {
    export: u32,
    device: (u32, u32),
    upper: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Numbers {
    places: HashMap<Prefix, u16>,
}

impl Numbers {
    /// The number to show for an object.
    pub(crate) fn of(&mut self, export: u32, stat: &Stat) -> Result<u64> {
        self.number(export, stat.device, stat.inode)
    }

    pub(crate) fn number(&mut self, export: u32, device: (u32, u32), inode: u64) -> Result<u64> {
        let prefix = Prefix { export, device, upper: inode >> LOWER_BITS };
        let place = match self.places.get(&prefix) {
            Some(place) => *place,
            None => {
                // Place 0 is the synthetic root's.
                let place = u16::try_from(self.places.len() + 1).map_err(|_| Errno::OVERFLOW)?;
                self.places.insert(prefix, place);
                place
            }
        };
        let lower = inode & ((1 << LOWER_BITS) - 1);
        Ok(lower | (u64::from(place) << LOWER_BITS))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn equal_numbers_of_different_places_become_different() {
        let mut numbers = Numbers::default();
        let mut seen = HashSet::new();
        for export in 0..3 {
            for device in [(0, 1), (8, 1)] {
                for inode in [2, 2 | (1 << 48), 2 | (1 << 63), u64::MAX] {
                    let number = numbers.number(export, device, inode).unwrap();
                    assert!(seen.insert(number), "{number:#x}");
                    assert_eq!(numbers.number(export, device, inode).unwrap(), number);
                }
            }
        }
    }

    #[test]
    fn a_full_table_refuses_instead_of_repeating() {
        let mut numbers = Numbers::default();
        for upper in 0..u64::from(u16::MAX) {
            numbers.number(0, (0, u32::try_from(upper).unwrap()), 1).unwrap();
        }
        assert_eq!(numbers.number(1, (0, 0), 1), Err(Errno::OVERFLOW));
    }
}
