//! Paths as tar entries carry them, cut into components that a tree can hold.

use thiserror::Error;

use crate::tree::NAME_MAX;

/// Longest path of an entry, in bytes (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Directories an entry may lie below. Deeper than any `PATH_MAX` path people make by hand, low
/// enough that walking a tree recursively is safe.
const DEPTH_MAX: usize = 256;

/// Why a path is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PathProblem {
    /// A `..` component: the entry means to leave its root.
    #[error("its path leads out of the image through \"..\"")]
    Escapes,
    /// A NUL byte.
    #[error("its path has a NUL byte in it")]
    Nul,
    /// A component longer than `NAME_MAX`.
    #[error("a component of its path is longer than {NAME_MAX} bytes")]
    LongName,
    /// Longer than `PATH_MAX`.
    #[error("its path is longer than {PATH_MAX} bytes")]
    LongPath,
    /// Too many directories deep.
    #[error("its path is more than {DEPTH_MAX} directories deep")]
    Deep,
}

/// The components of `path` below the root: a leading slash, doubled slashes and `.` mean
/// nothing; no components at all is the root itself.
///
/// # Errors
/// [`PathProblem`]: nothing is repaired silently that could mean something else to another reader.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, PathProblem> {
    if path.len() > PATH_MAX {
        return Err(PathProblem::LongPath);
    }
    if path.contains(&0) {
        return Err(PathProblem::Nul);
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(PathProblem::Escapes),
            // A whiteout stands for a name that may itself be of full length.
            name if name.strip_prefix(b".wh.").unwrap_or(name).len() > NAME_MAX => return Err(PathProblem::LongName),
            name => components.push(name),
        }
    }
    if components.len() > DEPTH_MAX {
        return Err(PathProblem::Deep);
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_doubled_and_dotted_paths_mean_the_same_place() {
        for path in [&b"a/b"[..], b"/a/b", b"./a//b/", b"//a/./b"] {
            assert_eq!(components(path).unwrap(), [b"a", b"b"]);
        }
        assert!(components(b"./").unwrap().is_empty());
    }

    #[test]
    fn a_path_that_leaves_the_root_is_refused() {
        for path in [&b".."[..], b"../../etc/x", b"/..", b"a/../b"] {
            assert_eq!(components(path), Err(PathProblem::Escapes));
        }
    }

    #[test]
    fn unrepresentable_paths_are_refused() {
        assert_eq!(components(b"a\0b"), Err(PathProblem::Nul));
        assert_eq!(components(&[b'a'; 256]), Err(PathProblem::LongName));
        assert_eq!(components(&b"a/".repeat(257)), Err(PathProblem::Deep));
        assert_eq!(components(&b"a/".repeat(2049)), Err(PathProblem::LongPath));
    }
}
