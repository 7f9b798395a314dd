//! Decides the place of every inode, inline tail and block before a byte is written.

use std::collections::HashMap;

use super::inode::{Layout, SLOT, Shape};
use super::{BLOCK, Device, TreeLimit, chunk, devices, dirent, xattr};
use crate::tree::{Blocks, Content, Kind, NodeId, Tree};

/// An inode's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) node: NodeId,
    /// The directory it was first found in; for a directory that is its `..`.
    pub(super) parent: NodeId,
    pub(super) nlink: u32,
    pub(super) nid: u64,
    pub(super) size: u64,
    pub(super) shape: Shape,
    pub(super) layout: Layout,
    pub(super) xattr_len: u32,
    /// First data block; 0 when it has none. For a file it is in the disk that the devices make.
    pub(super) block: u32,
    /// Blocks that are written here, the inline tail not counted: none of a file.
    pub(super) blocks: u32,
}

impl Placed {
    /// Offset of the inode in the image.
    pub(super) fn offset(&self) -> u64 {
        self.nid * SLOT
    }

    /// Bytes of its data that stand beside the inode.
    pub(super) fn tail_len(&self) -> u64 {
        if self.layout == Layout::Inline { self.size % BLOCK } else { 0 }
    }
}

/// The layout of a whole image.
#[derive(Debug)]
pub(super) struct Plan {
    placed: Vec<Placed>,
    /// Node index to index in `placed`, `u32::MAX` for what is not reachable.
    places: Vec<u32>,
    build_time: (i64, u32),
    blocks: u32,
    devices: Vec<Device>,
}

impl Plan {
    pub(super) fn new(tree: &Tree, devices: &[Device]) -> Result<Self, TreeLimit> {
        let (mut placed, places) = walk(tree)?;
        let build_time = most_common_time(tree, &placed);
        let mut end = devices::table_end(devices.len()).ok_or(TreeLimit::TooLarge)?;
        for place in &mut placed {
            end = place_inode(tree, place, build_time, end)?;
        }
        let mut block = end.div_ceil(BLOCK);
        for place in &mut placed {
            let blocks = data_blocks(tree, place);
            place.blocks = u32::try_from(blocks).map_err(|_| TreeLimit::TooLarge)?;
            if blocks > 0 {
                place.block = u32::try_from(block).map_err(|_| TreeLimit::TooLarge)?;
            }
            block += blocks;
        }
        let blocks = u32::try_from(block).map_err(|_| TreeLimit::TooLarge)?;
        let starts = devices::starts(blocks, devices).ok_or(TreeLimit::TooLarge)?;
        for place in &mut placed {
            if let Some(blocks) = file_blocks(tree, place) {
                let start = starts.get(usize::from(blocks.device)).ok_or(TreeLimit::TooLarge)?;
                place.block = start.checked_add(blocks.first).ok_or(TreeLimit::TooLarge)?;
            }
        }
        Ok(Self { placed, places, build_time, blocks, devices: devices.to_vec() })
    }

    /// The devices that files are in.
    pub(super) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Inodes in the order of their offsets; their data blocks are in the same order.
    pub(super) fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// The id of a node's inode. Every node that an entry of the tree names has one.
    pub(super) fn nid(&self, node: NodeId) -> u64 {
        let place = self.places.get(node.index()).and_then(|at| self.placed.get(*at as usize));
        debug_assert!(place.is_some(), "the walk met every node that has a name");
        place.map_or(0, |place| place.nid)
    }

    /// The root is placed first, right behind the superblock.
    pub(super) fn root_nid(&self) -> u16 {
        u16::try_from(self.nid(Tree::ROOT)).unwrap_or(u16::MAX)
    }

    pub(super) fn build_time(&self) -> (i64, u32) {
        self.build_time
    }

    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }

    pub(super) fn has_chunks(&self) -> bool {
        self.placed.iter().any(|place| matches!(place.layout, Layout::Chunked { .. }))
    }
}

/// Every reachable node once: a directory's children stand together, its subdirectories' children
/// follow in order, so that listing a directory reads neighbouring inodes.
fn walk(tree: &Tree) -> Result<(Vec<Placed>, Vec<u32>), TreeLimit> {
    let mut placed = Vec::new();
    let mut places = vec![u32::MAX; tree.len()];
    let mut meet = |node: NodeId, parent: NodeId| -> Result<bool, TreeLimit> {
        let Some(place) = places.get_mut(node.index()) else { return Ok(false) };
        if let Some(known) = placed.get_mut(*place as usize) {
            let known: &mut Placed = known;
            known.nlink = known.nlink.saturating_add(1);
            let directory = tree.node(node).directory().is_some();
            return if directory { Err(TreeLimit::SharedDirectory) } else { Ok(false) };
        }
        *place = u32::try_from(placed.len()).map_err(|_| TreeLimit::TooLarge)?;
        let fresh = Placed {
            node,
            parent,
            nlink: 1,
            nid: 0,
            size: 0,
            shape: Shape::Compact,
            layout: Layout::Plain,
            xattr_len: 0,
            block: 0,
            blocks: 0,
        };
        placed.push(fresh);
        Ok(true)
    };
    meet(Tree::ROOT, Tree::ROOT)?;
    let mut directories = vec![Tree::ROOT];
    let mut subdirectories = HashMap::new();
    while let Some(dir) = directories.pop() {
        let first = directories.len();
        for entry in tree.node(dir).directory().into_iter().flat_map(|entries| entries.values()) {
            if meet(entry.node, dir)? && tree.node(entry.node).directory().is_some() {
                directories.push(entry.node);
            }
        }
        let found = directories.len() - first;
        subdirectories.insert(dir, u32::try_from(found).unwrap_or(u32::MAX));
        if let Some(found) = directories.get_mut(first..) {
            found.reverse();
        }
    }
    for place in &mut placed {
        if let Some(found) = subdirectories.get(&place.node) {
            // Its name, its `.`, and the `..` of each subdirectory.
            place.nlink = found.saturating_add(2);
        }
    }
    Ok((placed, places))
}

/// The time that most nodes have becomes the image's build time, because nodes that have it can
/// be compact. Of equally common ones the earliest, so that the choice is the same every time.
fn most_common_time(tree: &Tree, placed: &[Placed]) -> (i64, u32) {
    let mut times: HashMap<(i64, u32), u32> = HashMap::new();
    for place in placed {
        let metadata = &tree.node(place.node).metadata;
        *times.entry((metadata.mtime, metadata.mtime_nsec)).or_default() += 1;
    }
    let best = times.into_iter().max_by_key(|(time, count)| (*count, std::cmp::Reverse(*time)));
    best.map(|(time, _)| time).unwrap_or_default()
}

/// Puts one inode at or after `end`; gives the end of it and what stands beside it.
fn place_inode(tree: &Tree, place: &mut Placed, build_time: (i64, u32), end: u64) -> Result<u64, TreeLimit> {
    let node = tree.node(place.node);
    place.size = match &node.kind {
        Kind::Directory(_) => dirent::size(&dirent::names(tree, place.node, place.parent)),
        Kind::File { size, .. } => *size,
        Kind::Symlink(target) => target.len() as u64,
        Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket => 0,
    };
    if let Some(xattrs) = &node.xattrs {
        place.xattr_len = u32::try_from(xattr::body_len(xattrs)?).map_err(|_| TreeLimit::TooLarge)?;
    }
    place.shape = Shape::of(&node.metadata, place.size, place.nlink, build_time);
    let head = place.shape.len() + u64::from(place.xattr_len);
    let tail = place.size % BLOCK;
    let beside = match &node.kind {
        Kind::File { size, content: Content::Sparse { .. } } => {
            place.layout = Layout::Chunked { bits: chunk::bits(*size) };
            chunk::map_len(*size)
        }
        Kind::File { content: Content::Dense { tail: Some(_), .. }, .. } => {
            place.layout = Layout::Inline;
            tail
        }
        Kind::File { .. } => 0,
        _ if tail > 0 && head + tail <= BLOCK => {
            place.layout = Layout::Inline;
            tail
        }
        _ => 0,
    };
    let mut at = end.next_multiple_of(SLOT);
    // An inline tail must not cross a block (erofs_map_blocks_flatmode of fs/erofs/data.c), and
    // neither should an inode.
    let together = if place.layout == Layout::Inline { head + beside } else { place.shape.len() };
    if at % BLOCK + together > BLOCK {
        at = at.next_multiple_of(BLOCK);
    }
    place.nid = at / SLOT;
    Ok(at + head + beside)
}

/// Blocks that are written beside the inodes: those of directories, and of links that are as long.
fn data_blocks(tree: &Tree, place: &Placed) -> u64 {
    match (&tree.node(place.node).kind, place.layout) {
        (Kind::File { .. }, _) => 0,
        (_, Layout::Inline) => place.size / BLOCK,
        _ => place.size.div_ceil(BLOCK),
    }
}

/// Where a file's blocks are, if it has any.
fn file_blocks(tree: &Tree, place: &Placed) -> Option<Blocks> {
    match &tree.node(place.node).kind {
        Kind::File { size, content: Content::Dense { blocks, tail } } => {
            (*size >= BLOCK || *size > 0 && tail.is_none()).then_some(*blocks)
        }
        Kind::File { content: Content::Sparse { blocks, runs }, .. } => (!runs.is_empty()).then_some(*blocks),
        _ => None,
    }
}
