//! Writes layer archives, the good and the bad.
//!
//! Layers of real images come out of `mmdebstrap`; this builder makes what no packaging tool would: names that are
//! not UTF-8, sparse files, owners beyond 16 bits, whiteouts, and paths that try to leave the image. It therefore
//! checks nothing: a header says what the caller says.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{EntryType, Header};

/// Seconds since the epoch that every entry carries unless told otherwise, so that layers are reproducible.
pub const MTIME: u64 = 1_700_000_000;

/// Bytes of a tar record.
const RECORD: usize = 512;
/// The longest name a classic header holds.
const NAME_FIELD: usize = 100;

/// What the header of one entry says besides its name and size.
#[derive(Debug, Clone, Copy)]
pub struct Meta {
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Owner; beyond 2^21 the header switches to GNU's base-256 form.
    pub uid: u64,
    /// Group, as `uid`.
    pub gid: u64,
    /// Seconds since the epoch.
    pub mtime: u64,
}

impl Meta {
    /// Owned by root, with the given mode.
    #[must_use]
    pub fn mode(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: MTIME }
    }

    /// The same with another owner.
    #[must_use]
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }
}

/// A run of data in a sparse file: where it stands, and its bytes.
pub type Extent<'a> = (u64, &'a [u8]);

/// An uncompressed layer being written to `W`.
#[derive(Debug)]
pub struct Layer<W: Write> {
    out: W,
}

impl<W: Write> Layer<W> {
    /// Starts an empty layer.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// A regular file.
    pub fn file(&mut self, path: impl AsRef<Path>, meta: Meta, data: &[u8]) -> io::Result<()> {
        self.file_with_xattrs(path, meta, data, &[])
    }

    /// A regular file with extended attributes, as `SCHILY.xattr` records of a PAX header (what Docker and
    /// containerd write and read).
    pub fn file_with_xattrs(
        &mut self,
        path: impl AsRef<Path>,
        meta: Meta,
        data: &[u8],
        xattrs: &[(&str, &[u8])],
    ) -> io::Result<()> {
        self.pax(xattrs)?;
        self.entry(EntryType::Regular, path.as_ref(), meta, None, (0, 0), data)
    }

    /// A directory.
    pub fn dir(&mut self, path: impl AsRef<Path>, meta: Meta) -> io::Result<()> {
        self.entry(EntryType::Directory, path.as_ref(), meta, None, (0, 0), &[])
    }

    /// A directory with extended attributes.
    pub fn dir_with_xattrs(&mut self, path: impl AsRef<Path>, meta: Meta, xattrs: &[(&str, &[u8])]) -> io::Result<()> {
        self.pax(xattrs)?;
        self.dir(path, meta)
    }

    /// A symbolic link holding `target` as it is.
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> io::Result<()> {
        self.entry(EntryType::Symlink, path.as_ref(), Meta::mode(0o777), Some(target.as_ref()), (0, 0), &[])
    }

    /// A hard link to an entry of this layer or of one below.
    pub fn hard_link(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> io::Result<()> {
        self.entry(EntryType::Link, path.as_ref(), Meta::mode(0o644), Some(target.as_ref()), (0, 0), &[])
    }

    /// A character device.
    pub fn char_device(&mut self, path: impl AsRef<Path>, meta: Meta, device: (u32, u32)) -> io::Result<()> {
        self.entry(EntryType::Char, path.as_ref(), meta, None, device, &[])
    }

    /// A block device.
    pub fn block_device(&mut self, path: impl AsRef<Path>, meta: Meta, device: (u32, u32)) -> io::Result<()> {
        self.entry(EntryType::Block, path.as_ref(), meta, None, device, &[])
    }

    /// A FIFO.
    pub fn fifo(&mut self, path: impl AsRef<Path>, meta: Meta) -> io::Result<()> {
        self.entry(EntryType::Fifo, path.as_ref(), meta, None, (0, 0), &[])
    }

    /// The OCI whiteout of `path`, which an earlier layer holds.
    pub fn whiteout(&mut self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let mut name = std::ffi::OsString::from(".wh.");
        name.push(path.file_name().unwrap_or_default());
        self.file(path.with_file_name(name), Meta::mode(0o600), &[])
    }

    /// Hides everything that earlier layers hold in the directory `path`.
    pub fn opaque(&mut self, path: impl AsRef<Path>) -> io::Result<()> {
        self.file(path.as_ref().join(".wh..wh..opq"), Meta::mode(0o600), &[])
    }

    /// A file of `size` bytes with data only in `extents` (ascending; at most four, of which a hole at the end takes one), in GNU's old sparse format:
    /// type `S`, the map inside the header (tar manual, "Storing Sparse Files, Old GNU Format"). All extents but the last are whole 512-byte records.
    pub fn sparse(&mut self, path: impl AsRef<Path>, meta: Meta, size: u64, extents: &[Extent<'_>]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        fill(&mut header, EntryType::GNUSparse, meta);
        let gnu = header.as_gnu_mut().ok_or_else(|| io::Error::other("a GNU header was asked for"))?;
        let end = extents.last().map_or(0, |(offset, bytes)| offset + bytes.len() as u64);
        let mut extents = extents.to_vec();
        if end < size {
            // A hole at the end is marked by an extent of no bytes, as GNU tar does.
            extents.push((size, &[]));
        }
        if extents.len() > gnu.sparse.len() {
            return Err(io::Error::other("the old GNU header holds at most four extents"));
        }
        let mut data = Vec::new();
        for ((offset, bytes), slot) in extents.into_iter().zip(&mut gnu.sparse) {
            octal(&mut slot.offset, offset);
            octal(&mut slot.numbytes, bytes.len() as u64);
            data.extend_from_slice(bytes);
        }
        octal(&mut gnu.realsize, size);
        header.set_size(data.len() as u64);
        header.set_path(path.as_ref())?;
        header.set_cksum();
        self.record(&header, &data)
    }

    /// Ends the archive and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * RECORD])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        kind: EntryType,
        path: &Path,
        meta: Meta,
        link: Option<&Path>,
        device: (u32, u32),
        data: &[u8],
    ) -> io::Result<()> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        self.long(b'L', &name)?;
        let link = link.map(|l| l.as_os_str().as_bytes()).unwrap_or_default();
        self.long(b'K', link)?;

        let mut header = Header::new_gnu();
        fill(&mut header, kind, meta);
        header.set_size(data.len() as u64);
        // Past the crate's own setters, which refuse `..` and absolute names: hostile layers hold both.
        let old = header.as_old_mut();
        copy(&mut old.name, &name);
        copy(&mut old.linkname, link);
        if device != (0, 0) {
            header.set_device_major(device.0)?;
            header.set_device_minor(device.1)?;
        }
        header.set_cksum();
        self.record(&header, data)
    }

    /// GNU's long name (`L`) or long link (`K`) entry, when the classic field is too short.
    fn long(&mut self, kind: u8, name: &[u8]) -> io::Result<()> {
        if name.len() <= NAME_FIELD {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        fill(&mut header, EntryType::new(kind), Meta::mode(0o644));
        copy(&mut header.as_old_mut().name, b"././@LongLink");
        let mut data = name.to_vec();
        data.push(0);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.record(&header, &data)
    }

    fn pax(&mut self, xattrs: &[(&str, &[u8])]) -> io::Result<()> {
        if xattrs.is_empty() {
            return Ok(());
        }
        let mut data = Vec::new();
        for (name, value) in xattrs {
            pax_record(&mut data, &format!("SCHILY.xattr.{name}"), value);
        }
        let mut header = Header::new_ustar();
        fill(&mut header, EntryType::XHeader, Meta::mode(0o644));
        copy(&mut header.as_old_mut().name, b"PaxHeaders/0");
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.record(&header, &data)
    }

    fn record(&mut self, header: &Header, data: &[u8]) -> io::Result<()> {
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(data)?;
        let padding = data.len().next_multiple_of(RECORD) - data.len();
        self.out.write_all(&vec![0; padding])
    }
}

fn fill(header: &mut Header, kind: EntryType, meta: Meta) {
    header.set_entry_type(kind);
    header.set_mode(meta.mode);
    header.set_uid(meta.uid);
    header.set_gid(meta.gid);
    header.set_mtime(meta.mtime);
}

/// Copies as much as the field holds; longer values precede the header as `@LongLink` entries.
fn copy(field: &mut [u8], value: &[u8]) {
    field.fill(0);
    for (to, from) in field.iter_mut().zip(value) {
        *to = *from;
    }
}

fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    copy(field, format!("{value:0width$o}").as_bytes());
}

/// One PAX record: `LENGTH KEY=VALUE\n`, where LENGTH counts itself too.
fn pax_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_pax_record_counts_its_own_length() {
        let mut out = Vec::new();
        pax_record(&mut out, "SCHILY.xattr.user.a", &[b'x'; 76]);
        assert!(out.starts_with(b"101 SCHILY"), "{}", String::from_utf8_lossy(&out));
        assert_eq!(out.len(), 101);
    }

    #[test]
    fn a_reader_sees_what_was_written() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
        let mut layer = Layer::new(Vec::new());
        layer.dir("etc", Meta::mode(0o755)).unwrap();
        layer
            .file_with_xattrs(&long, Meta::mode(0o4755).owner(70_000, 5_000_000_000), b"hi", &[("user.a", b"\0\xff")])
            .unwrap();
        layer.file("../../etc/x", Meta::mode(0o644), b"").unwrap();
        let bytes = layer.finish().unwrap();

        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        assert_eq!(entries.next().unwrap().unwrap().path_bytes().as_ref(), b"etc/");
        let mut file = entries.next().unwrap().unwrap();
        assert_eq!(file.path_bytes().as_ref(), long.as_bytes());
        assert_eq!(file.header().uid().unwrap(), 70_000);
        assert_eq!(file.header().gid().unwrap(), 5_000_000_000);
        let pax = file.pax_extensions().unwrap().unwrap().next().unwrap().unwrap();
        assert_eq!((pax.key().unwrap(), pax.value_bytes()), ("SCHILY.xattr.user.a", b"\0\xff".as_slice()));
        assert_eq!(entries.next().unwrap().unwrap().path_bytes().as_ref(), b"../../etc/x");
    }

    #[test]
    fn a_sparse_file_expands_to_its_full_size() {
        let mut layer = Layer::new(Vec::new());
        layer.sparse("holes", Meta::mode(0o644), 10_000, &[(512, [b'a'; 512].as_slice()), (9_000, b"second")]).unwrap();
        let bytes = layer.finish().unwrap();
        let mut content = Vec::new();
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive.entries().unwrap().next().unwrap().unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content.len(), 10_000);
        assert_eq!(&content[512..1_024], [b'a'; 512]);
        assert_eq!(&content[9_000..9_006], b"second");
        assert!(content[1_024..9_000].iter().all(|b| *b == 0));
    }
}
