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

use super::budget::Budget;
use super::path::components;
use super::place::{self, Place};
use super::problem::{EntryProblem, LINK_MAX, LayerProblem};
use super::stored::Stored;
use super::tar::{Entry, EntryKind, Reader, Source};
use crate::Limits;
use crate::erofs::{Device, xattr};
use crate::tree::{Blocks, Content, Kind, Metadata, Node, NodeId, Spool, SpoolWriter, Tree, Xattrs};

/// Merges layers, lowest first, into one tree. File contents stay where they are: in the layers' data, which become the
/// devices of the image. Short tails are gathered in one spool.
#[derive(Debug)]
pub struct Merger {
    tree: Tree,
    spool: SpoolWriter,
    devices: Vec<Device>,
    budget: Budget,
    layers: u16,
}

/// All layers, merged.
#[derive(Debug)]
pub struct Merged {
    /// What the root file system shows.
    pub tree: Tree,
    /// Tails of files.
    pub spool: Spool,
    /// Where the blocks of files are.
    pub devices: Vec<Device>,
}

impl Merger {
    /// An empty tree; tails go to a nameless file on the file system of `dir`.
    ///
    /// # Errors
    /// When the spool cannot be made.
    pub fn new_in(dir: &Path, limits: Limits) -> std::io::Result<Self> {
        let spool = SpoolWriter::new_in(dir)?;
        Ok(Self { tree: Tree::new(), spool, devices: Vec::new(), budget: Budget::new(limits), layers: 0 })
    }

    /// Merges one layer.
    ///
    /// # Errors
    /// [`LayerProblem`]. The tree is then half merged and of no use.
    pub fn apply(&mut self, layer: &Stored) -> Result<(), LayerProblem> {
        if self.layers >= self.budget.limits.layers {
            return Err(LayerProblem::Limit { what: "layers", limit: u64::from(self.budget.limits.layers) });
        }
        let device = self.device(layer);
        let mut blocks = place::Blocks::default();
        let mut cleaned = HashSet::new();
        let mut reader = layer.entries().map_err(LayerProblem::Stored)?;
        while let Some(entry) = reader.next()? {
            self.budget.charge(&entry)?;
            let path = entry.path.clone();
            let place = blocks.place(&entry).map_err(|problem| LayerProblem::of_entry(&path, problem))?;
            reader.leave_out(place.body);
            let content = Contents { data: &mut reader, device, place };
            self.entry(entry, content, &mut cleaned).map_err(|failure| match failure {
                Failure::Layer(problem) => problem,
                Failure::Entry(problem) => LayerProblem::of_entry(&path, problem),
            })?;
        }
        if blocks.count() != u64::from(layer.blocks()) {
            let cause = std::io::Error::new(std::io::ErrorKind::InvalidData, "its data do not fit its entries");
            return Err(LayerProblem::Stored(cause));
        }
        self.layers += 1;
        Ok(())
    }

    /// The layer's number among the devices. One that comes twice is one device; one without data needs none.
    fn device(&mut self, layer: &Stored) -> u16 {
        let known = self.devices.iter().position(|device| device.tag == layer.diff_id());
        let index = known.unwrap_or_else(|| {
            if layer.blocks() > 0 {
                self.devices.push(Device { tag: layer.diff_id(), blocks: layer.blocks() });
            }
            self.devices.len().saturating_sub(1)
        });
        // There are no more than layers.
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    /// The merged tree and its contents.
    ///
    /// # Errors
    /// When the spool cannot be completed.
    pub fn finish(self) -> std::io::Result<Merged> {
        Ok(Merged { tree: self.tree, spool: self.spool.finish()?, devices: self.devices })
    }

    fn entry<R: Source>(
        &mut self,
        entry: Entry,
        contents: Contents<'_, R>,
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
            EntryKind::File => Kind::File { size: entry.size, content: self.content(entry.stored, contents)? },
        };
        let node = self.tree.add(Node { metadata, xattrs, kind }).map_err(EntryProblem::from)?;
        Ok(self.link(parent, name, node)?)
    }

    /// Where a file's bytes are; its tail is spooled.
    fn content<R: Source>(&mut self, stored: u64, contents: Contents<'_, R>) -> Result<Content, Failure> {
        let Contents { data, device, place } = contents;
        let blocks = Blocks { device, first: place.first };
        if let Some(runs) = place.runs {
            return Ok(Content::Sparse { blocks, runs: runs.into_boxed_slice() });
        }
        let tail = stored - place.body;
        if tail == 0 {
            return Ok(Content::Dense { blocks, tail: None });
        }
        let mut data = Tagged { inner: data, failed: false };
        match self.spool.append(&mut data, tail) {
            Ok(start) => Ok(Content::Dense { blocks, tail: Some(start) }),
            Err(error) if data.failed || error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(Failure::Layer(LayerProblem::Stored(error)))
            }
            Err(error) => Err(Failure::Layer(LayerProblem::Spool(error))),
        }
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
    fn parents(&mut self, path: &[&[u8]]) -> Result<NodeId, Failure> {
        let mut at = Tree::ROOT;
        for name in path {
            at = match self.tree.entry(at, name) {
                Some(entry) if self.is_directory(entry.node) => entry.node,
                Some(entry) if entry.layer == self.layers => return Err(EntryProblem::BelowNonDirectory.into()),
                _ => {
                    self.budget.charge_directory(name).map_err(Failure::Layer)?;
                    let made = self.tree.add(Node::implicit_directory()).map_err(EntryProblem::from)?;
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

/// What an entry brings along: its place in the data of a device, and a reader of its tail.
struct Contents<'a, R> {
    data: &'a mut Reader<R>,
    device: u16,
    place: Place,
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

/// Whether the image keeps an attribute of this name.
pub(super) fn is_kept(name: &[u8]) -> bool {
    xattr::is_supported(name) && !name.starts_with(b"trusted.overlay.")
}

/// What of an entry's attributes the image keeps.
fn attributes(mut xattrs: Xattrs) -> Result<Option<Box<Xattrs>>, EntryProblem> {
    xattrs.retain(|name, _| is_kept(name));
    if xattrs.is_empty() {
        return Ok(None);
    }
    xattr::body_len(&xattrs)?;
    Ok(Some(Box::new(xattrs)))
}
