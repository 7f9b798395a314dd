//! Contents: appending, truncating, holes, allocation, copying.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{FallocateFlags, OFlags, copy_file_range, fallocate, seek};

use crate::kit::{Check, elsewhere, open, pattern, read, update};
use crate::text::{see, show, words};

/// Of what a hole is made, on every file system here.
const BLOCK: u64 = 4096;

fn append(name: &str) -> std::io::Result<fs::File> {
    open(name, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
}

fn allocate(name: &str, mode: FallocateFlags, offset: u64, length: u64) -> std::io::Result<String> {
    Ok(see(fallocate(&update(name)?, mode, offset, length)))
}

fn size(name: &str) -> std::io::Result<String> {
    Ok(fs::metadata(name)?.len().to_string())
}

/// Three blocks: data, hole, data.
fn with_hole(name: &str) -> std::io::Result<fs::File> {
    let file = update(name)?;
    file.write_at(&[1; 4096], 0)?;
    file.write_at(&[3; 4096], 2 * BLOCK)?;
    file.sync_all()?;
    Ok(file)
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect()
}

/// The first byte of each block.
fn blocks(name: &str) -> std::io::Result<String> {
    Ok(digits(&fs::read(name)?.chunks(4096).filter_map(|block| block.first().copied()).collect::<Vec<_>>()))
}

pub(crate) const CHECKS: &[Check] = &[
    ("data/comes-back", || {
        let bytes = pattern(3_000_001);
        fs::write("f", &bytes)?;
        Ok((fs::read("f")? == bytes).to_string())
    }),
    ("data/small-writes-at-any-place", || {
        let bytes = pattern(20_000);
        let file = update("f")?;
        // 7919 is prime to the number of pieces: each is written once, out of order.
        for n in 0..2000_u64 {
            let piece = (n * 7919) % 2000;
            let at = usize::try_from(piece).unwrap() * 10;
            file.write_at(&bytes[at..at + 10], piece * 10)?;
        }
        Ok((fs::read("f")? == bytes).to_string())
    }),
    ("data/overwritten-in-the-middle", || {
        fs::write("f", "0123456789")?;
        update("f")?.write_at(b"xyz", 4)?;
        Ok(read("f"))
    }),
    ("data/seen-by-another-descriptor", || {
        let (writer, reader) = (update("f")?, update("f")?);
        let mut seen = Vec::new();
        for n in 0..5_u8 {
            writer.write_at(&[b'0' + n], u64::from(n))?;
            let mut room = [0; 10];
            let count = reader.read_at(&mut room, 0)?;
            seen.push(String::from_utf8_lossy(&room[..count]).into_owned());
        }
        Ok(seen.join(" "))
    }),
    ("data/seen-by-another-process", || {
        let writer = update("f")?;
        writer.write_at(b"one", 0)?;
        let first = elsewhere(|| Ok(read("f")));
        writer.write_at(b"two!", 0)?;
        words([first, elsewhere(|| Ok(read("f")))])
    }),
    ("append/to-the-end", || {
        fs::write("f", "a")?;
        append("f")?.write_all(b"b")?;
        let mut file = append("f")?;
        file.rewind()?;
        file.write_all(b"c")?;
        Ok(read("f"))
    }),
    ("append/two-descriptors-in-turn", || {
        let (mut a, mut b) = (append("f")?, append("f")?);
        for _ in 0..5 {
            a.write_all(b"a")?;
            b.write_all(b"b")?;
        }
        Ok(read("f"))
    }),
    ("append/four-processes", || {
        const LINES: usize = 200;
        let line = |n: usize| format!("{}\n", char::from(b'a' + u8::try_from(n).unwrap()).to_string().repeat(99));
        let writers: Vec<_> = (0..4)
            .map(|n| {
                crate::sys::beside(move || {
                    let mut file = append("f").unwrap();
                    (0..LINES).for_each(|_| file.write_all(line(n).as_bytes()).unwrap());
                })
            })
            .collect();
        let fine =
            writers.into_iter().filter(|_| true).map(crate::sys::Beside::ended_well).filter(|fine| *fine).count();
        let text = fs::read_to_string("f")?;
        let whole = text.split_inclusive('\n').filter(|found| (0..4).any(|n| *found == line(n))).count();
        words([fine.to_string(), whole.to_string(), text.len().to_string()])
    }),
    ("append/at-a-given-place", || {
        // pwrite(2): on Linux an appending descriptor appends, whatever the place.
        append("f")?.write_all(b"0123456789")?;
        append("f")?.write_at(b"x", 2)?;
        Ok(read("f"))
    }),
    ("truncate/down-and-up", || {
        fs::write("f", "0123456789")?;
        let file = update("f")?;
        file.set_len(4)?;
        file.set_len(8)?;
        words([digits(&fs::read("f")?[4..]), read("f").trim_end_matches('\0').to_owned()])
    }),
    ("truncate/within-a-page", || {
        fs::write("f", vec![7; 5000])?;
        update("f")?.set_len(4097)?;
        update("f")?.set_len(8192)?;
        let bytes = fs::read("f")?;
        words([bytes.iter().filter(|byte| **byte == 7).count().to_string(), bytes.len().to_string()])
    }),
    ("truncate/by-path", || {
        fs::write("f", "0123456789")?;
        let cut = |name: &str, length| see(crate::sys::truncate(name, length));
        fs::create_dir("d")?;
        words([cut("f", 3), read("f"), cut("d", 0), cut("none", 0), cut("f", -1)])
    }),
    ("truncate/then-write-where-it-was", || {
        let mut file = update("f")?;
        file.write_all(b"0123456789")?;
        file.set_len(0)?;
        file.write_all(b"x")?;
        words([size("f")?, digits(&fs::read("f")?[..10])])
    }),
    ("truncate/beyond-the-limit", || {
        Ok(elsewhere(|| {
            crate::sys::ignore_file_size_signal();
            let limit = rustix::process::Rlimit { current: Some(8192), maximum: Some(8192) };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, limit)?;
            let file = update("f")?;
            let cut = see(file.set_len(8193));
            let whole = show(file.write_at(&[0; 10_000], 0));
            words([cut, whole, see(file.write_at(&[0], 8192)), size("f")?])
        }))
    }),
    ("large/one-tebibyte-and-a-byte", || {
        let file = update("f")?;
        file.write_at(b"end", 1 << 40)?;
        let mut room = [9; 3];
        file.read_at(&mut room, 1 << 40)?;
        let text = String::from_utf8_lossy(&room).into_owned();
        file.read_at(&mut room, 1 << 39)?;
        let small = fs::metadata("f")?.blocks() < 1000;
        words([size("f")?, text, digits(&room), small.to_string()])
    }),
    ("large/beyond-every-file-system", || {
        let file = update("f")?;
        words([see(file.set_len(1 << 62)), see(file.write_at(b"x", (1 << 63) - 1))])
    }),
    ("hole/reads-as-zeroes", || {
        with_hole("f")?;
        blocks("f")
    }),
    ("hole/is-found", || {
        let file = with_hole("f")?;
        let at = |position| show(seek(&file, position));
        use rustix::fs::SeekFrom::{Data, Hole};
        words([at(Data(0)), at(Hole(0)), at(Data(BLOCK)), at(Hole(BLOCK)), at(Hole(2 * BLOCK)), at(Data(3 * BLOCK))])
    }),
    ("hole/of-an-empty-file", || {
        let file = update("f")?;
        words([show(seek(&file, rustix::fs::SeekFrom::Data(0))), show(seek(&file, rustix::fs::SeekFrom::Hole(0)))])
    }),
    ("hole/of-a-file-all-hole", || {
        let file = update("f")?;
        file.set_len(1 << 20)?;
        words([
            show(seek(&file, rustix::fs::SeekFrom::Data(0))),
            show(seek(&file, rustix::fs::SeekFrom::Hole(5))),
            fs::metadata("f")?.blocks().to_string(),
        ])
    }),
    ("seek/every-way", || {
        fs::write("f", "0123456789")?;
        let mut file = update("f")?;
        words([
            show(file.seek(SeekFrom::End(-3))),
            show(file.seek(SeekFrom::Current(1))),
            show(file.seek(SeekFrom::Current(-20))),
            show(file.seek(SeekFrom::Start(100))),
            show(file.read(&mut [0; 5])),
            show(file.seek(SeekFrom::Start(1 << 40))),
        ])
    }),
    ("allocate/grows", || {
        let done = allocate("f", FallocateFlags::empty(), 0, 10_000)?;
        words([done, size("f")?, (fs::metadata("f")?.blocks() >= 20).to_string()])
    }),
    ("allocate/keeps-size", || {
        let done = allocate("f", FallocateFlags::KEEP_SIZE, 0, 10_000)?;
        words([done, size("f")?, (fs::metadata("f")?.blocks() >= 20).to_string()])
    }),
    ("allocate/keeps-content", || {
        fs::write("f", "content")?;
        words([
            allocate("f", FallocateFlags::empty(), 0, 100)?,
            read("f").trim_end_matches('\0').to_owned(),
            size("f")?,
        ])
    }),
    ("allocate/punches-a-hole", || {
        fs::write("f", [1; 4 * 4096])?;
        let before = fs::metadata("f")?.blocks();
        let done = allocate("f", FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, BLOCK, 2 * BLOCK)?;
        update("f")?.sync_all()?;
        words([done, blocks("f")?, (fs::metadata("f")?.blocks() < before).to_string()])
    }),
    ("allocate/punches-without-keeping-size", || {
        fs::write("f", [1; 4096])?;
        allocate("f", FallocateFlags::PUNCH_HOLE, 0, BLOCK)
    }),
    ("allocate/zeroes", || {
        fs::write("f", [1; 4 * 4096])?;
        words([allocate("f", FallocateFlags::ZERO_RANGE, BLOCK, 10 * BLOCK)?, blocks("f")?])
    }),
    ("allocate/collapses", || {
        let bytes: Vec<u8> = (0..4 * 4096_usize).map(|n| u8::try_from(n / 4096).unwrap()).collect();
        fs::write("f", bytes)?;
        words([allocate("f", FallocateFlags::COLLAPSE_RANGE, BLOCK, BLOCK)?, blocks("f")?])
    }),
    ("allocate/inserts", || {
        fs::write("f", [1; 2 * 4096])?;
        words([allocate("f", FallocateFlags::INSERT_RANGE, BLOCK, BLOCK)?, blocks("f")?])
    }),
    ("allocate/errors", || {
        fs::write("f", "x")?;
        let read_only = open("f", OFlags::RDONLY)?;
        words([
            see(fallocate(&read_only, FallocateFlags::empty(), 0, 10)),
            allocate("f", FallocateFlags::empty(), 0, 0)?,
            allocate("f", FallocateFlags::empty(), 1 << 62, 1 << 62)?,
        ])
    }),
    ("copy/range", || {
        fs::write("a", "0123456789")?;
        fs::write("b", "----------")?;
        let (a, b) = (open("a", OFlags::RDONLY)?, update("b")?);
        let (mut from, mut to) = (2, 5);
        let copied = show(copy_file_range(&a, Some(&mut from), &b, Some(&mut to), 4));
        words([copied, read("b"), from.to_string(), to.to_string()])
    }),
    ("copy/range-of-megabytes", || {
        let bytes = pattern(5_000_000);
        fs::write("a", &bytes)?;
        let (a, b) = (open("a", OFlags::RDONLY)?, update("b")?);
        let mut total = 0;
        loop {
            match copy_file_range(&a, None, &b, None, bytes.len())? {
                0 => break,
                count => total += count,
            }
        }
        words([total.to_string(), (fs::read("b")? == bytes).to_string()])
    }),
    ("copy/range-onto-itself", || {
        fs::write("a", "0123456789")?;
        let file = update("a")?;
        let copy = |mut from: u64, mut to: u64| show(copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 5));
        words([copy(0, 5), read("a"), copy(0, 2)])
    }),
    ("copy/range-to-an-appending-descriptor", || {
        fs::write("a", "x")?;
        Ok(show(copy_file_range(&open("a", OFlags::RDONLY)?, None, &append("b")?, None, 1)))
    }),
    ("copy/by-sendfile", || {
        let bytes = pattern(300_000);
        fs::write("a", &bytes)?;
        let (a, b) = (open("a", OFlags::RDONLY)?, update("b")?);
        let mut total = 0;
        while total < bytes.len() {
            total += rustix::fs::sendfile(&b, &a, None, bytes.len())?;
        }
        Ok((fs::read("b")? == bytes).to_string())
    }),
    ("copy/clone", || {
        fs::write("a", "x")?;
        Ok(see(rustix::fs::ioctl_ficlone(&update("b")?, &open("a", OFlags::RDONLY)?)))
    }),
    ("direct/write-and-read", || {
        let opened = open("f", OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT);
        let Ok(file) = opened else { return Ok(see(opened)) };
        // Aligned room: in the middle of a larger one.
        let mut room = vec![5_u8; 3 * 4096];
        let start = room.as_ptr().align_offset(4096);
        let wrote = show(file.write_at(&room[start..start + 4096], 0));
        let got = show(file.read_at(&mut room[start..start + 4096], 0));
        words([wrote, got, see(file.write_at(&[1; 100], 1)), size("f")?])
    }),
    ("sync/every-way", || {
        fs::create_dir("d")?;
        let file = update("f")?;
        file.write_at(b"x", 0)?;
        let directory = open("d", OFlags::RDONLY)?;
        words([
            see(file.sync_all()),
            see(file.sync_data()),
            see(directory.sync_all()),
            see(directory.sync_data()),
            see(crate::sys::sync_file_system(&file)),
        ])
    }),
    ("advice/is-accepted", || {
        let file = update("f")?;
        file.set_len(BLOCK)?;
        use rustix::fs::Advice;
        words(
            [Advice::Sequential, Advice::WillNeed, Advice::DontNeed]
                .map(|what| see(rustix::fs::fadvise(&file, 0, None, what))),
        )
    }),
];
