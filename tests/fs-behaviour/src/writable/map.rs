//! Files in memory: mmap(2) beside read(2) and write(2).

use std::fs;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use crate::kit::{Check, elsewhere, open, read, update};
use crate::sys::{Map, in_child};
use crate::text::{see, words};

const PAGE: usize = 4096;

fn page(name: &str) -> std::io::Result<fs::File> {
    let file = update(name)?;
    file.write_at(&[b'.'; PAGE], 0)?;
    Ok(file)
}

fn front(name: &str) -> String {
    read(name).chars().take(5).collect()
}

fn ended(body: impl FnOnce() -> std::io::Result<String>) -> String {
    in_child(60, || body().unwrap_or_else(|error| crate::text::name(&error)))
}

pub(crate) const CHECKS: &[Check] = &[
    ("map/shows-content", || {
        fs::write("f", "content")?;
        let map = Map::new(&open("f", OFlags::RDONLY)?, PAGE, libc::PROT_READ, libc::MAP_SHARED)?;
        words([String::from_utf8_lossy(&map.take(0, 7)).into_owned(), map.get(PAGE - 1).to_string()])
    }),
    ("map/written-and-read", || {
        let file = page("f")?;
        let map = Map::shared(&file, PAGE)?;
        map.put(0, b"hello");
        let before_sync = front("f");
        map.sync()?;
        words([before_sync, front("f")])
    }),
    ("map/file-written-and-map-read", || {
        let file = page("f")?;
        let map = Map::shared(&file, PAGE)?;
        let first = map.get(0);
        file.write_at(b"later", 0)?;
        words([char::from(first).to_string(), String::from_utf8_lossy(&map.take(0, 5)).into_owned()])
    }),
    ("map/two-maps-of-one-file", || {
        page("f")?;
        let (a, b) = (Map::shared(&update("f")?, PAGE)?, Map::shared(&update("f")?, PAGE)?);
        a.put(0, b"to b");
        b.put(10, b"to a");
        let text = |map: &Map, at| String::from_utf8_lossy(&map.take(at, 4)).into_owned();
        words([text(&b, 0), text(&a, 10)])
    }),
    ("map/between-processes", || {
        let file = page("f")?;
        let map = Map::shared(&file, PAGE)?;
        let there = elsewhere(|| {
            let map = Map::shared(&update("f")?, PAGE)?;
            map.put(0, b"child");
            Ok("written".to_owned())
        });
        words([there, String::from_utf8_lossy(&map.take(0, 5)).into_owned()])
    }),
    ("map/private-changes-stay-private", || {
        let file = page("f")?;
        let map = Map::new(&file, PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
        map.put(0, b"mine!");
        words([front("f"), String::from_utf8_lossy(&map.take(0, 5)).into_owned()])
    }),
    ("map/outlives-descriptor-and-name", || {
        let file = page("f")?;
        let map = Map::shared(&file, PAGE)?;
        drop(file);
        fs::remove_file("f")?;
        map.put(0, b"alive");
        words([see(map.sync()), String::from_utf8_lossy(&map.take(0, 5)).into_owned()])
    }),
    ("map/survives-unmapping", || {
        let file = page("f")?;
        let map = Map::shared(&file, PAGE)?;
        map.put(7, b"kept");
        drop(map);
        drop(file);
        Ok(read("f")[7..11].to_owned())
    }),
    ("map/beyond-the-end-in-the-page", || {
        fs::write("f", "x")?;
        let map = Map::shared(&update("f")?, PAGE)?;
        map.put(100, b"lost");
        map.sync()?;
        let length = fs::metadata("f")?.len();
        update("f")?.set_len(200)?;
        words([length.to_string(), fs::read("f")?[100].to_string()])
    }),
    ("map/page-beyond-the-end", || {
        page("f")?;
        Ok(ended(|| Ok(Map::shared(&update("f")?, 2 * PAGE)?.get(PAGE).to_string())))
    }),
    ("map/truncated-away", || {
        page("f")?;
        Ok(ended(|| {
            let file = update("f")?;
            let map = Map::shared(&file, PAGE)?;
            map.set(0, b'x');
            file.set_len(0)?;
            Ok(map.get(0).to_string())
        }))
    }),
    ("map/grows-with-the-file", || {
        let file = page("f")?;
        let map = Map::shared(&file, 2 * PAGE)?;
        file.write_at(b"more", 4096)?;
        Ok(String::from_utf8_lossy(&map.take(PAGE, 4)).into_owned())
    }),
    ("map/into-a-hole", || {
        let file = update("f")?;
        file.set_len(1 << 20)?;
        let map = Map::shared(&file, 1 << 20)?;
        map.put(500_000, b"island");
        map.sync()?;
        drop(map);
        words([
            String::from_utf8_lossy(&fs::read("f")?[499_999..500_007]).replace('\0', "0"),
            fs::metadata("f")?.len().to_string(),
        ])
    }),
    ("map/needs-an-open-mode", || {
        page("f")?;
        let reader = open("f", OFlags::RDONLY)?;
        let writer = open("f", OFlags::WRONLY)?;
        words([
            see(Map::shared(&reader, PAGE).map(drop)),
            see(Map::new(&writer, PAGE, libc::PROT_WRITE, libc::MAP_SHARED).map(drop)),
            see(Map::new(&reader, PAGE, libc::PROT_WRITE, libc::MAP_PRIVATE).map(drop)),
        ])
    }),
    ("map/of-a-directory", || {
        fs::create_dir("d")?;
        Ok(see(Map::new(&open("d", OFlags::RDONLY)?, PAGE, libc::PROT_READ, libc::MAP_PRIVATE).map(drop)))
    }),
    ("map/executable", || {
        page("f")?;
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        Ok(see(Map::new(&open("f", OFlags::RDONLY)?, PAGE, protection, libc::MAP_PRIVATE).map(drop)))
    }),
    ("map/write-from-a-map-of-the-same-file", || {
        let file = page("f")?;
        file.write_at(b"front", 0)?;
        let map = Map::shared(&file, PAGE)?;
        file.write_at(&map.take(0, 5), 100)?;
        Ok(String::from_utf8_lossy(&map.take(100, 5)).into_owned())
    }),
];
