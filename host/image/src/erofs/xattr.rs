//! Extended attributes in EROFS's inline form: a 12-byte header after the inode
//! (`struct erofs_xattr_ibody_header`), then entries, each padded to 4 bytes.

use thiserror::Error;

use crate::tree::Xattrs;

const HEADER_LEN: usize = 12;
const ENTRY_LEN: usize = 4;

/// Why an attribute cannot be stored.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum XattrError {
    /// The name lies in a namespace that EROFS has no index for.
    #[error("its extended attribute \"{0}\" is in a namespace that EROFS does not have")]
    Namespace(String),
    /// A name beyond 255 or a value beyond 65535 bytes, or too many of them.
    #[error("its extended attributes are larger than EROFS can hold")]
    Large,
}

/// `EROFS_XATTR_INDEX_*` of `erofs_fs.h` and what of the name is then still written.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        _ => {}
    }
    [(1, &b"user."[..]), (4, b"trusted."), (6, b"security.")]
        .into_iter()
        .find_map(|(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
        .filter(|(_, rest)| !rest.is_empty())
}

/// Whether EROFS can hold an attribute of this name at all.
#[must_use]
pub fn is_supported(name: &[u8]) -> bool {
    split(name).is_some()
}

/// Bytes that `xattrs` take after the inode, header included.
///
/// # Errors
/// [`XattrError`].
pub fn body_len(xattrs: &Xattrs) -> Result<usize, XattrError> {
    let mut len = HEADER_LEN;
    for (name, value) in xattrs {
        let (_, rest) = split(name).ok_or_else(|| XattrError::Namespace(name.escape_ascii().to_string()))?;
        if rest.len() > usize::from(u8::MAX) || value.len() > usize::from(u16::MAX) {
            return Err(XattrError::Large);
        }
        len += (ENTRY_LEN + rest.len() + value.len()).next_multiple_of(4);
    }
    count(len).ok_or(XattrError::Large)?;
    Ok(len)
}

/// Bytes that these take after the inode, whether or not it can hold them.
pub(crate) fn body_len_of<'a>(xattrs: impl Iterator<Item = (&'a Box<[u8]>, &'a Box<[u8]>)>) -> u64 {
    let mut len = 0;
    for (name, value) in xattrs {
        let rest = split(name).map_or(name.len(), |(_, rest)| rest.len());
        len = len.max(HEADER_LEN) + (ENTRY_LEN + rest + value.len()).next_multiple_of(4);
    }
    len as u64
}

/// The inode's `i_xattr_icount` for a body of `len` bytes: 0 for none, else 1 for the header and
/// one for each 4 bytes of entries.
pub(super) fn count(len: usize) -> Option<u16> {
    match len.checked_sub(HEADER_LEN) {
        None => Some(0),
        Some(entries) => u16::try_from(entries / 4 + 1).ok(),
    }
}

/// Appends the body. Its length was checked by [`body_len`].
pub(super) fn encode(xattrs: &Xattrs, out: &mut Vec<u8>) {
    out.extend([0; HEADER_LEN]);
    for (name, value) in xattrs {
        let Some((index, rest)) = split(name) else { continue };
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(rest.len()), u16::try_from(value.len())) else { continue };
        let start = out.len();
        out.extend([name_len, index]);
        out.extend(value_len.to_le_bytes());
        out.extend(rest);
        out.extend(value);
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(pairs: &[(&[u8], &[u8])]) -> Xattrs {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn the_body_is_as_long_as_was_said() {
        let set = xattrs(&[(b"security.capability", b"12345"), (b"system.posix_acl_access", b""), (b"user.x", b"y")]);
        let mut body = Vec::new();
        encode(&set, &mut body);
        assert_eq!(body.len(), body_len(&set).unwrap());
        assert_eq!(body.len() as u64, body_len_of(set.iter()));
        assert_eq!(body_len_of(Xattrs::new().iter()), 0);
        assert_eq!(&body[12..16], [10, 6, 5, 0]);
        assert_eq!(count(body.len()).map(usize::from), Some((body.len() - 12) / 4 + 1));
        assert_eq!(count(0), Some(0));
    }

    #[test]
    fn what_erofs_cannot_hold_is_refused() {
        assert!(!is_supported(b"com.apple.provenance"));
        assert!(!is_supported(b"user."));
        assert!(matches!(body_len(&xattrs(&[(b"system.x", b"")])), Err(XattrError::Namespace(_))));
        let long = [b"user.".to_vec(), vec![b'a'; 256]].concat();
        assert_eq!(body_len(&xattrs(&[(&long, b"")])), Err(XattrError::Large));
        let value = vec![0; 65535];
        let names: Vec<String> = (0..5).map(|n| format!("user.{n}")).collect();
        let many: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), &value[..])).collect();
        assert_eq!(body_len(&xattrs(&many)), Err(XattrError::Large));
        assert!(body_len(&xattrs(&many[..3])).is_ok());
    }
}
