//! Layers merged into one tree, as the OCI image specification's "Image Layer Filesystem
//! Changeset" says.
//!
//! Where the specification leaves room:
//! - Whiteouts hide entries of lower layers only, wherever in the layer they stand.
//! - A path is never followed through a symbolic link. An entry below something of a *lower* layer
//!   that is no directory replaces it with a directory, as an overlay mount of the layers would
//!   show; below something of the *same* layer it is refused: no tool writes such a layer, and it
//!   is how archives try to escape.
//! - Attributes that only overlayfs itself or another operating system understands are left out.

use std::collections::HashSet;
use std::path::Path;

use thiserror::Error;

use super::path::{PathProblem, components};
use super::tar::{Entry, EntryKind, Reader, Source, Stream, TarProblem};
use crate::Limits;
use crate::erofs::{chunk_map_len, xattr};
use crate::tree::{Content, Extent, Kind, Metadata, Node, NodeId, Spool, SpoolWriter, Tree, TreeError, Xattrs};

/// Longest symbolic link target, in bytes (`PATH_MAX` with its NUL).
const LINK_MAX: usize = 4095;

/// Largest regular file, holes included: ext4's limit with 4 KiB blocks.
const FILE_MAX: u64 = 16 << 40;

/// Why a layer's content is refused.
#[derive(Debug, Error)]
pub enum LayerProblem {
    /// The tar stream itself is broken.
    #[error(transparent)]
    Tar(#[from] TarProblem),
    /// One entry is not acceptable.
    #[error("its entry \"{path}\" is refused: {problem}")]
    Entry {
        /// The path as the layer has it, unprintable bytes escaped.
        path: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The image asks for more than [`Limits`] allow.
    #[error("the image has more than {limit} {what}, this host's limit")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The spool could not be written.
    #[error("its contents cannot be written to the image store: {0}; see that the store's disk has room")]
    Spool(std::io::Error),
}

/// Why an entry is refused.
#[derive(Debug, Error)]
pub enum EntryProblem {
    /// Its path is not one of the image.
    #[error(transparent)]
    Path(#[from] PathProblem),
    /// Its header or data is malformed.
    #[error(transparent)]
    Tar(#[from] TarProblem),
    /// The tree cannot hold it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Something of the same layer that is no directory is in its way.
    #[error("it lies below something of the same layer that is not a directory")]
    BelowNonDirectory,
    /// The root of the image would not be a directory.
    #[error("it would make the root of the image something else than a directory")]
    Root,
    /// A hard link without target.
    #[error("it is a hard link to \"{0}\", which the image does not have")]
    LinkTarget(String),
    /// A hard link to a directory.
    #[error("it is a hard link to \"{0}\", which is a directory")]
    LinkToDirectory(String),
    /// A symbolic link's target is empty, too long, or has a NUL.
    #[error("its link target is empty, longer than {LINK_MAX} bytes, or has a NUL in it")]
    Symlink,
    /// An extended attribute cannot be stored.
    #[error(transparent)]
    Xattr(#[from] xattr::XattrError),
    /// Larger than any file system would hold.
    #[error("it is a file of {0} bytes")]
    Large(u64),
    /// A name that begins as a whiteout but names nothing.
    #[error("it is a whiteout that names nothing")]
    Whiteout,
}

/// Merges layers, lowest first, into one tree whose file contents are in one spool.
#[derive(Debug)]
pub struct Merger {
    tree: Tree,
    spool: SpoolWriter,
    limits: Limits,
    layers: u16,
    entries: u64,
    metadata_bytes: u64,
}

impl Merger {
    /// An empty tree; file contents go to a nameless file on the file system of `dir`.
    ///
    /// # Errors
    /// When the spool cannot be made.
    pub fn new_in(dir: &Path, limits: Limits) -> std::io::Result<Self> {
        let spool = SpoolWriter::new_in(dir)?;
        Ok(Self { tree: Tree::new(), spool, limits, layers: 0, entries: 0, metadata_bytes: 0 })
    }

    /// Merges one layer, an uncompressed tar stream, and reads the stream to its end.
    ///
    /// # Errors
    /// [`LayerProblem`]. The tree is then half merged and of no use.
    pub fn apply(&mut self, layer: &mut dyn std::io::Read) -> Result<(), LayerProblem> {
        if self.layers >= self.limits.layers {
            return Err(LayerProblem::Limit { what: "layers", limit: u64::from(self.limits.layers) });
        }
        let mut reader = Reader::new(Stream(layer));
        let mut cleaned = HashSet::new();
        while let Some(entry) = reader.next()? {
            self.charge(&entry)?;
            let path = entry.path.clone();
            self.entry(entry, &mut reader, &mut cleaned).map_err(|failure| match failure {
                Failure::Layer(problem) => problem,
                Failure::Entry(problem) => LayerProblem::Entry { path: path.escape_ascii().to_string(), problem },
            })?;
        }
        // The layer's digest covers what stands behind the end mark too.
        std::io::copy(&mut reader.into_inner(), &mut std::io::sink()).map_err(TarProblem::Io)?;
        self.layers += 1;
        Ok(())
    }

    /// The merged tree and its contents.
    ///
    /// # Errors
    /// When the spool cannot be completed.
    pub fn finish(self) -> std::io::Result<(Tree, Spool)> {
        Ok((self.tree, self.spool.finish()?))
    }

    fn charge(&mut self, entry: &Entry) -> Result<(), LayerProblem> {
        const PER_ENTRY: usize = 200;
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
        let runs = entry.runs.as_ref().map_or(0, |runs| runs.len() * size_of::<Extent>());
        let bytes = PER_ENTRY + entry.path.len() + entry.link.len() + attributes + runs;
        // A sparse file costs a map in the image, however little is stored of it.
        let map = if entry.runs.is_some() { chunk_map_len(entry.size) } else { 0 };
        self.entries += 1;
        self.metadata_bytes = self.metadata_bytes.saturating_add(bytes as u64).saturating_add(map);
        if self.entries > self.limits.entries {
            return Err(LayerProblem::Limit { what: "entries", limit: self.limits.entries });
        }
        if self.metadata_bytes > self.limits.metadata_bytes {
            return Err(LayerProblem::Limit { what: "bytes of metadata", limit: self.limits.metadata_bytes });
        }
        Ok(())
    }

    fn entry<R: Source>(
        &mut self,
        entry: Entry,
        data: &mut Reader<R>,
        cleaned: &mut HashSet<NodeId>,
    ) -> Result<(), Failure> {
        let path = components(&entry.path).map_err(EntryProblem::from)?;
        let Some((name, parents)) = path.split_last() else { return Ok(self.root(entry)?) };
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return Ok(self.whiteout(parents, hidden, cleaned)?);
        }
        // Other `.wh..wh.` names are aufs's own bookkeeping.
        if parents.iter().any(|parent| parent.starts_with(b".wh..wh.")) {
            return Ok(());
        }
        let parent = self.parents(parents)?;
        let metadata = metadata(&entry);
        let xattrs = attributes(entry.xattrs)?;
        let kind = match entry.kind {
            EntryKind::Directory => {
                if let Some(existing) = self.tree.entry(parent, name).filter(|e| self.is_directory(e.node)) {
                    let node = self.tree.node_mut(existing.node);
                    node.metadata = metadata;
                    node.xattrs = xattrs;
                    return Ok(self.link(parent, name, existing.node)?);
                }
                Kind::Directory(crate::tree::Directory::new())
            }
            EntryKind::HardLink => {
                let target = self.link_target(&entry.link)?;
                return Ok(self.link(parent, name, target)?);
            }
            EntryKind::Symlink => {
                if entry.link.is_empty() || entry.link.len() > LINK_MAX || entry.link.contains(&0) {
                    return Err(EntryProblem::Symlink.into());
                }
                Kind::Symlink(entry.link.into_boxed_slice())
            }
            EntryKind::CharDevice(device) => Kind::CharDevice(device),
            EntryKind::BlockDevice(device) => Kind::BlockDevice(device),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::File => {
                if entry.size > FILE_MAX {
                    return Err(EntryProblem::Large(entry.size).into());
                }
                let mut data = Tagged { inner: data, failed: false };
                let spooled = self.spool.append(&mut data, entry.stored);
                let start = match spooled {
                    Ok(start) => start,
                    Err(error) if data.failed || error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return Err(EntryProblem::Tar(TarProblem::Io(error)).into());
                    }
                    Err(error) => return Err(Failure::Layer(LayerProblem::Spool(error))),
                };
                Kind::File { size: entry.size, content: content(start, entry.size, entry.runs) }
            }
        };
        let node = self.tree.add(Node { metadata, xattrs, kind }).map_err(EntryProblem::from)?;
        Ok(self.link(parent, name, node)?)
    }

    fn root(&mut self, entry: Entry) -> Result<(), EntryProblem> {
        if entry.kind != EntryKind::Directory {
            return Err(EntryProblem::Root);
        }
        let root = self.tree.node_mut(Tree::ROOT);
        root.metadata = metadata(&entry);
        root.xattrs = attributes(entry.xattrs)?;
        Ok(())
    }

    fn is_directory(&self, node: NodeId) -> bool {
        self.tree.node(node).directory().is_some()
    }

    fn link(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), EntryProblem> {
        Ok(self.tree.link(parent, name, node, self.layers)?)
    }

    /// The directory to put an entry in; what is missing on the way is made.
    fn parents(&mut self, path: &[&[u8]]) -> Result<NodeId, EntryProblem> {
        let mut at = Tree::ROOT;
        for name in path {
            at = match self.tree.entry(at, name) {
                Some(entry) if self.is_directory(entry.node) => entry.node,
                Some(entry) if entry.layer == self.layers => return Err(EntryProblem::BelowNonDirectory),
                _ => {
                    let made = self.tree.add(Node::implicit_directory())?;
                    self.link(at, name, made)?;
                    made
                }
            };
        }
        Ok(at)
    }

    fn find(&self, path: &[&[u8]]) -> Option<NodeId> {
        path.iter().try_fold(Tree::ROOT, |at, name| Some(self.tree.entry(at, name)?.node))
    }

    fn link_target(&self, target: &[u8]) -> Result<NodeId, EntryProblem> {
        let shown = || target.escape_ascii().to_string();
        let path = components(target)?;
        let node = self.find(&path).ok_or_else(|| EntryProblem::LinkTarget(shown()))?;
        if self.is_directory(node) { Err(EntryProblem::LinkToDirectory(shown())) } else { Ok(node) }
    }

    fn whiteout(
        &mut self,
        parents: &[&[u8]],
        hidden: &[u8],
        cleaned: &mut HashSet<NodeId>,
    ) -> Result<(), EntryProblem> {
        let opaque = hidden == b".wh..opq";
        if !opaque && hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(EntryProblem::Whiteout);
        }
        // What is not there needs no hiding.
        let Some(parent) = self.find(parents).filter(|parent| self.is_directory(*parent)) else { return Ok(()) };
        if opaque {
            self.hide_children(parent, cleaned);
        } else {
            self.hide(parent, hidden, cleaned);
        }
        Ok(())
    }

    /// Takes away what lower layers put at `name` in `dir`; what this layer put there stays.
    fn hide(&mut self, dir: NodeId, name: &[u8], cleaned: &mut HashSet<NodeId>) {
        let Some(entry) = self.tree.entry(dir, name) else { return };
        let lower = entry.layer < self.layers;
        if self.is_directory(entry.node) {
            self.hide_children(entry.node, cleaned);
            let empty = self.tree.node(entry.node).directory().is_some_and(std::collections::BTreeMap::is_empty);
            if lower && !empty {
                // This layer put something below without describing the directory anew.
                let node = self.tree.node_mut(entry.node);
                node.metadata = Metadata::IMPLICIT_DIRECTORY;
                node.xattrs = None;
                let kept = self.tree.link(dir, name, entry.node, self.layers);
                debug_assert!(kept.is_ok(), "the entry was there already");
            } else if lower {
                self.tree.unlink(dir, name);
            }
        } else if lower {
            self.tree.unlink(dir, name);
        }
    }

    /// Hides all that lower layers put into `dir`. Once is enough for each layer: whatever comes
    /// later is the layer's own. That also keeps a layer full of whiteouts from taking quadratic
    /// time.
    fn hide_children(&mut self, dir: NodeId, cleaned: &mut HashSet<NodeId>) {
        if !cleaned.insert(dir) {
            return;
        }
        let names: Vec<Box<[u8]>> =
            self.tree.node(dir).directory().map(|entries| entries.keys().cloned().collect()).unwrap_or_default();
        for name in names {
            self.hide(dir, &name, cleaned);
        }
    }
}

/// Tells what stops one entry from what stops the whole layer.
enum Failure {
    Entry(EntryProblem),
    Layer(LayerProblem),
}

impl From<EntryProblem> for Failure {
    fn from(problem: EntryProblem) -> Self {
        Self::Entry(problem)
    }
}

/// Remembers whether it was reading, rather than writing, that failed.
struct Tagged<'a, R> {
    inner: &'a mut R,
    failed: bool,
}

impl<R: std::io::Read> std::io::Read for Tagged<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer).inspect_err(|_| self.failed = true)
    }
}

fn metadata(entry: &Entry) -> Metadata {
    // A link's permission has no meaning on Linux and is always shown as this.
    let mode = if entry.kind == EntryKind::Symlink { 0o777 } else { entry.mode };
    let (mtime, mtime_nsec) = entry.mtime;
    Metadata { mode, uid: entry.uid, gid: entry.gid, mtime, mtime_nsec }
}

/// What of an entry's attributes the image keeps.
fn attributes(mut xattrs: Xattrs) -> Result<Option<Box<Xattrs>>, EntryProblem> {
    xattrs.retain(|name, _| xattr::is_supported(name) && !name.starts_with(b"trusted.overlay."));
    if xattrs.is_empty() {
        return Ok(None);
    }
    xattr::body_len(&xattrs)?;
    Ok(Some(Box::new(xattrs)))
}

fn content(start: u64, size: u64, runs: Option<Vec<(u64, u64)>>) -> Content {
    let Some(runs) = runs else { return Content::Dense(start) };
    let mut spool = start;
    let mut extents: Vec<Extent> = Vec::with_capacity(runs.len());
    for (offset, len) in runs.into_iter().filter(|(_, len)| *len > 0) {
        match extents.last_mut() {
            Some(last) if last.offset + last.len == offset => last.len += len,
            _ => extents.push(Extent { offset, spool, len }),
        }
        spool += len;
    }
    match extents.as_slice() {
        [whole] if whole.offset == 0 && whole.len == size => Content::Dense(whole.spool),
        _ => Content::Sparse(extents.into_boxed_slice()),
    }
}
