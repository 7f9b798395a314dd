//! What can be wrong with an image, wherever it comes from.

use thiserror::Error;

use crate::digest::Digest;
use crate::layer::LayerProblem;

const DAMAGED: &str = "the image is damaged or was not made by a sound tool: fetch it again, or ask its publisher";

/// An image that is refused, or that could not be converted.
#[derive(Debug, Error)]
pub enum ContentError {
    /// Its manifest, index or config.
    #[error("image {image}: its {document} is refused: {problem}")]
    Document {
        /// The image as the user names it.
        image: String,
        /// `manifest`, `index` or `config`.
        document: &'static str,
        /// What is wrong with it.
        problem: Box<DocumentProblem>,
    },
    /// One of its layers.
    #[error("image {image}: layer {layer} is refused: {problem}")]
    Layer {
        /// The image as the user names it.
        image: String,
        /// The layer's digest.
        layer: Digest,
        /// What is wrong with it.
        problem: Box<BlobProblem>,
    },
    /// This host could not do its part.
    #[error("image {image}: {what} failed: {cause}; see that the disk of the image store has room and is writable")]
    Host {
        /// The image as the user names it.
        image: String,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// The EROFS image could not be written.
    #[error("image {image}: {cause}")]
    Write {
        /// The image as the user names it.
        image: String,
        /// Why not.
        cause: crate::erofs::WriteError,
    },
}

/// What is wrong with a manifest, an index or a config.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DocumentProblem {
    /// Larger than [`Limits::document_bytes`](crate::Limits).
    #[error("it is larger than {0} bytes")]
    Large(u64),
    /// Not the bytes that were asked for.
    #[error("its digest is {actual}, not {expected}: {DAMAGED}")]
    Digest {
        /// What the reference or the document naming it says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Named with a digest that is none.
    #[error(transparent)]
    DigestText(#[from] crate::digest::DigestError),
    /// Not JSON of the right shape.
    #[error("it cannot be read: {0}: {DAMAGED}")]
    Json(String),
    /// Something else than an image.
    #[error("its media type \"{0}\" is not one of a container image: only OCI and Docker schema 2 images run")]
    MediaType(String),
    /// An image of nothing.
    #[error("it names no layers, so there is nothing to run")]
    NoLayers,
    /// More layers than [`Limits::layers`](crate::Limits).
    #[error("it has {0} layers, more than this host allows")]
    ManyLayers(usize),
    /// Manifest and config contradict each other.
    #[error("it lists {manifest} layers and its config {config}: {DAMAGED}")]
    LayerCount {
        /// Layers in the manifest.
        manifest: usize,
        /// `diff_ids` in the config.
        config: usize,
    },
    /// For another machine.
    #[error("it is for {0}, and this host runs linux/amd64: use an image built for that")]
    Platform(String),
    /// An index without an entry for this machine.
    #[error("it has no image for linux/amd64, only for {0}: use an image built for that")]
    NoPlatform(String),
}

/// What is wrong with a layer.
#[derive(Debug, Error)]
pub enum BlobProblem {
    /// A media type that is no layer.
    #[error("its media type \"{0}\" is not one of a layer this runtime reads (tar, tar+gzip, tar+zstd)")]
    MediaType(String),
    /// A layer that the registry does not have.
    #[error(
        "it is a foreign layer (\"{0}\"), to be fetched from elsewhere, which is never done: use an image without such"
    )]
    Foreign(String),
    /// A layer that nobody here can read.
    #[error("it is encrypted (\"{0}\"): decrypt the image before using it here")]
    Encrypted(String),
    /// Larger than [`Limits::layer_bytes`](crate::Limits).
    #[error("it is {size} bytes, more than the {limit} this host allows")]
    Large {
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// Not as long as the manifest says.
    #[error("it is {actual} bytes long, and the manifest says {expected}: {DAMAGED}")]
    Size {
        /// What the manifest says.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// Not the bytes that were asked for.
    #[error("its content has the digest {actual}: {DAMAGED}")]
    Digest {
        /// What came.
        actual: Digest,
    },
    /// Not what the config says it unpacks to.
    #[error("uncompressed its digest is {actual}, and the config says {expected}: {DAMAGED}")]
    DiffId {
        /// What the config says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A decompression bomb, or more than the host allows.
    #[error("it unpacks to more than {limit} bytes, which this host does not allow for a layer of {size} bytes")]
    Bomb {
        /// Its compressed size.
        size: u64,
        /// What it may unpack to.
        limit: u64,
    },
    /// What is in it.
    #[error("{0}: the image is damaged, hostile, or made by a tool that writes broken layers")]
    Content(LayerProblem),
}
