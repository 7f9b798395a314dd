//! Directory blocks: in each, 12-byte entries (`struct erofs_dirent`), then the names, sorted
//! bytewise within a block and from block to block.

use super::BLOCK_LEN;
use crate::tree::{Kind, NodeId, Tree};

const ENTRY_LEN: usize = 12;

/// The names of `dir` in on-disk order, `.` and `..` in their places among them.
pub(super) fn names(tree: &Tree, dir: NodeId, parent: NodeId) -> Vec<(&[u8], NodeId)> {
    let entries = tree.node(dir).directory();
    let mut names: Vec<(&[u8], NodeId)> = Vec::with_capacity(entries.map_or(0, |entries| entries.len()) + 2);
    names.push((b".", dir));
    names.push((b"..", parent));
    names.extend(entries.into_iter().flatten().map(|(name, entry)| (name.as_ref(), entry.node)));
    names.sort_unstable_by_key(|(name, _)| *name);
    names
}

/// Cuts sorted names into runs, each of which fills one block.
fn blocks<'a, 'n>(mut names: &'a [(&'n [u8], NodeId)]) -> impl Iterator<Item = &'a [(&'n [u8], NodeId)]> {
    std::iter::from_fn(move || {
        let mut used = 0;
        let fitting = names
            .iter()
            .take_while(|(name, _)| {
                used += ENTRY_LEN + name.len();
                used <= BLOCK_LEN
            })
            .count();
        // A name is at most 255 bytes, so every block takes some.
        let (block, rest) = names.split_at_checked(fitting)?;
        names = rest;
        (!block.is_empty()).then_some(block)
    })
}

fn block_len(block: &[(&[u8], NodeId)]) -> usize {
    block.iter().map(|(name, _)| ENTRY_LEN + name.len()).sum()
}

/// The directory's `i_size`: whole blocks, and of the last one what is used.
pub(super) fn size(names: &[(&[u8], NodeId)]) -> u64 {
    let (mut count, mut last) = (0_u64, 0);
    for block in blocks(names) {
        count += 1;
        last = block_len(block);
    }
    count.saturating_sub(1) * BLOCK_LEN as u64 + last as u64
}

/// The directory's bytes, [`size`] of them.
pub(super) fn encode(names: &[(&[u8], NodeId)], tree: &Tree, nid: impl Fn(NodeId) -> u64) -> Vec<u8> {
    let mut out = Vec::new();
    for block in blocks(names) {
        out.resize(out.len().next_multiple_of(BLOCK_LEN), 0);
        let mut name_at = block.len() * ENTRY_LEN;
        for (name, node) in block {
            out.extend(nid(*node).to_le_bytes());
            out.extend(u16::try_from(name_at).unwrap_or_default().to_le_bytes());
            out.extend([file_type(&tree.node(*node).kind), 0]);
            name_at += name.len();
        }
        for (name, _) in block {
            out.extend(*name);
        }
    }
    out
}

/// `FT_*` of `include/linux/fs_types.h`.
fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory(_) => 2,
        Kind::CharDevice(_) => 3,
        Kind::BlockDevice(_) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn the_dots_stand_where_sorting_puts_them() {
        let mut tree = Tree::new();
        for name in [&b"-x"[..], b".-", b".a", b"z"] {
            let node = tree.add(Node::implicit_directory()).unwrap();
            tree.link(Tree::ROOT, name, node, 0).unwrap();
        }
        let names: Vec<&[u8]> = names(&tree, Tree::ROOT, Tree::ROOT).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"-x"[..], b".", b".-", b"..", b".a", b"z"]);
    }

    #[test]
    fn blocks_are_filled_and_never_overfilled() {
        let long: Vec<Vec<u8>> = (0..1000).map(|n| format!("{n:0200}").into_bytes()).collect();
        let names: Vec<(&[u8], NodeId)> = long.iter().map(|name| (&name[..], Tree::ROOT)).collect();
        let bytes = encode(&names, &Tree::new(), |_| 7);
        assert_eq!(bytes.len() as u64, size(&names));
        assert_eq!(blocks(&names).map(<[_]>::len).sum::<usize>(), 1000);
        for block in blocks(&names) {
            assert!(block_len(block) <= BLOCK_LEN);
        }
        // 4096 / (12 + 200) = 19 names in each block.
        assert_eq!(blocks(&names).count(), 53);
    }
}
