//! What a pull or a load tells about itself while it works.

/// Something that watches. Events come from several threads; an implementation must be quick.
pub trait Progress: Send + Sync {
    /// One thing happened.
    fn event(&self, event: Event<'_>);
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The image's manifest is known.
    Resolved {
        /// The image as the user names it.
        name: &'a str,
        /// The manifest's digest.
        digest: &'a str,
        /// How many layers it has.
        layers: usize,
        /// Bytes of all layers as transferred.
        bytes: u64,
    },
    /// The image is in the store already: nothing to do.
    Cached {
        /// The image as the user names it.
        name: &'a str,
    },
    /// Bytes of a layer arrived (or were read from an archive).
    Layer {
        /// The layer's digest.
        digest: &'a str,
        /// Bytes so far.
        done: u64,
        /// Its size.
        total: u64,
    },
    /// A layer was merged.
    Applied {
        /// The layer's digest.
        digest: &'a str,
        /// Which one, from 0.
        index: usize,
        /// Of how many.
        layers: usize,
    },
    /// The EROFS image is being written.
    Writing {
        /// Bytes so far.
        done: u64,
        /// Length of the image.
        total: u64,
    },
    /// The image is in the store.
    Finished {
        /// The image as the user names it.
        name: &'a str,
    },
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}
