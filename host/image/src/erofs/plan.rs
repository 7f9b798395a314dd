//! Decides the place of every inode, inline tail and block before a byte is written.

use std::collections::HashMap;

use super::inode::{Layout, SLOT, Shape};
use super::{BLOCK, TreeLimit, dirent, superblock, xattr};
use crate::tree::{Content, Extent, Kind, NodeId, Tree};

/// Longest tail of a regular file that is kept beside its inode. Longer ones would leave larger
/// gaps between inodes than the block they save.
const INLINE_FILE_MAX: u64 = 2048;

/// Most chunks that a sparse file is cut into; chunks grow beyond that (4 MiB of addresses).
const CHUNKS_MAX: u64 = 1 << 20;

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
    /// First data block; 0 when it has none.
    pub(super) block: u32,
    /// Data blocks, the inline tail not counted.
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
}

impl Plan {
    pub(super) fn new(tree: &Tree) -> Result<Self, TreeLimit> {
        let (mut placed, places) = walk(tree)?;
        let build_time = most_common_time(tree, &placed);
        let mut end = (superblock::OFFSET + superblock::LEN) as u64;
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
        // The last number means "hole" in a chunk map.
        let blocks = u32::try_from(block).ok().filter(|blocks| *blocks < u32::MAX).ok_or(TreeLimit::TooLarge)?;
        Ok(Self { placed, places, build_time, blocks })
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
    let tail_max = if matches!(node.kind, Kind::File { .. }) { INLINE_FILE_MAX } else { BLOCK };
    let beside = match &node.kind {
        Kind::File { size, content: Content::Sparse(_) } if *size > 0 => {
            let bits = chunk_bits(*size);
            place.layout = Layout::Chunked { bits };
            chunk_map_len(*size)
        }
        _ if tail > 0 && tail <= tail_max && head + tail <= BLOCK => {
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

fn data_blocks(tree: &Tree, place: &Placed) -> u64 {
    match (&tree.node(place.node).kind, place.layout) {
        (Kind::File { size, content: Content::Sparse(extents) }, Layout::Chunked { bits }) => {
            chunks_with_data(extents, bits).map(|chunk| chunk_blocks(*size, bits, chunk)).sum()
        }
        (_, Layout::Inline) => place.size / BLOCK,
        _ => place.size.div_ceil(BLOCK),
    }
}

/// Bytes of addresses that a sparse file of this size has beside its inode.
pub(crate) fn chunk_map_len(size: u64) -> u64 {
    size.div_ceil(BLOCK << chunk_bits(size)).saturating_mul(4)
}

fn chunk_bits(size: u64) -> u8 {
    (0..31).find(|bits| size.div_ceil(BLOCK << bits) <= CHUNKS_MAX).unwrap_or(31)
}

/// Numbers of the chunks that hold data, ascending.
pub(super) fn chunks_with_data(extents: &[Extent], bits: u8) -> impl Iterator<Item = u64> {
    let chunk = BLOCK << bits;
    let mut next = 0;
    extents.iter().flat_map(move |extent| {
        let first = (extent.offset / chunk).max(next);
        let end = (extent.offset + extent.len).div_ceil(chunk).max(first);
        next = end;
        first..end
    })
}

/// Blocks of one chunk: fewer in the last one of a file.
pub(super) fn chunk_blocks(size: u64, bits: u8, chunk: u64) -> u64 {
    let left = size.saturating_sub(chunk * (BLOCK << bits));
    left.min(BLOCK << bits).div_ceil(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_counted_once_however_runs_share_them() {
        let run = |offset, len| Extent { offset, spool: 0, len };
        let extents = [run(0, 1), run(10, 4096), run(5 * 4096, 1), run(5 * 4096 + 7, 1)];
        assert_eq!(chunks_with_data(&extents, 0).collect::<Vec<_>>(), [0, 1, 5]);
        assert_eq!(chunks_with_data(&extents, 2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(chunk_blocks(5 * 4096 + 8, 0, 5), 1);
        assert_eq!(chunk_blocks(5 * 4096 + 8, 2, 1), 2);
        assert_eq!(chunk_blocks(5 * 4096 + 8, 2, 0), 4);
    }

    #[test]
    fn a_huge_file_has_larger_chunks_instead_of_a_huge_map() {
        assert_eq!(chunk_bits(1), 0);
        assert_eq!(chunk_bits(4 << 30), 0);
        assert_eq!(chunk_bits((4 << 30) + 1), 1);
        assert_eq!(chunk_bits(16 << 40), 12);
    }
}
