//! A root file system in memory: directories, names and metadata in an arena of nodes.
//!
//! Layers are merged into a [`Tree`] and the EROFS writer lays one out on disk. File contents do
//! not live here: a node holds the place of its bytes in the layers' data, and of a short tail in a
//! [`Spool`]. Nothing in this module touches the host's file system by a path that an image chose.

mod spool;

use std::collections::BTreeMap;

use thiserror::Error;

pub use spool::{Spool, SpoolWriter};

/// Longest name of one directory entry, in bytes (`NAME_MAX`, and EROFS's own limit).
pub const NAME_MAX: usize = 255;

/// Symbolic links followed in one lookup before it is given up, as the kernel's `MAXSYMLINKS`.
const SYMLINKS_MAX: usize = 40;

/// A node of one particular [`Tree`]. Meaningless in any other tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// The node's place in its tree, dense from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a directory entry says: which node, and which layer last put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent {
    /// The node behind the name.
    pub node: NodeId,
    /// Index of the layer that last wrote this entry; whiteouts hide entries of lower layers only.
    pub layer: u16,
}

/// A directory's entries, sorted bytewise as EROFS wants them.
pub type Directory = BTreeMap<Box<[u8]>, Dirent>;

/// Extended attributes by full name (`security.capability`).
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Owner, permission and time of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with set-uid, set-gid and sticky: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since the epoch; may be negative.
    pub mtime: i64,
    /// Modification time, nanoseconds below one second.
    pub mtime_nsec: u32,
}

impl Metadata {
    /// What a directory gets that no layer describes: `0755`, root, the epoch.
    pub const IMPLICIT_DIRECTORY: Self = Self { mode: 0o755, uid: 0, gid: 0, mtime: 0, mtime_nsec: 0 };
}

/// A run of a sparse file's bytes; between runs the file is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file the run begins.
    pub offset: u64,
    /// Its length in bytes, never 0.
    pub len: u64,
}

/// Whole blocks of one of the devices that hold the layers' data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Which device, from 0.
    pub device: u16,
    /// The first block, counted from the device's start.
    pub first: u32,
}

/// Where a regular file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of them in one piece.
    Dense {
        /// The whole blocks, and the last one too unless it is a tail.
        blocks: Blocks,
        /// Offset in the spool of the bytes beyond the last whole block, where these are kept apart.
        tail: Option<u64>,
    },
    /// Runs with holes between them.
    Sparse {
        /// Those chunks of the file that have data, one after the other.
        blocks: Blocks,
        /// The runs, in ascending order; they do not overlap.
        runs: Box<[Extent]>,
    },
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory with its entries.
    Directory(Directory),
    /// A regular file of so many bytes.
    File {
        /// Length in bytes, holes included.
        size: u64,
        /// Where the bytes are.
        content: Content,
    },
    /// A symbolic link and its target, 1 to 4095 bytes.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket. Tar has none; other builders may.
    Socket,
}

/// A device number that Linux can represent: major up to 12 bits, minor up to 20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    major: u16,
    minor: u32,
}

impl Device {
    /// `None` when the number does not fit Linux's 32-bit `dev_t`.
    #[must_use]
    pub fn new(major: u32, minor: u32) -> Option<Self> {
        let major = u16::try_from(major).ok().filter(|major| *major < 1 << 12)?;
        (minor < 1 << 20).then_some(Self { major, minor })
    }

    /// The number as `new_encode_dev()` of `include/linux/kdev_t.h` packs it.
    #[must_use]
    pub fn encode(self) -> u32 {
        (self.minor & 0xff) | (u32::from(self.major) << 8) | ((self.minor & !0xff) << 12)
    }
}

/// One inode: a directory entry's target. Hard links are several entries with one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner, permission, time.
    pub metadata: Metadata,
    /// Extended attributes; boxed because few nodes have any.
    pub xattrs: Option<Box<Xattrs>>,
    /// What it is.
    pub kind: Kind,
}

impl Node {
    /// A node without extended attributes.
    #[must_use]
    pub fn new(metadata: Metadata, kind: Kind) -> Self {
        Self { metadata, xattrs: None, kind }
    }

    /// An empty directory that no layer described.
    #[must_use]
    pub fn implicit_directory() -> Self {
        Self::new(Metadata::IMPLICIT_DIRECTORY, Kind::Directory(Directory::new()))
    }

    /// Its entries, if it is a directory.
    #[must_use]
    pub fn directory(&self) -> Option<&Directory> {
        match &self.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }
}

/// Why a tree refused a change.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TreeError {
    /// More nodes than 32 bits count.
    #[error("the tree has more nodes than can be numbered")]
    TooManyNodes,
    /// An entry was put below something that is not a directory.
    #[error("the parent of the entry is not a directory")]
    NotADirectory,
    /// A name is empty, `.`, `..`, too long, or has a slash or NUL in it.
    #[error("the name is not one that a directory entry can have")]
    BadName,
}

/// The file system. Node ids are handed out by [`Tree::add`] and stay valid for its life; a node
/// that no entry names any more is simply not reachable.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The root directory, present in every tree.
    pub const ROOT: NodeId = NodeId(0);

    /// An empty root, `0755`, owned by root.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: vec![Node::implicit_directory()] }
    }

    /// The node of an id this tree gave out.
    ///
    /// # Panics
    /// With an id of a larger tree: a bug of the caller, never of an image.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "ids are made by add() of this tree and nodes are never removed")]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// As [`Tree::node`], to change it.
    ///
    /// # Panics
    /// As [`Tree::node`].
    #[expect(clippy::indexing_slicing, reason = "as node()")]
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// How many nodes were ever added, reachable or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: the root is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Adds a node that no entry names yet.
    ///
    /// # Errors
    /// [`TreeError::TooManyNodes`].
    pub fn add(&mut self, node: Node) -> Result<NodeId, TreeError> {
        let id = u32::try_from(self.nodes.len()).map_err(|_| TreeError::TooManyNodes)?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    /// The entry `name` of directory `dir`.
    #[must_use]
    pub fn entry(&self, dir: NodeId, name: &[u8]) -> Option<Dirent> {
        self.node(dir).directory()?.get(name).copied()
    }

    /// Lets `name` in `dir` mean `node`, replacing what it meant before.
    ///
    /// # Errors
    /// [`TreeError::NotADirectory`] and [`TreeError::BadName`].
    pub fn link(&mut self, dir: NodeId, name: &[u8], node: NodeId, layer: u16) -> Result<(), TreeError> {
        let reserved = name.is_empty() || name == b"." || name == b"..";
        if reserved || name.len() > NAME_MAX || name.contains(&b'/') || name.contains(&0) {
            return Err(TreeError::BadName);
        }
        let Kind::Directory(entries) = &mut self.node_mut(dir).kind else { return Err(TreeError::NotADirectory) };
        entries.insert(name.into(), Dirent { node, layer });
        Ok(())
    }

    /// Forgets `name` in `dir`; whether it was there.
    pub fn unlink(&mut self, dir: NodeId, name: &[u8]) -> bool {
        match &mut self.node_mut(dir).kind {
            Kind::Directory(entries) => entries.remove(name).is_some(),
            _ => false,
        }
    }

    /// The node at an absolute path, symbolic links followed **inside the tree** as a process
    /// whose root it is would see them. For reading a few known files (`/etc/passwd`).
    #[must_use]
    pub fn resolve(&self, path: &[u8]) -> Option<NodeId> {
        let mut pending: Vec<&[u8]> = split_reversed(path);
        let mut at = vec![Self::ROOT];
        let mut links = 0;
        while let Some(component) = pending.pop() {
            let here = *at.last()?;
            match component {
                b"" | b"." => {}
                b".." if at.len() > 1 => {
                    at.pop();
                }
                b".." => {}
                name => {
                    let next = self.entry(here, name)?.node;
                    if let Kind::Symlink(target) = &self.node(next).kind {
                        links += 1;
                        if links > SYMLINKS_MAX {
                            return None;
                        }
                        if target.starts_with(b"/") {
                            at.truncate(1);
                        }
                        pending.extend(split_reversed(target));
                    } else {
                        at.push(next);
                    }
                }
            }
        }
        at.last().copied()
    }
}

fn split_reversed(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Node {
        Node::new(
            Metadata::IMPLICIT_DIRECTORY,
            Kind::File { size: 0, content: Content::Dense { blocks: Blocks::default(), tail: None } },
        )
    }

    #[test]
    fn a_lookup_follows_links_inside_the_tree_only() {
        let mut tree = Tree::new();
        let etc = tree.add(Node::implicit_directory()).unwrap();
        let passwd = tree.add(file()).unwrap();
        tree.link(Tree::ROOT, b"etc", etc, 0).unwrap();
        tree.link(etc, b"real", passwd, 0).unwrap();
        let up = Kind::Symlink((*b"../../../../etc/real").into());
        let link = tree.add(Node::new(Metadata::IMPLICIT_DIRECTORY, up)).unwrap();
        tree.link(etc, b"passwd", link, 0).unwrap();
        assert_eq!(tree.resolve(b"/etc/passwd"), Some(passwd));
        assert_eq!(tree.resolve(b"/etc/nothing"), None);
    }

    #[test]
    fn a_ring_of_links_is_given_up() {
        let mut tree = Tree::new();
        let ring = tree.add(Node::new(Metadata::IMPLICIT_DIRECTORY, Kind::Symlink((*b"/ring").into()))).unwrap();
        tree.link(Tree::ROOT, b"ring", ring, 0).unwrap();
        assert_eq!(tree.resolve(b"/ring"), None);
    }

    #[test]
    fn names_that_no_directory_can_hold_are_refused() {
        let mut tree = Tree::new();
        let node = tree.add(file()).unwrap();
        let long = [b'a'; 256];
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &long] {
            assert_eq!(tree.link(Tree::ROOT, name, node, 0), Err(TreeError::BadName));
        }
        assert_eq!(tree.link(node, b"below", node, 0), Err(TreeError::NotADirectory));
    }

    #[test]
    fn device_numbers_are_packed_as_linux_packs_them() {
        assert_eq!(Device::new(8, 1).unwrap().encode(), 0x801);
        assert_eq!(Device::new(0xfff, 0xf_ffff).unwrap().encode(), 0xffff_ffff);
        assert!(Device::new(0x1000, 0).is_none());
        assert!(Device::new(0, 0x10_0000).is_none());
    }
}
