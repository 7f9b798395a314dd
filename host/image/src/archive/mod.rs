//! Image archives: OCI layouts and what `docker save` writes, as directories or tar files.
//!
//! A tar archive is never unpacked. Its members are indexed by name, and read where they lie; the
//! names are looked up, never turned into paths of the host.

mod docker;
mod oci;

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::Limits;
use crate::error::ContentError;
use crate::layer::{Compression, EntryKind, Reader, Source, TarProblem, components, decompress};
use crate::reference::Reference;
use crate::verify::{self, Documents};

/// Members an archive may have: 127 layers of three members each are few hundred.
const MEMBERS_MAX: usize = 100_000;
/// Symbolic links followed inside an archive; `docker save` once used one for a repeated layer.
const LINKS_MAX: usize = 8;
/// `O_NONBLOCK`, so that a FIFO in a layout's directory cannot stop us, and is then refused.
const NONBLOCK: i32 = 0o4000;

/// An archive that cannot be read.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The file or stream itself.
    #[error("archive {archive} cannot be read: {problem}; see that it is there, complete and yours to read")]
    Read {
        /// The archive.
        archive: String,
        /// Why not.
        problem: ArchiveProblem,
    },
    /// Something else than an image archive.
    #[error(
        "archive {0} is neither an OCI layout (index.json) nor made by `docker save` (manifest.json): make one with `docker save`, `podman save` or `buildah push IMAGE oci-archive:FILE`"
    )]
    Unknown(String),
    /// A member that another one names is not there.
    #[error("archive {archive} has no member \"{member}\", which it says it has: it is incomplete, make it anew")]
    Missing {
        /// The archive.
        archive: String,
        /// The member.
        member: String,
    },
    /// Nothing in it, or nothing that was asked for.
    #[error("archive {0} has no image in it")]
    Empty(String),
    /// One name for several images.
    #[error("archive {archive} has {count} images, and one name was given for all: leave the name out")]
    SeveralImages {
        /// The archive.
        archive: String,
        /// How many.
        count: usize,
    },
    /// A member is not what it must be.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// Why an archive cannot be read.
#[derive(Debug, Error)]
pub enum ArchiveProblem {
    /// Reading or decompressing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a sound tar file.
    #[error(transparent)]
    Tar(#[from] TarProblem),
    /// It ends too early.
    #[error("it ends in the middle of a member")]
    Truncated,
    /// It is no image archive.
    #[error("it has more than {MEMBERS_MAX} members")]
    ManyMembers,
    /// A decompression bomb, or more than the host allows.
    #[error("it unpacks to {0} bytes and more, out of proportion to its size or to this host")]
    Bomb(u64),
}

/// An image of an archive: its documents verified, its layers not yet read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) documents: Documents,
    pub(crate) names: Vec<Reference>,
    /// The member that holds each layer.
    pub(crate) members: Vec<String>,
}

/// An archive, opened.
#[derive(Debug)]
pub(crate) struct Archive {
    /// For messages.
    name: String,
    members: Members,
}

#[derive(Debug)]
enum Members {
    Directory(PathBuf),
    Tar { file: File, index: HashMap<Vec<u8>, Member> },
}

#[derive(Debug)]
enum Member {
    Data { offset: u64, len: u64 },
    Link(Vec<u8>),
}

/// A member's bytes and their number.
type Opened<'a> = (Box<dyn Read + 'a>, u64);

/// Part of a file.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..want).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let got = self.file.read_at(buffer, self.at)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

impl Archive {
    /// Opens a directory, or a tar file that may be compressed. What cannot be read in place is
    /// spooled to a nameless file on the file system of `tmp`.
    pub(crate) fn open(path: &Path, tmp: &Path, limits: &Limits) -> Result<Self, ArchiveError> {
        let name = path.display().to_string();
        let failed = |cause: io::Error| ArchiveError::Read { archive: name.clone(), problem: cause.into() };
        let mut file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Ok(Self { name, members: Members::Directory(path.to_owned()) });
        }
        if !metadata.is_file() {
            return Self::spooled(name, file, tmp, limits);
        }
        let mut start = Vec::new();
        (&mut file).take(6).read_to_end(&mut start).map_err(failed)?;
        file.rewind().map_err(failed)?;
        match Compression::of(&start).map_err(failed)? {
            Compression::None => Self::tar(name, file),
            Compression::Gzip | Compression::Zstd => Self::spooled(name, file, tmp, limits),
        }
    }

    /// Takes the archive from a stream, to its end.
    pub(crate) fn from_reader(reader: impl Read, tmp: &Path, limits: &Limits) -> Result<Self, ArchiveError> {
        Self::spooled("on standard input".to_owned(), reader, tmp, limits)
    }

    fn spooled(name: String, reader: impl Read, tmp: &Path, limits: &Limits) -> Result<Self, ArchiveError> {
        let spooled = spool(reader, tmp, limits);
        let file = spooled.map_err(|problem| ArchiveError::Read { archive: name.clone(), problem })?;
        Self::tar(name, file)
    }

    fn tar(name: String, file: File) -> Result<Self, ArchiveError> {
        let index = index(&file).map_err(|problem| ArchiveError::Read { archive: name.clone(), problem })?;
        Ok(Self { name, members: Members::Tar { file, index } })
    }

    /// The images in it.
    pub(crate) fn images(&self, limits: &Limits) -> Result<Vec<Found>, ArchiveError> {
        let images = if self.has("index.json")? {
            oci::images(self, limits)?
        } else if self.has("manifest.json")? {
            docker::images(self, limits)?
        } else {
            return Err(ArchiveError::Unknown(self.name.clone()));
        };
        if images.is_empty() { Err(ArchiveError::Empty(self.name.clone())) } else { Ok(images) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn has(&self, member: &str) -> Result<bool, ArchiveError> {
        Ok(self.find(member)?.is_some())
    }

    /// A member's bytes and their number.
    pub(crate) fn open_member(&self, member: &str) -> Result<Opened<'_>, ArchiveError> {
        let missing = || ArchiveError::Missing {
            archive: self.name.clone(),
            member: member.chars().take(200).flat_map(char::escape_debug).collect(),
        };
        self.find(member)?.ok_or_else(missing)
    }

    /// A document, whole.
    fn read(&self, member: &str, document: &'static str, limits: &Limits) -> Result<Vec<u8>, ArchiveError> {
        let (reader, len) = self.open_member(member)?;
        if len > limits.document_bytes {
            let problem = crate::DocumentProblem::Large(limits.document_bytes);
            return Err(verify::refuse(&self.name, document)(problem).into());
        }
        let mut bytes = Vec::new();
        reader.take(len).read_to_end(&mut bytes).map_err(|cause| self.failed(cause))?;
        Ok(bytes)
    }

    fn failed(&self, cause: io::Error) -> ArchiveError {
        ArchiveError::Read { archive: self.name.clone(), problem: cause.into() }
    }

    fn find(&self, member: &str) -> Result<Option<Opened<'_>>, ArchiveError> {
        // Names come from the archive's own documents.
        let Ok(path) = components(member.as_bytes()) else { return Ok(None) };
        match &self.members {
            Members::Directory(root) => {
                let path = path.iter().filter_map(|name| std::str::from_utf8(name).ok());
                let path = root.join(path.collect::<PathBuf>());
                let file = match File::options().read(true).custom_flags(NONBLOCK).open(path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(self.failed(error)),
                };
                let metadata = file.metadata().map_err(|cause| self.failed(cause))?;
                let len = metadata.len();
                Ok(metadata.is_file().then(|| (Box::new(file) as Box<dyn Read>, len)))
            }
            Members::Tar { file, index } => {
                let mut name = path.join(&b'/');
                for _ in 0..LINKS_MAX {
                    match index.get(&name) {
                        None => return Ok(None),
                        Some(Member::Link(target)) => name.clone_from(target),
                        Some(Member::Data { offset, len }) => {
                            let section = Section { file, at: *offset, left: *len };
                            return Ok(Some((Box::new(section), *len)));
                        }
                    }
                }
                Ok(None)
            }
        }
    }
}

/// Where each member lies. Of several with one name the last counts, as when unpacking.
fn index(file: &File) -> Result<HashMap<Vec<u8>, Member>, ArchiveProblem> {
    let end = file.metadata()?.len();
    let mut index = HashMap::new();
    let mut reader = Reader::new(Positioned { file, at: 0 });
    while let Some(entry) = reader.next()? {
        let Ok(path) = components(&entry.path).map(|path| path.join(&b'/')) else { continue };
        let member = match entry.kind {
            EntryKind::File if entry.runs.is_none() => {
                let (offset, len) = (reader.source().at, entry.stored);
                if offset.checked_add(len).is_none_or(|last| last > end) {
                    return Err(ArchiveProblem::Truncated);
                }
                Member::Data { offset, len }
            }
            EntryKind::Symlink | EntryKind::HardLink => {
                match link_target(&path, &entry.link, entry.kind == EntryKind::HardLink) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            }
            _ => continue,
        };
        index.insert(path, member);
        if index.len() > MEMBERS_MAX {
            return Err(ArchiveProblem::ManyMembers);
        }
    }
    Ok(index)
}

/// A file read front to back that skips without reading.
struct Positioned<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Source for Positioned<'_> {
    fn skip(&mut self, len: u64) -> io::Result<()> {
        self.at = self.at.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}

/// Copies the uncompressed archive to a nameless file, as long as it does not grow out of
/// proportion to what was read for it.
fn spool(reader: impl Read, tmp: &Path, limits: &Limits) -> Result<File, ArchiveProblem> {
    let mut file = tempfile::tempfile_in(tmp)?;
    let read = Cell::new(0_u64);
    let mut plain = decompress(Counting { inner: reader, count: &read })?;
    let mut written = 0_u64;
    loop {
        let copied = io::copy(&mut (&mut plain).take(16 << 20), &mut file)?;
        written += copied;
        let proportion = Limits::RATIO_FREE_BYTES.saturating_add(read.get().saturating_mul(limits.ratio));
        if written > proportion.min(limits.unpacked_bytes) {
            return Err(ArchiveProblem::Bomb(written));
        }
        if copied == 0 {
            file.rewind()?;
            return Ok(file);
        }
    }
}

struct Counting<'a, R> {
    inner: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.count.set(self.count.get() + got as u64);
        Ok(got)
    }
}

/// The member a link means: a symbolic link's target counts from its directory.
fn link_target(path: &[u8], target: &[u8], hard: bool) -> Option<Vec<u8>> {
    let mut at: Vec<&[u8]> = if hard { Vec::new() } else { path.split(|byte| *byte == b'/').collect() };
    at.pop();
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                at.pop()?;
            }
            name => at.push(name),
        }
    }
    Some(at.join(&b'/'))
}
