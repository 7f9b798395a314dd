//! flock(2), record locks of processes and of open files, leases.

use std::fs::File;

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::kit::{Check, elsewhere, open, update};
use crate::sys::{self, Locks, beside, lock};
use crate::text::{see, words};

const READ: i32 = libc::F_RDLCK;
const WRITE: i32 = libc::F_WRLCK;
const NONE: i32 = libc::F_UNLCK;

fn try_flock(file: &File, how: FlockOperation) -> String {
    see(flock(file, how))
}

fn process(file: &File, kind: i32, start: i64, length: i64) -> String {
    see(lock(file, Locks::Process, kind, start, length, false))
}

fn description(file: &File, kind: i32, start: i64, length: i64) -> String {
    see(lock(file, Locks::Description, kind, start, length, false))
}

/// What another process gets.
fn other_gets(kind: i32, start: i64, length: i64) -> String {
    elsewhere(|| Ok(process(&update("f")?, kind, start, length)))
}

pub(crate) const CHECKS: &[Check] = &[
    ("flock/exclusive", || {
        let (a, b) = (update("f")?, update("f")?);
        words([
            try_flock(&a, FlockOperation::NonBlockingLockExclusive),
            try_flock(&b, FlockOperation::NonBlockingLockExclusive),
            try_flock(&b, FlockOperation::NonBlockingLockShared),
            try_flock(&a, FlockOperation::Unlock),
            try_flock(&b, FlockOperation::NonBlockingLockExclusive),
        ])
    }),
    ("flock/shared", || {
        let (a, b) = (update("f")?, update("f")?);
        words([
            try_flock(&a, FlockOperation::NonBlockingLockShared),
            try_flock(&b, FlockOperation::NonBlockingLockShared),
            try_flock(&b, FlockOperation::NonBlockingLockExclusive),
        ])
    }),
    ("flock/between-processes", || {
        let file = update("f")?;
        flock(&file, FlockOperation::LockExclusive)?;
        let held = elsewhere(|| Ok(try_flock(&update("f")?, FlockOperation::NonBlockingLockExclusive)));
        drop(file);
        let free = elsewhere(|| Ok(try_flock(&update("f")?, FlockOperation::NonBlockingLockExclusive)));
        words([held, free])
    }),
    ("flock/held-by-a-duplicate", || {
        let file = update("f")?;
        flock(&file, FlockOperation::LockExclusive)?;
        let copy = sys::duplicate(&file)?;
        drop(file);
        let held = try_flock(&update("f")?, FlockOperation::NonBlockingLockExclusive);
        drop(copy);
        words([held, try_flock(&update("f")?, FlockOperation::NonBlockingLockExclusive)])
    }),
    ("flock/waits", || {
        let file = update("f")?;
        flock(&file, FlockOperation::LockExclusive)?;
        let waiting = beside(|| {
            let file = update("f").unwrap();
            flock(&file, FlockOperation::LockExclusive).unwrap();
            std::fs::write("order", "second").unwrap();
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        let early = crate::kit::there("order").to_owned();
        flock(&file, FlockOperation::Unlock)?;
        words([early, waiting.ended_well().to_string(), crate::kit::read("order")])
    }),
    ("flock/of-a-directory", || {
        let (a, b) = (open(".", OFlags::RDONLY)?, open(".", OFlags::RDONLY)?);
        let how = FlockOperation::NonBlockingLockExclusive;
        words([try_flock(&a, how), try_flock(&b, how)])
    }),
    ("record/of-processes", || {
        let file = update("f")?;
        let mine = process(&file, WRITE, 0, 100);
        words([mine, other_gets(WRITE, 50, 10), other_gets(READ, 50, 10), other_gets(WRITE, 100, 10)])
    }),
    ("record/shared", || {
        let file = update("f")?;
        let mine = process(&file, READ, 0, 0);
        words([mine, other_gets(READ, 5, 5), other_gets(WRITE, 5, 5)])
    }),
    ("record/partly-given-back", || {
        let file = update("f")?;
        process(&file, WRITE, 0, 100);
        process(&file, NONE, 40, 20);
        words([other_gets(WRITE, 45, 5), other_gets(WRITE, 30, 5), other_gets(WRITE, 70, 5)])
    }),
    ("record/lost-with-any-descriptor", || {
        let file = update("f")?;
        process(&file, WRITE, 0, 100);
        drop(update("f")?);
        Ok(other_gets(WRITE, 0, 100))
    }),
    ("record/who-is-in-the-way", || {
        let file = update("f")?;
        process(&file, WRITE, 10, 10);
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        Ok(elsewhere(|| {
            let (kind, owner) = sys::lock_in_the_way(&update("f")?, 0, 100)?;
            let free = sys::lock_in_the_way(&update("f")?, 50, 10)?.0;
            words([
                (i32::from(kind) == WRITE).to_string(),
                (owner == me).to_string(),
                (i32::from(free) == NONE).to_string(),
            ])
        }))
    }),
    ("record/needs-an-open-mode", || {
        update("f")?;
        let (reader, writer) = (open("f", OFlags::RDONLY)?, open("f", OFlags::WRONLY)?);
        words([process(&reader, WRITE, 0, 1), process(&writer, READ, 0, 1)])
    }),
    ("record/waits", || {
        let file = update("f")?;
        process(&file, WRITE, 0, 1);
        let waiting = beside(|| {
            let file = update("f").unwrap();
            lock(&file, Locks::Process, WRITE, 0, 1, true).unwrap();
            std::fs::write("order", "second").unwrap();
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        let early = crate::kit::there("order").to_owned();
        process(&file, NONE, 0, 1);
        words([early, waiting.ended_well().to_string(), crate::kit::read("order")])
    }),
    ("record/of-open-files", || {
        let (a, b) = (update("f")?, update("f")?);
        let first = description(&a, WRITE, 0, 10);
        let second = description(&b, WRITE, 5, 1);
        drop(update("f")?);
        words([first, second, description(&b, WRITE, 5, 1), description(&b, WRITE, 10, 1)])
    }),
    ("record/of-open-files-and-processes", || {
        let (a, b) = (update("f")?, update("f")?);
        words([process(&a, WRITE, 0, 10), description(&b, WRITE, 0, 10), description(&b, READ, 20, 1)])
    }),
    ("record/beyond-four-gibibytes", || {
        let file = update("f")?;
        let mine = process(&file, WRITE, 1 << 40, 1);
        words([mine, other_gets(WRITE, 1 << 40, 1), other_gets(WRITE, (1 << 40) + 1, 1)])
    }),
    ("record/beside-flock", || {
        let (a, b) = (update("f")?, update("f")?);
        words([
            try_flock(&a, FlockOperation::NonBlockingLockExclusive),
            process(&b, WRITE, 0, 0),
            other_gets(WRITE, 0, 0),
        ])
    }),
    ("lease/read-and-write", || {
        update("f")?;
        let file = open("f", OFlags::RDONLY)?;
        let reads = see(sys::set_lease(&file, READ));
        let gives_back = see(sys::set_lease(&file, NONE));
        words([reads, gives_back, see(sys::set_lease(&file, WRITE))])
    }),
];
