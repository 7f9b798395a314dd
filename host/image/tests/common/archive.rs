//! Whole images by hand, and the ways to ship them.

use std::io::Write;
use std::path::Path;

use husk_image::Digest;
use serde_json::{Value, json};

/// An image: its layers as blobs, its config, its manifest.
pub struct TestImage {
    pub layers: Vec<Vec<u8>>,
    pub plain: Vec<Vec<u8>>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

pub fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

impl TestImage {
    /// Layers in turn gzip, zstd and bare.
    pub fn new(plain: Vec<Vec<u8>>) -> Self {
        let pack = |(index, layer): (usize, &Vec<u8>)| match index % 3 {
            0 => gzip(layer),
            1 => zstd::encode_all(&layer[..], 1).unwrap(),
            _ => layer.clone(),
        };
        let layers: Vec<Vec<u8>> = plain.iter().enumerate().map(pack).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": plain.iter().map(|l| digest(l)).collect::<Vec<_>>()},
        });
        Self::with_config(layers, plain, config.to_string().into_bytes())
    }

    pub fn with_config(layers: Vec<Vec<u8>>, plain: Vec<Vec<u8>>, config: Vec<u8>) -> Self {
        let types = ["tar+gzip", "tar+zstd", "tar"];
        let descriptors: Vec<Value> = layers
            .iter()
            .enumerate()
            .map(|(at, layer)| {
                let media_type = format!("application/vnd.oci.image.layer.v1.{}", types[at % 3]);
                json!({"mediaType": media_type, "digest": digest(layer), "size": layer.len()})
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
            "layers": descriptors,
        });
        Self { layers, plain, config, manifest: manifest.to_string().into_bytes() }
    }

    pub fn id(&self) -> String {
        digest(&self.config)
    }

    /// Names and bytes of an OCI layout.
    pub fn layout(&self, annotations: &Value) -> Vec<(String, Vec<u8>)> {
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&self.manifest), "size": self.manifest.len(), "annotations": annotations,
        }]});
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        for blob in [&self.manifest, &self.config].into_iter().chain(&self.layers) {
            files.push((format!("blobs/sha256/{}", hex(blob)), blob.clone()));
        }
        files
    }

    /// What `docker save` wrote before version 25.
    pub fn docker_save(&self, tags: &[&str]) -> Vec<(String, Vec<u8>)> {
        let names: Vec<String> = self.plain.iter().map(|layer| format!("{}/layer.tar", hex(layer))).collect();
        let config = format!("{}.json", hex(&self.config));
        let manifest = json!([{"Config": config, "RepoTags": tags, "Layers": names}]);
        let mut files: Vec<(String, Vec<u8>)> = names.into_iter().zip(self.plain.clone()).collect();
        files.push((config, self.config.clone()));
        files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        files
    }
}

pub fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn write_dir(files: &[(String, Vec<u8>)], dir: &Path) {
    for (name, bytes) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
