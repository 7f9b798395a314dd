//! A small reader of EROFS written from the kernel's documentation, sharing nothing with the
//! writer under test.

use std::collections::BTreeMap;

use super::Disk;

/// What a path of an image shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub nlink: u32,
    pub rdev: u32,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// File contents, link target; empty for a directory.
    pub data: Vec<u8>,
    pub nid: u64,
}

struct Image {
    bytes: Vec<u8>,
    build_time: (i64, u32),
}

fn le(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Everything in the image by path; the root is the empty path.
pub fn read(disk: &Disk) -> BTreeMap<Vec<u8>, Seen> {
    let bytes = disk.bytes();
    assert_eq!(bytes.len() % 4096, 0);
    let sb = &bytes[1024..1152];
    assert_eq!(le(sb, 0, 4), 0xe0f5_e1e2);
    let mut next = le(sb, 36, 4);
    assert_eq!(next * 4096, std::fs::metadata(&disk.0[0]).unwrap().len(), "blocks");
    let (tabled, count) = (le(sb, 80, 4) & 8 != 0, le(sb, 86, 2) as usize);
    assert_eq!((tabled, count), (disk.0.len() > 1, disk.0.len() - 1), "devices");
    for slot in (0..count).map(|index| &bytes[le(sb, 88, 2) as usize * 128 + index * 128..]) {
        assert_eq!(le(slot, 68, 4), next, "devices follow each other");
        next += le(slot, 64, 4);
    }
    assert_eq!(next * 4096, bytes.len() as u64, "blocks of all devices");
    let mut first = bytes[1024..4096].to_vec();
    first[4..8].fill(0);
    assert_eq!(le(sb, 4, 4), u64::from(bitwise_crc32c(&first)), "superblock checksum");
    let image = Image { build_time: ((le(sb, 24, 8)).cast_signed(), le(sb, 32, 4) as u32), bytes: bytes.clone() };
    let root = le(sb, 14, 2);
    let mut seen = BTreeMap::new();
    image.walk(root, root, Vec::new(), &mut seen);
    assert_eq!(le(sb, 16, 8), seen.values().map(|s| s.nid).collect::<std::collections::BTreeSet<_>>().len() as u64);
    seen
}

pub fn bitwise_crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0_u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 });
        crc
    })
}

impl Image {
    fn walk(&self, nid: u64, parent: u64, path: Vec<u8>, seen: &mut BTreeMap<Vec<u8>, Seen>) {
        let (inode, data) = self.inode(nid);
        if inode.mode & 0o170_000 == 0o040_000 {
            let mut previous: Vec<u8> = Vec::new();
            let mut dots = Vec::new();
            for block in data.chunks(4096) {
                let count = le(block, 8, 2) as usize / 12;
                assert!(count > 0 && le(block, 8, 2).is_multiple_of(12));
                for index in 0..count {
                    let at = index * 12;
                    let start = le(block, at + 8, 2) as usize;
                    let end = if index + 1 < count { le(block, at + 20, 2) as usize } else { block.len() };
                    let name: Vec<u8> = block[start..end].split(|byte| *byte == 0).next().unwrap().to_vec();
                    assert!(!name.is_empty() && name > previous, "sorted");
                    previous.clone_from(&name);
                    let child = le(block, at, 8);
                    if name == b"." || name == b".." {
                        assert_eq!(child, if name == b"." { nid } else { parent });
                        dots.push(name);
                        continue;
                    }
                    let mut below = path.clone();
                    if !below.is_empty() {
                        below.push(b'/');
                    }
                    below.extend(&name);
                    let format = self.inode(child).0.mode >> 12;
                    let types = [0, 5, 3, 0, 2, 0, 4, 0, 1, 0, 7, 0, 6];
                    assert_eq!(block[at + 10], types[format as usize], "d_type");
                    self.walk(child, nid, below, seen);
                }
            }
            assert_eq!(dots.len(), 2);
            seen.insert(path, Seen { data: Vec::new(), ..inode });
        } else {
            seen.insert(path, Seen { data, ..inode });
        }
    }

    fn inode(&self, nid: u64) -> (Seen, Vec<u8>) {
        let start = nid as usize * 32;
        let raw = &self.bytes[start..];
        let format = le(raw, 0, 2);
        let icount = le(raw, 2, 2) as usize;
        let mode = le(raw, 4, 2) as u16;
        let union = le(raw, 16, 4) as u32;
        let (len, size, nlink, uid, gid, mtime) = if format & 1 == 0 {
            let (uid, gid) = (le(raw, 24, 2) as u32, le(raw, 26, 2) as u32);
            (32, le(raw, 8, 4), le(raw, 6, 2) as u32, uid, gid, self.build_time)
        } else {
            let time = (le(raw, 32, 8).cast_signed(), le(raw, 40, 4) as u32);
            (64, le(raw, 8, 8), le(raw, 44, 4) as u32, le(raw, 24, 4) as u32, le(raw, 28, 4) as u32, time)
        };
        assert!(start % 4096 + len <= 4096, "an inode stays in its block");
        let xattr_len = if icount == 0 { 0 } else { 12 + 4 * (icount - 1) };
        let xattrs = xattrs(&raw[len..len + xattr_len]);
        let layout = format >> 1;
        let special = !matches!(mode >> 12, 4 | 8 | 10);
        let data = if special { Vec::new() } else { self.data(start + len + xattr_len, layout, union, size as usize) };
        let rdev = if matches!(mode >> 12, 2 | 6) { union } else { 0 };
        (Seen { mode, uid, gid, mtime, nlink, rdev, xattrs, data: Vec::new(), nid }, data)
    }

    fn data(&self, beside: usize, layout: u64, union: u32, size: usize) -> Vec<u8> {
        let block = union as usize * 4096;
        match layout {
            0 => self.bytes[block..block + size].to_vec(),
            2 => {
                let whole = size - size % 4096;
                let tail = size % 4096;
                assert!(tail > 0 && beside % 4096 + tail <= 4096, "an inline tail stays in its block");
                [&self.bytes[block..block + whole], &self.bytes[beside..beside + tail]].concat()
            }
            4 => {
                let chunk = 4096_usize << (union & 0x1f);
                let map = beside.next_multiple_of(4);
                let mut data = vec![0; size];
                for (index, piece) in data.chunks_mut(chunk).enumerate() {
                    let address = le(&self.bytes, map + 4 * index, 4) as usize;
                    if address != 0xffff_ffff {
                        let at = address * 4096;
                        piece.copy_from_slice(&self.bytes[at..at + piece.len()]);
                    }
                }
                data
            }
            other => panic!("layout {other}"),
        }
    }
}

fn xattrs(body: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut rest = body.get(12..).unwrap_or_default();
    while !rest.is_empty() {
        let (name_len, index, value_len) = (rest[0] as usize, rest[1], le(rest, 2, 2) as usize);
        let prefix = match index {
            1 => "user.",
            2 => "system.posix_acl_access",
            3 => "system.posix_acl_default",
            4 => "trusted.",
            6 => "security.",
            other => panic!("xattr index {other}"),
        };
        let name = [prefix.as_bytes(), &rest[4..4 + name_len]].concat();
        let value = rest[4 + name_len..4 + name_len + value_len].to_vec();
        assert!(found.insert(name, value).is_none());
        rest = &rest[(4 + name_len + value_len).next_multiple_of(4)..];
    }
    found
}

/// Length of the largest file, without reading any.
pub fn largest(disk: &Disk) -> usize {
    let bytes = disk.bytes();
    let sb = &bytes[1024..1152];
    let build_time = ((le(sb, 24, 8)).cast_signed(), le(sb, 32, 4) as u32);
    let (root, image) = (le(sb, 14, 2), Image { bytes: bytes.clone(), build_time });
    let mut pending = vec![root];
    let mut met = std::collections::BTreeSet::from([root]);
    let mut largest = 0;
    while let Some(nid) = pending.pop() {
        let raw = &image.bytes[nid as usize * 32..];
        let size = if le(raw, 0, 2) & 1 == 0 { le(raw, 8, 4) } else { le(raw, 8, 8) };
        match le(raw, 4, 2) >> 12 {
            8 => largest = largest.max(size as usize),
            4 => {
                let (_, data) = image.inode(nid);
                for block in data.chunks(4096) {
                    for at in (0..le(block, 8, 2) as usize).step_by(12) {
                        let child = le(block, at, 8);
                        if met.insert(child) {
                            pending.push(child);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    largest
}
