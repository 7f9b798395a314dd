//! Sets of files that change all at once, as kubelet's `AtomicWriter` (`pkg/volume/util/atomic_writer.go`) lays them
//! out. A reader sees the old set or the new one, never a mixture:
//!
//! ```text
//! key -> ..data/key
//! ..data -> ..2026_01_31_12_00_00.123456
//! ..2026_01_31_12_00_00.123456/key
//! ```
//!
//! A new set is written into a directory of its own, and then `..data` is replaced by rename. Programs that watch for
//! this (`IN_CREATE` or `IN_MOVED_TO` of `..data`) find what they know from Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use thiserror::Error;

use super::ids;

const DATA: &str = "..data";
/// Becomes [`DATA`] by rename.
const NEXT_DATA: &str = "..data_tmp";
/// kubelet's bounds of a path and of one of its names.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// Why a file cannot be part of a [`Payload`].
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PayloadError {
    #[error(
        "\"{0}\" is no path for a file of a volume: it must be relative, without \"..\", and not begin with \"..\""
    )]
    Path(String),
    #[error("\"{file}\" cannot be a file and, for \"{below}\", a directory")]
    Conflict { file: String, below: String },
    #[error("mode {0} is not between 0 and 0777 (decimal 511)")]
    Mode(i32),
}

/// Why a set of files could not be written.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub(crate) struct AtomicWriteError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AtomicWriteError {
    let path = path.to_owned();
    move |source| AtomicWriteError { action, path, source }
}

/// Files by their paths relative to the volume. Whatever is in one has a good path.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    files: BTreeMap<String, PayloadFile>,
}

#[derive(Clone, PartialEq, Eq)]
struct PayloadFile {
    mode: u32,
    content: Vec<u8>,
}

/// Contents may be secrets: they are never shown.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            self.files.iter().map(|(path, file)| (path, format!("{} bytes, {:o}", file.content.len(), file.mode)));
        f.debug_map().entries(shown).finish()
    }
}

impl Payload {
    /// Adds a file, or replaces the one of the same path.
    ///
    /// # Errors
    ///
    /// When the path could leave the volume or take the place of its own links, or another file is in its way.
    pub(crate) fn insert(&mut self, path: &str, mode: i32, content: Vec<u8>) -> Result<(), PayloadError> {
        let clean = clean(path).ok_or_else(|| PayloadError::Path(path.to_owned()))?;
        let mode = u32::try_from(mode).ok().filter(|m| *m <= 0o777).ok_or(PayloadError::Mode(mode))?;
        let conflict =
            |file: &str, below: &str| PayloadError::Conflict { file: file.to_owned(), below: below.to_owned() };
        for other in self.files.keys() {
            if is_below(&clean, other) {
                return Err(conflict(other, &clean));
            }
            if is_below(other, &clean) {
                return Err(conflict(&clean, other));
            }
        }
        self.files.insert(clean, PayloadFile { mode, content });
        Ok(())
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        clean(path).is_some_and(|path| self.files.contains_key(&path))
    }

    /// What stands at the top of the volume: one link each.
    fn top_names(&self) -> BTreeSet<&str> {
        self.files.keys().filter_map(|path| path.split('/').next()).collect()
    }

    #[cfg(test)]
    pub(crate) fn listing(&self) -> Vec<(String, u32, String)> {
        let text = |file: &PayloadFile| String::from_utf8_lossy(&file.content).into_owned();
        self.files.iter().map(|(path, file)| (path.clone(), file.mode, text(file))).collect()
    }
}

/// The path without empty names and dots; `None` when it is no good.
fn clean(path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') || path.len() > MAX_PATH {
        return None;
    }
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    let good = names.iter().all(|name| *name != ".." && name.len() <= MAX_NAME);
    // Names that begin so are this module's own.
    let first = names.first().is_some_and(|name| !name.starts_with(".."));
    (good && first).then(|| names.join("/"))
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Writes sets of files into one directory.
#[derive(Debug)]
pub(crate) struct AtomicWriter {
    target: PathBuf,
    /// Gets the files for its group, as a pod's fsGroup does.
    group: Option<u32>,
}

impl AtomicWriter {
    pub(crate) fn new(target: PathBuf, group: Option<u32>) -> Self {
        Self { target, group }
    }

    /// Makes the directory hold `payload` and nothing else; what is the same already is not touched.
    ///
    /// # Errors
    ///
    /// When a file cannot be written. Then the old set is still there, whole.
    pub(crate) fn write(&self, payload: &Payload) -> Result<(), AtomicWriteError> {
        self.make_target()?;
        let old = self.current()?;
        let stale = self.stale_links(payload)?;
        if stale.is_empty() && old.as_ref().is_some_and(|old| holds(old, payload)) {
            return Ok(());
        }
        let fresh = self.target.join(format!("..{}.{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), ids::suffix()));
        let published = self.fill(&fresh, payload).and_then(|()| self.publish(&fresh));
        if let Err(error) = published {
            let _ = fs::remove_dir_all(&fresh);
            return Err(error);
        }
        for name in payload.top_names() {
            self.link(name)?;
        }
        for path in stale {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        match old {
            Some(old) => fs::remove_dir_all(&old).map_err(failed("remove", &old)),
            None => Ok(()),
        }
    }

    /// Everybody may write in a volume's directory, as in kubelet's; who can reach it is another matter.
    fn make_target(&self) -> Result<(), AtomicWriteError> {
        if self.target.is_dir() {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.target);
        made.map_err(failed("make", &self.target))?;
        self.give(&self.target, 0o777, true)
    }

    /// The directory that holds the present set.
    fn current(&self) -> Result<Option<PathBuf>, AtomicWriteError> {
        let link = self.target.join(DATA);
        match fs::read_link(&link) {
            Ok(name) => Ok(Some(self.target.join(name))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("read", &link)(e)),
        }
    }

    /// Links to files that the new set does not have.
    fn stale_links(&self, payload: &Payload) -> Result<Vec<PathBuf>, AtomicWriteError> {
        let wanted = payload.top_names();
        let mut stale = Vec::new();
        for entry in fs::read_dir(&self.target).map_err(failed("list", &self.target))? {
            let name = entry.map_err(failed("list", &self.target))?.file_name();
            if !name.to_str().is_some_and(|name| name.starts_with("..") || wanted.contains(name)) {
                stale.push(self.target.join(name));
            }
        }
        Ok(stale)
    }

    fn fill(&self, fresh: &Path, payload: &Payload) -> Result<(), AtomicWriteError> {
        self.make_dir(fresh)?;
        for (path, file) in &payload.files {
            let mut names = path.split('/').peekable();
            let mut at = fresh.to_owned();
            while let Some(name) = names.next() {
                at.push(name);
                if names.peek().is_some() && !at.is_dir() {
                    self.make_dir(&at)?;
                }
            }
            let written = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&at)
                .and_then(|mut opened| opened.write_all(&file.content));
            written.map_err(failed("write", &at))?;
            self.give(&at, file.mode, false)?;
        }
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> Result<(), AtomicWriteError> {
        DirBuilder::new().mode(0o700).create(path).map_err(failed("make", path))?;
        self.give(path, 0o755, true)
    }

    /// Mode and group, whatever the umask is. For a group, as kubelet gives a read-only volume to an fsGroup
    /// (`pkg/volume/volume_linux.go`): it may read, and what is made in a directory is the group's too.
    fn give(&self, path: &Path, mode: u32, directory: bool) -> Result<(), AtomicWriteError> {
        let mut mode = mode;
        if let Some(group) = self.group {
            lchown(path, None, Some(group)).map_err(failed("change the group of", path))?;
            mode |= if directory { 0o2550 } else { 0o440 };
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("change the mode of", path))
    }

    /// From here on every reader sees the new set.
    fn publish(&self, fresh: &Path) -> Result<(), AtomicWriteError> {
        let (next, data) = (self.target.join(NEXT_DATA), self.target.join(DATA));
        // Left by a writer that was killed.
        let _ = fs::remove_file(&next);
        symlink(fresh.file_name().unwrap_or_default(), &next).map_err(failed("link", &next))?;
        fs::rename(&next, &data).map_err(failed("replace", &data))
    }

    fn link(&self, name: &str) -> Result<(), AtomicWriteError> {
        let path = self.target.join(name);
        match symlink(Path::new(DATA).join(name), &path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failed("link", &path)(e)),
            _ => Ok(()),
        }
    }
}

/// Whether a set on disk is this one: the same files with the same contents.
fn holds(directory: &Path, payload: &Payload) -> bool {
    let same = |(path, file): (&String, &PayloadFile)| {
        fs::read(directory.join(path)).is_ok_and(|content| content == file.content)
    };
    payload.files.iter().all(same) && count(directory) == payload.files.len()
}

fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

#[cfg(test)]
mod tests;
