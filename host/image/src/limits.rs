//! How much an image may ask of the host before it is refused.

/// Bounds on one image. The defaults leave room for the largest images people run; what they stop
/// are bombs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest, an index or a config. The OCI distribution specification asks
    /// registries for 4 MiB.
    pub document_bytes: u64,
    /// Layers of an image; Docker stops at 127. The files of a disk are handed over in one message, which takes 253
    /// (`SCM_MAX_FD`).
    pub layers: u16,
    /// Tar entries of all layers together.
    pub entries: u64,
    /// Bytes of memory that names, links, attributes and sparse maps may take together.
    pub metadata_bytes: u64,
    /// Bytes of one layer as transferred.
    pub layer_bytes: u64,
    /// Uncompressed bytes of all layers together.
    pub unpacked_bytes: u64,
    /// Uncompressed bytes for each compressed one, counted beyond the first 256 MiB of a layer.
    pub ratio: u64,
}

impl Limits {
    /// What every layer may unpack to, however small it is compressed.
    pub(crate) const RATIO_FREE_BYTES: u64 = 256 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 4 << 20,
            layers: 250,
            entries: 4_000_000,
            metadata_bytes: 1 << 30,
            layer_bytes: 64 << 30,
            unpacked_bytes: 256 << 30,
            ratio: 200,
        }
    }
}
