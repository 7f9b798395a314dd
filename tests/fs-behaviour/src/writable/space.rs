//! A full file system. The last checks, because what is full is full for others.

use std::fs;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use crate::kit::{Check, file, update};
use crate::text::{see, show, words};

/// Takes all space there is, in ever smaller pieces.
fn fill(file: &fs::File) -> String {
    let (mut end, mut piece) = (0, 1_u64 << 36);
    loop {
        match fallocate(file, FallocateFlags::empty(), end, piece) {
            Ok(()) => end += piece,
            Err(error) if piece == 4096 => return crate::text::name(&error.into()),
            Err(_) => piece /= 2,
        }
    }
}

pub(crate) const CHECKS: &[Check] = &[
    ("space/none-left", || {
        let small = update("small")?;
        small.write_at(b"before", 0)?;
        small.sync_all()?;
        let file = update("f")?;
        let filled = fill(&file);
        let wrote = show(update("new").and_then(|new| new.write_at(&[1; 1 << 16], 0)));
        words([filled, wrote, see(small.write_at(b"within", 0)), crate::kit::read("small")])
    }),
    ("space/none-left-and-appended", || {
        let file = update("f")?;
        let filled = fill(&file);
        // Page by page up to the error: what was accepted before must be there.
        let new = update("new")?;
        let mut accepted = 0_u64;
        let error = loop {
            match new.write_at(&[7; 4096], accepted) {
                Ok(count) => accepted += count as u64,
                Err(error) => break crate::text::name(&error),
            }
            if accepted > 64 << 20 {
                break "still accepts".to_owned();
            }
        };
        let kept = fs::metadata("new")?.len() == accepted;
        words([filled, error, kept.to_string()])
    }),
    ("space/comes-back", || {
        let filled = fill(&update("f")?);
        fs::remove_file("f")?;
        let mut wrote = String::new();
        // Space of a removed file may take a moment.
        for _ in 0..20 {
            wrote = see(update("new").and_then(|new| new.write_at(&[1; 1 << 16], 0)));
            if wrote == "ok" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        words([filled, wrote, see(file("more"))])
    }),
];
