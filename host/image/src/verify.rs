//! Manifests, indexes and configs: parsed, bounded, and checked against each other before anything
//! they name is fetched.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use crate::Limits;
use crate::digest::Digest;
use crate::error::{BlobProblem, ContentError, DocumentProblem};

/// Media types asked of a registry, in order of liking.
pub(crate) const MANIFEST_TYPES: [&str; 4] = [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_INDEX];

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

const LAYER_TYPES: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// A layer as the manifest and the config describe it together.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Digest of the blob; of the uncompressed stream where an archive names no other.
    pub(crate) digest: Digest,
    /// Whether `digest` is one of the blob that must be verified.
    pub(crate) blob: bool,
    /// Size of the blob.
    pub(crate) size: u64,
    /// Digest of the uncompressed stream.
    pub(crate) diff_id: Digest,
}

/// A blob a manifest names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// What is known before any layer is read: all of it verified.
#[derive(Debug)]
pub(crate) struct Documents {
    /// How the user names the image, for messages.
    pub(crate) image: String,
    pub(crate) manifest: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) config: Vec<u8>,
    pub(crate) id: Digest,
    pub(crate) layers: Vec<Layer>,
}

/// A manifest whose config was not read yet.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
}

/// What a registry or a layout may answer when asked for an image.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    /// The index's own digest, and the manifest for this machine.
    Index {
        digest: Digest,
        manifest: Blob,
    },
}

/// Says which image and document a problem is of.
pub(crate) fn refuse(image: &str, document: &'static str) -> impl Fn(DocumentProblem) -> ContentError + use<> {
    let image = image.to_owned();
    move |problem| ContentError::Document { image: image.clone(), document, problem: Box::new(problem) }
}

/// Checks that these are the bytes of `expected`, and not too many.
pub(crate) fn check_bytes(bytes: &[u8], expected: Option<Digest>, limits: &Limits) -> Result<Digest, DocumentProblem> {
    if bytes.len() as u64 > limits.document_bytes {
        return Err(DocumentProblem::Large(limits.document_bytes));
    }
    let actual = Digest::of(bytes);
    match expected {
        Some(expected) if expected != actual => Err(DocumentProblem::Digest { expected, actual }),
        _ => Ok(actual),
    }
}

/// Reads a manifest or an index.
pub(crate) fn document(
    image: &str,
    bytes: Vec<u8>,
    expected: Option<Digest>,
    limits: &Limits,
) -> Result<Document, ContentError> {
    let refused = refuse(image, "manifest");
    let digest = check_bytes(&bytes, expected, limits).map_err(&refused)?;
    let shape: Shape = json(&bytes).map_err(&refused)?;
    match shape.media_type.as_deref() {
        Some(OCI_INDEX | DOCKER_INDEX) => {}
        Some(OCI_MANIFEST | DOCKER_MANIFEST) if shape.manifests.is_none() => {
            return manifest(image, bytes, digest, limits).map(Document::Manifest);
        }
        // OCI lets documents leave their type out; schema 1 had none either and has no config.
        None if shape.manifests.is_none() && shape.config.is_some() => {
            return manifest(image, bytes, digest, limits).map(Document::Manifest);
        }
        None if shape.manifests.is_some() => {}
        other => return Err(refused(DocumentProblem::MediaType(shown(other.unwrap_or("none"))))),
    }
    let refused = refuse(image, "index");
    let index: ImageIndex = json(&bytes).map_err(&refused)?;
    let chosen = choose(index.manifests()).map_err(&refused)?;
    let manifest = blob(chosen, limits.document_bytes).map_err(refused)?;
    Ok(Document::Index { digest, manifest })
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

/// The entry for linux/amd64. Attestations beside images have the platform unknown/unknown.
pub(crate) fn choose(entries: &[Descriptor]) -> Result<&Descriptor, DocumentProblem> {
    let platform = |entry: &Descriptor| {
        entry.platform().as_ref().map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
    };
    if let Some(entry) = entries.iter().find(|entry| platform(entry).as_deref() == Some("linux/amd64")) {
        return Ok(entry);
    }
    // A single entry that does not say: its config will.
    match entries {
        [only] if only.platform().is_none() => Ok(only),
        _ => {
            let mut others: Vec<String> = entries.iter().filter_map(platform).map(|name| shown(&name)).collect();
            others.dedup();
            others.truncate(16);
            Err(DocumentProblem::NoPlatform(if others.is_empty() { "nothing".to_owned() } else { others.join(", ") }))
        }
    }
}

fn blob(descriptor: &Descriptor, limit: u64) -> Result<Blob, DocumentProblem> {
    if descriptor.size() > limit {
        return Err(DocumentProblem::Large(limit));
    }
    Ok(Blob { digest: descriptor.digest().as_ref().parse()?, size: descriptor.size() })
}

fn manifest(image: &str, bytes: Vec<u8>, digest: Digest, limits: &Limits) -> Result<Manifest, ContentError> {
    let refused = refuse(image, "manifest");
    let parsed: ImageManifest = json(&bytes).map_err(&refused)?;
    let config_type = parsed.config().media_type().to_string();
    if config_type != OCI_CONFIG && config_type != DOCKER_CONFIG {
        return Err(refused(DocumentProblem::MediaType(shown(&config_type))));
    }
    let config = blob(parsed.config(), limits.document_bytes).map_err(&refused)?;
    if parsed.layers().is_empty() {
        return Err(refused(DocumentProblem::NoLayers));
    }
    if parsed.layers().len() > usize::from(limits.layers) {
        return Err(refused(DocumentProblem::ManyLayers(parsed.layers().len())));
    }
    let mut layers = Vec::new();
    for layer in parsed.layers() {
        let digest: Digest =
            layer.digest().as_ref().parse().map_err(|error| refused(DocumentProblem::DigestText(error)))?;
        let of_layer =
            |problem| ContentError::Layer { image: image.to_owned(), layer: digest, problem: Box::new(problem) };
        check_layer_type(layer).map_err(of_layer)?;
        if layer.size() > limits.layer_bytes {
            return Err(of_layer(BlobProblem::Large { size: layer.size(), limit: limits.layer_bytes }));
        }
        layers.push(Blob { digest, size: layer.size() });
    }
    Ok(Manifest { bytes, digest, config, layers })
}

fn check_layer_type(layer: &Descriptor) -> Result<(), BlobProblem> {
    let media_type = layer.media_type().to_string();
    if LAYER_TYPES.contains(&media_type.as_str()) {
        Ok(())
    } else if media_type.contains("encrypted") {
        Err(BlobProblem::Encrypted(shown(&media_type)))
    } else if media_type.contains("nondistributable") || media_type.contains("foreign") {
        Err(BlobProblem::Foreign(shown(&media_type)))
    } else {
        Err(BlobProblem::MediaType(shown(&media_type)))
    }
}

/// Puts manifest and config together.
pub(crate) fn documents(
    image: &str,
    manifest: Manifest,
    config: Vec<u8>,
    limits: &Limits,
) -> Result<Documents, ContentError> {
    let refused = refuse(image, "config");
    check_bytes(&config, Some(manifest.config.digest), limits).map_err(&refused)?;
    let diff_ids = diff_ids(&config).map_err(&refused)?;
    if diff_ids.len() != manifest.layers.len() {
        let (manifest, config) = (manifest.layers.len(), diff_ids.len());
        return Err(refuse(image, "manifest")(DocumentProblem::LayerCount { manifest, config }));
    }
    let layers = manifest.layers.iter().zip(diff_ids).map(|(blob, diff_id)| Layer {
        digest: blob.digest,
        blob: true,
        size: blob.size,
        diff_id,
    });
    Ok(Documents {
        image: image.to_owned(),
        layers: layers.collect(),
        id: manifest.config.digest,
        digest: manifest.digest,
        manifest: manifest.bytes,
        config,
    })
}

/// The uncompressed layers a config names, once the config is seen to be for this machine.
pub(crate) fn diff_ids(config: &[u8]) -> Result<Vec<Digest>, DocumentProblem> {
    let config: ImageConfiguration = json(config)?;
    let platform = format!("{}/{}", config.os(), config.architecture());
    if platform != "linux/amd64" {
        return Err(DocumentProblem::Platform(shown(&platform)));
    }
    config.rootfs().diff_ids().iter().map(|text| text.parse().map_err(DocumentProblem::from)).collect()
}

pub(crate) fn json<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DocumentProblem> {
    serde_json::from_slice(bytes).map_err(|error| DocumentProblem::Json(error.to_string()))
}

/// Text of an image, fit for a message.
fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Document, ContentError> {
        document("x", json.as_bytes().to_vec(), None, &Limits::default())
    }

    fn manifest_with(layer_type: &str) -> String {
        let digest = format!("sha256:{}", "ab".repeat(32));
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",
            "config":{{"mediaType":"{OCI_CONFIG}","digest":"{digest}","size":2}},
            "layers":[{{"mediaType":"{layer_type}","digest":"{digest}","size":5}}]}}"#
        )
    }

    #[test]
    fn foreign_encrypted_and_unknown_layers_are_told_apart() {
        assert!(matches!(read(&manifest_with(LAYER_TYPES[1])), Ok(Document::Manifest(_))));
        let problem = |media_type: &str| match read(&manifest_with(media_type)) {
            Err(ContentError::Layer { problem, .. }) => *problem,
            other => panic!("{other:?}"),
        };
        assert!(matches!(
            problem("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            BlobProblem::Foreign(_)
        ));
        assert!(matches!(problem("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), BlobProblem::Encrypted(_)));
        assert!(matches!(problem("application/vnd.wasm.content.layer.v1+wasm"), BlobProblem::MediaType(_)));
    }

    #[test]
    fn an_index_gives_the_image_for_this_machine() {
        let entry = |os: &str, arch: &str, byte: &str| {
            format!(
                r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{}","size":9,"platform":{{"os":"{os}","architecture":"{arch}"}}}}"#,
                byte.repeat(32)
            )
        };
        let index = |entries: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        let both = index(&[entry("unknown", "unknown", "aa"), entry("linux", "amd64", "bb")]);
        assert!(
            matches!(read(&both), Ok(Document::Index { manifest, .. }) if manifest.digest.hex() == "bb".repeat(32))
        );
        let error = read(&index(&[entry("linux", "arm64", "cc")])).unwrap_err().to_string();
        assert!(error.contains("linux/arm64") && error.contains("linux/amd64"), "{error}");
    }

    #[test]
    fn schema_1_and_nonsense_are_refused() {
        for text in [r#"{"schemaVersion":1,"fsLayers":[]}"#, "{}", "[]", "", r#"{"mediaType":"application/json"}"#] {
            assert!(read(text).is_err(), "{text}");
        }
        let bytes = vec![b' '; 5 << 20];
        let error = document("x", bytes, None, &Limits::default()).unwrap_err();
        assert!(
            matches!(error, ContentError::Document { problem, .. } if matches!(*problem, DocumentProblem::Large(_)))
        );
    }

    /// JSON of the right words in any arrangement.
    fn arb_json() -> impl Strategy<Value = String> {
        let digest = format!("\"sha256:{}\"", "ab".repeat(32));
        let text = prop_oneof![
            Just(digest),
            prop::sample::select(vec![
                OCI_MANIFEST,
                OCI_INDEX,
                OCI_CONFIG,
                DOCKER_MANIFEST,
                LAYER_TYPES[0],
                LAYER_TYPES[4]
            ])
            .prop_map(|word| format!("\"{word}\"")),
            prop::sample::select(vec![
                "\"linux\"",
                "\"amd64\"",
                "\"layers\"",
                "\"\"",
                "null",
                "true",
                "2",
                "-1",
                "1e400"
            ])
            .prop_map(str::to_owned),
            any::<u64>().prop_map(|number| number.to_string()),
        ];
        let key = prop::sample::select(vec![
            "schemaVersion",
            "mediaType",
            "config",
            "layers",
            "manifests",
            "digest",
            "size",
            "platform",
            "os",
            "architecture",
            "rootfs",
            "diff_ids",
            "type",
            "history",
            "empty_layer",
            "annotations",
            "urls",
            "subject",
        ]);
        text.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec((key.clone(), inner), 0..7).prop_map(|fields| {
                    let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                    format!("{{{}}}", fields.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn documents_of_any_kind_never_panic(text in arb_json(), config in arb_json()) {
            let limits = Limits::default();
            if let Ok(Document::Manifest(manifest)) = document("x", text.into_bytes(), None, &limits) {
                let _ = documents("x", manifest, config.clone().into_bytes(), &limits);
            }
            let _ = diff_ids(config.as_bytes());
        }

        #[test]
        fn bytes_that_are_no_document_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = diff_ids(&bytes);
            let _ = document("x", bytes, None, &Limits::default());
        }

        #[test]
        fn changed_documents_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..3_usize) {
            let digest = format!("sha256:{}", "ab".repeat(32));
            let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#);
            let mut bytes = [manifest_with(LAYER_TYPES[1]), config, "[]".to_owned()][kind].clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = diff_ids(&bytes);
            let _ = document("x", bytes, None, &Limits::default());
        }
    }
}
