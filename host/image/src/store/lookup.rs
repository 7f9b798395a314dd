//! Which image a name or an id means.

use std::io;

use thiserror::Error;

use super::names::{Named, Names};
use super::{ImageId, Store, StoreError};
use crate::digest::Digest;
use crate::reference::Reference;

/// Shortest image id prefix that is looked up.
const PREFIX_MIN: usize = 4;

/// An image that cannot be found.
#[derive(Debug, Error)]
pub enum LookupError {
    /// Neither a name nor an id of an image here.
    #[error("image \"{0}\" is not here: fetch it with `husk pull {0}`, or read an archive with `husk load`")]
    Unknown(String),
    /// The beginning of several ids.
    #[error("image id \"{prefix}\" is ambiguous ({}): give more digits", .ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Short ids it may mean.
        ids: Vec<String>,
    },
    /// The image is there and its files are not as they were written.
    #[error(
        "image {id} in the store is damaged ({what}: {cause}): fetch it again, or remove it with `husk rmi --force {id}`"
    )]
    Damaged {
        /// The image.
        id: ImageId,
        /// Which file.
        what: &'static str,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// The store itself does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The image meant, and the canonical name if it was meant by name.
    pub(super) fn find(&self, names: &Names, name_or_id: &str) -> Result<(Digest, Option<String>), LookupError> {
        let unknown = || LookupError::Unknown(name_or_id.to_owned());
        let explicit = name_or_id.strip_prefix("sha256:");
        if explicit.is_none()
            && let Ok(reference) = name_or_id.parse::<Reference>()
        {
            let canonical = reference.canonical();
            if let Some(named) = names.names.get(&canonical) {
                return Ok((named.id, Some(canonical)));
            }
            // A digest names the manifest whatever tag it was fetched by.
            if let Some(digest) = reference.digest() {
                let of_digest = |(name, named): (&String, &Named)| {
                    let known = name.parse::<Reference>().ok().filter(|_| named.is_of(digest))?;
                    let place =
                        |reference: &Reference| (reference.registry().to_owned(), reference.repository().to_owned());
                    (place(&known) == place(&reference)).then_some(named.id)
                };
                if let Some(id) = names.names.iter().find_map(of_digest) {
                    return Ok((id, None));
                }
            }
        }
        let prefix = explicit.unwrap_or(name_or_id);
        if prefix.len() < PREFIX_MIN || prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let prefix = prefix.to_ascii_lowercase();
        let meant = |id: &Digest| id.hex().starts_with(&prefix) && !self.is_retired(*id);
        let matching: Vec<Digest> = self.ids()?.into_iter().filter(meant).collect();
        match matching.as_slice() {
            [] => Err(unknown()),
            [id] => Ok((*id, None)),
            several => Err(LookupError::Ambiguous {
                prefix: name_or_id.to_owned(),
                ids: several.iter().map(|id| ImageId(*id).short()).collect(),
            }),
        }
    }
}
