//! How layers merge, said in the plainest way: a map from path to what is there. Written from the
//! OCI image specification, without the tree of the code under test.

use std::collections::{BTreeMap, BTreeSet};

use super::layers::{Item, What};

/// What a path holds; hard links share a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub what: What,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub inode: usize,
}

type Paths = BTreeMap<String, Held>;

fn below(path: &str, dir: &str) -> bool {
    dir.is_empty() && !path.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn implicit(inode: usize) -> Held {
    Held { what: What::Directory, mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: BTreeMap::new(), inode }
}

/// The merged paths, or `None` when a layer must be refused.
pub fn merge(layers: &[Vec<Item>]) -> Option<Paths> {
    let mut fresh = 0;
    let mut paths = Paths::from([(String::new(), implicit(0))]);
    for layer in layers {
        let mut own: BTreeSet<String> = BTreeSet::new();
        for item in layer {
            match &item.what {
                What::Whiteout => hide(&mut paths, &own, &item.path, true),
                What::Opaque => hide(&mut paths, &own, &item.path, false),
                _ => put(&mut paths, &mut own, item, &mut fresh)?,
            }
        }
    }
    Some(paths)
}

fn hide(paths: &mut Paths, own: &BTreeSet<String>, path: &str, itself: bool) {
    if paths.get(path).is_none_or(|held| !itself && held.what != What::Directory) {
        return;
    }
    let doomed: Vec<String> = paths
        .keys()
        .filter(|p| below(p, path) || (itself && *p == path))
        .filter(|p| !own.contains(*p))
        .cloned()
        .collect();
    for gone in doomed {
        // A directory that this layer put something into without describing it stays, bare.
        if own.iter().any(|mine| below(mine, &gone) && paths.contains_key(mine)) {
            let inode = paths[&gone].inode;
            paths.insert(gone, implicit(inode));
        } else {
            paths.remove(&gone);
        }
    }
}

fn put(paths: &mut Paths, own: &mut BTreeSet<String>, item: &Item, fresh: &mut usize) -> Option<()> {
    let mut at = String::new();
    let components: Vec<&str> = item.path.split('/').filter(|c| !c.is_empty()).collect();
    let Some((_, parents)) = components.split_last() else {
        if item.what != What::Directory {
            return None;
        }
        let inode = paths[""].inode;
        paths.insert(String::new(), held(item, inode));
        return Some(());
    };
    for parent in parents {
        at = if at.is_empty() { (*parent).to_owned() } else { format!("{at}/{parent}") };
        match paths.get(&at) {
            Some(held) if held.what == What::Directory => {}
            Some(_) if own.contains(&at) => return None,
            _ => {
                *fresh += 1;
                paths.insert(at.clone(), implicit(*fresh));
                own.insert(at.clone());
            }
        }
    }
    let path = components.join("/");
    let new = if let What::HardLink(target) = &item.what {
        paths.get(target).filter(|held| held.what != What::Directory)?.clone()
    } else {
        *fresh += 1;
        held(item, *fresh)
    };
    let both_directories =
        new.what == What::Directory && paths.get(&path).is_some_and(|old| old.what == What::Directory);
    if !both_directories {
        paths.retain(|p, _| !below(p, &path));
        own.retain(|p| !below(p, &path));
    }
    own.insert(path.clone());
    paths.insert(path, new);
    Some(())
}

fn held(item: &Item, inode: usize) -> Held {
    let mode = if matches!(item.what, What::Symlink(_)) { 0o777 } else { item.mode };
    let Item { what, uid, gid, mtime, xattrs, .. } = item.clone();
    Held { what, mode, uid, gid, mtime, xattrs, inode }
}
