//! `-v` and `-info`.

use std::io::{self, Write};

use anyhow::Context;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::json;

const NAME: &str = "io.containerd.husk.v2";
/// Type URL under which containerd expects `features.json` of the OCI runtime spec.
const FEATURES_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

pub(crate) fn version() -> anyhow::Result<()> {
    let text = format!("containerd-shim-husk-v2:\n  Version: {}\n", env!("CARGO_PKG_VERSION"));
    io::stdout().write_all(text.as_bytes()).context("printing the version")
}

/// Prints containerd's `RuntimeInfo`.
pub(crate) fn info() -> anyhow::Result<()> {
    let bytes = runtime_info()?.write_to_bytes().context("encoding the answer")?;
    io::stdout().write_all(&bytes).context("printing the answer")
}

fn runtime_info() -> anyhow::Result<RuntimeInfo> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "cgroup": { "v1": false, "v2": true },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
    });
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..RuntimeVersion::default() };
    let features = Any {
        type_url: FEATURES_TYPE_URL.into(),
        value: serde_json::to_vec(&features).context("encoding the features")?,
        ..Any::default()
    };
    Ok(RuntimeInfo {
        name: NAME.into(),
        version: Some(version).into(),
        features: Some(features).into(),
        ..RuntimeInfo::default()
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Features;

    use super::*;

    #[test]
    fn the_features_are_what_the_runtime_spec_calls_so() {
        let info = runtime_info().unwrap();
        let features: Features = serde_json::from_slice(&info.features.value).unwrap();
        assert_eq!(features.oci_version_min(), "1.0.0");
    }
}
