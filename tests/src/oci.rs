//! Writes OCI image layouts (image-spec, "OCI Image Layout"), deterministically.
//!
//! Conversion to `docker save` archives and pushing are left to skopeo, so that what Husk reads was not written by
//! Husk alone; and what is wrong on purpose is made from a right layout by the suite that needs it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::GzBuilder;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How a layer blob is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Plain tar.
    None,
    /// What every registry serves.
    Gzip,
    /// What newer builders push.
    Zstd,
}

impl Compression {
    fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CREATED: &str = "2023-11-14T22:13:20Z";

/// A content descriptor (image-spec, "OCI Content Descriptors"), with what an index adds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    media_type: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Value>,
}

/// A layer in the layout: its blob, and the digest of its uncompressed tar.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// The compressed blob.
    pub descriptor: Descriptor,
    diff_id: String,
}

impl LayerBlob {
    /// The same blob with a false promise of its content.
    #[must_use]
    pub fn claiming(self, diff_id: String) -> Self {
        Self { diff_id, ..self }
    }
}

/// What a container of the image runs by default (image-spec, "OCI Image Configuration").
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Defaults {
    /// Name or id, and group after a colon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `NAME=value` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Command that the user's arguments follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments when the user gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Made by the runtime when the layers lack it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Signal that asks the container to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// An image layout being written in a directory.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Starts a layout in `dir`, which is made if missing.
    pub fn create(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { dir })
    }

    /// Adds the uncompressed tar read from `tar` as a layer.
    pub fn layer(&self, mut tar: impl Read, compression: Compression) -> io::Result<LayerBlob> {
        let blob = Hashed::new(tempfile::NamedTempFile::new_in(&self.dir)?);
        let (blob, diff_id) = match compression {
            Compression::None => copy_hashed(&mut tar, blob)?,
            Compression::Gzip => {
                let gzip = GzBuilder::new().mtime(0).write(blob, flate2::Compression::fast());
                let (gzip, diff_id) = copy_hashed(&mut tar, gzip)?;
                (gzip.finish()?, diff_id)
            }
            Compression::Zstd => {
                let (zstd, diff_id) = copy_hashed(&mut tar, zstd::Encoder::new(blob, 3)?)?;
                (zstd.finish()?, diff_id)
            }
        };
        let Hashed { inner, sha256, length } = blob;
        let digest = hex::encode(sha256.finalize());
        let path = self.dir.join("blobs/sha256").join(&digest);
        let file = inner.persist(&path).map_err(|e| e.error)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        let descriptor = Descriptor {
            media_type: compression.media_type().into(),
            digest: format!("sha256:{digest}"),
            size: length,
            platform: None,
            annotations: None,
        };
        Ok(LayerBlob { descriptor, diff_id })
    }

    /// Adds the first half of a blob as a blob with a right digest of its own, which promises the whole's content.
    pub fn cut_short(&self, whole: &LayerBlob) -> io::Result<LayerBlob> {
        let blob = |digest: &str| self.dir.join("blobs").join(digest.replace(':', "/"));
        let mut bytes = fs::read(blob(&whole.descriptor.digest))?;
        bytes.truncate(bytes.len() / 2);
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        fs::write(blob(&digest), &bytes)?;
        let descriptor = Descriptor { digest, size: bytes.len() as u64, ..whole.descriptor.clone() };
        Ok(LayerBlob { descriptor, ..whole.clone() })
    }

    /// Adds config and manifest of an image for `linux/ARCHITECTURE`.
    pub fn image(&self, architecture: &str, defaults: &Defaults, layers: &[LayerBlob]) -> io::Result<Descriptor> {
        let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
        let history: Vec<Value> = layers.iter().map(|_| json!({"created": CREATED})).collect();
        let config = self.json(
            CONFIG_TYPE,
            &json!({
                "created": CREATED,
                "architecture": architecture,
                "os": "linux",
                "config": defaults,
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": history,
            }),
        )?;
        let descriptors: Vec<&Descriptor> = layers.iter().map(|l| &l.descriptor).collect();
        let mut manifest = self.json(
            MANIFEST_TYPE,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": descriptors}),
        )?;
        manifest.platform = Some(json!({"architecture": architecture, "os": "linux"}));
        Ok(manifest)
    }

    /// Adds a nested index: one name, several platforms.
    pub fn index(&self, manifests: &[Descriptor]) -> io::Result<Descriptor> {
        self.json(INDEX_TYPE, &json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}))
    }

    /// Ends the layout: `top` is what it holds, under the name `reference`.
    pub fn finish(self, mut top: Descriptor, reference: &str) -> io::Result<PathBuf> {
        top.annotations = Some(json!({
            "org.opencontainers.image.ref.name": reference,
            "io.containerd.image.name": reference,
        }));
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [top]});
        fs::write(self.dir.join("index.json"), serde_json::to_vec(&index)?)?;
        Ok(self.dir)
    }

    fn json(&self, media_type: &str, value: &Value) -> io::Result<Descriptor> {
        let bytes = serde_json::to_vec(value)?;
        let digest = hex::encode(Sha256::digest(&bytes));
        fs::write(self.dir.join("blobs/sha256").join(&digest), &bytes)?;
        Ok(Descriptor {
            media_type: media_type.into(),
            digest: format!("sha256:{digest}"),
            size: bytes.len() as u64,
            platform: None,
            annotations: None,
        })
    }
}

/// Packs a layout into an OCI archive: the tar that `podman save --format oci-archive` would write.
pub fn archive(layout: &Path, out: &Path) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::new(File::create(out)?));
    tar.mode(tar::HeaderMode::Deterministic);
    for name in ["oci-layout", "index.json"] {
        tar.append_path_with_name(layout.join(name), name)?;
    }
    let blobs = Path::new("blobs/sha256");
    let mut names: Vec<_> = fs::read_dir(layout.join(blobs))?.collect::<Result<_, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for blob in names {
        tar.append_path_with_name(blob.path(), blobs.join(blob.file_name()))?;
    }
    tar.into_inner()?.flush()
}

/// Copies `from` into `to`; the digest is that of what was copied.
fn copy_hashed<W: Write>(from: &mut impl Read, to: W) -> io::Result<(W, String)> {
    let mut to = Hashed::new(to);
    io::copy(from, &mut to)?;
    Ok((to.inner, format!("sha256:{}", hex::encode(to.sha256.finalize()))))
}

/// Counts and hashes what passes through.
#[derive(Debug)]
struct Hashed<W> {
    inner: W,
    sha256: Sha256,
    length: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, sha256: Sha256::new(), length: 0 }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        let (hashed, _) = buf.split_at(written);
        self.sha256.update(hashed);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Layer, Meta};

    fn small_layout(dir: &Path, compression: Compression) -> String {
        let mut layer = Layer::new(Vec::new());
        layer.file("hello", Meta::mode(0o644), b"world").unwrap();
        let layout = Layout::create(dir).unwrap();
        let layer = layout.layer(layer.finish().unwrap().as_slice(), compression).unwrap();
        let image = layout.image("amd64", &Defaults::default(), &[layer]).unwrap();
        let digest = image.digest.clone();
        layout.finish(image, "example.test/hello:latest").unwrap();
        digest
    }

    #[test]
    fn the_same_input_gives_the_same_image() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            assert_eq!(small_layout(a.path(), compression), small_layout(b.path(), compression));
            let (tar_a, tar_b) = (a.path().join("a.tar"), b.path().join("b.tar"));
            archive(a.path(), &tar_a).unwrap();
            archive(b.path(), &tar_b).unwrap();
            assert_eq!(fs::read(tar_a).unwrap(), fs::read(tar_b).unwrap());
        }
    }

    #[test]
    fn every_blob_is_named_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        small_layout(dir.path(), Compression::Gzip);
        let blobs: Vec<_> = fs::read_dir(dir.path().join("blobs/sha256")).unwrap().map(Result::unwrap).collect();
        assert_eq!(blobs.len(), 3, "layer, config, manifest");
        for blob in blobs {
            let name = blob.file_name().into_string().unwrap();
            assert_eq!(hex::encode(Sha256::digest(fs::read(blob.path()).unwrap())), name);
        }
    }
}
