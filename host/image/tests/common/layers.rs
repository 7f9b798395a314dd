//! Layers as lists of entries, and their tar streams.

use std::collections::BTreeMap;

/// What a test puts into a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    HardLink(String),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Whiteout,
    Opaque,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub path: String,
    pub what: What,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Item {
    pub fn new(path: &str, what: What) -> Self {
        let mode = if what == What::Directory { 0o755 } else { 0o644 };
        let xattrs = BTreeMap::new();
        Self { path: path.to_owned(), what, mode, uid: 0, gid: 0, mtime: (1_700_000_000, 0), xattrs }
    }

    pub fn file(path: &str, data: &[u8]) -> Self {
        Self::new(path, What::File(data.to_vec()))
    }

    pub fn mode(mut self, mode: u16) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn time(mut self, seconds: i64, nanos: u32) -> Self {
        self.mtime = (seconds, nanos);
        self
    }

    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.insert(name.to_owned(), value.to_vec());
        self
    }

    /// The name that stands in the tar stream.
    fn tar_path(&self) -> String {
        let (parent, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let slash = if parent.is_empty() { "" } else { "/" };
        match self.what {
            What::Whiteout => format!("{parent}{slash}.wh.{name}"),
            What::Opaque if self.path.is_empty() => ".wh..wh..opq".to_owned(),
            What::Opaque => format!("{}/.wh..wh..opq", self.path),
            _ => self.path.clone(),
        }
    }
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let len = (1..).map(|digits| body + digits).find(|len| len.to_string().len() + body == *len).unwrap();
    [len.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

/// Writes one entry by hand: any path, any type, PAX records as given.
pub fn raw_entry(out: &mut Vec<u8>, header: &mut tar::Header, pax: &[(String, Vec<u8>)], data: &[u8]) {
    if !pax.is_empty() {
        let payload: Vec<u8> = pax.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        let mut extension = tar::Header::new_ustar();
        extension.as_mut_bytes()[..8].copy_from_slice(b"././@Pax");
        extension.set_entry_type(tar::EntryType::XHeader);
        extension.set_size(payload.len() as u64);
        extension.set_mode(0o644);
        extension.set_cksum();
        out.extend(extension.as_bytes());
        out.extend(&payload);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    header.set_cksum();
    out.extend(header.as_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// The layer's uncompressed tar stream. Every entry has a PAX header, so nothing is cut off.
pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let mut header = tar::Header::new_ustar();
        let mut data: &[u8] = &[];
        let mut link = None;
        let kind = match &item.what {
            What::File(bytes) => {
                data = bytes;
                tar::EntryType::Regular
            }
            What::Whiteout | What::Opaque => tar::EntryType::Regular,
            What::Directory => tar::EntryType::Directory,
            What::Symlink(target) => {
                link = Some(target);
                tar::EntryType::Symlink
            }
            What::HardLink(target) => {
                link = Some(target);
                tar::EntryType::Link
            }
            What::CharDevice(major, minor) | What::BlockDevice(major, minor) => {
                header.set_device_major(*major).unwrap();
                header.set_device_minor(*minor).unwrap();
                if matches!(item.what, What::CharDevice(..)) { tar::EntryType::Char } else { tar::EntryType::Block }
            }
            What::Fifo => tar::EntryType::Fifo,
        };
        header.set_entry_type(kind);
        header.set_mode(u32::from(item.mode));
        header.set_size(data.len() as u64);
        let mut pax = vec![
            ("path".to_owned(), item.tar_path().into_bytes()),
            ("uid".to_owned(), item.uid.to_string().into_bytes()),
            ("gid".to_owned(), item.gid.to_string().into_bytes()),
            ("mtime".to_owned(), pax_time(item.mtime)),
        ];
        pax.extend(link.map(|link| ("linkpath".to_owned(), link.clone().into_bytes())));
        pax.extend(item.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone())));
        raw_entry(&mut out, &mut header, &pax, data);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn pax_time((seconds, nanos): (i64, u32)) -> Vec<u8> {
    if seconds >= 0 {
        return format!("{seconds}.{nanos:09}").into_bytes();
    }
    let total = -(i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
    format!("-{}.{:09}", total / 1_000_000_000, total % 1_000_000_000).into_bytes()
}
