//! Whether this machine can give pods a network, for `husk check`.

use std::path::{Path, PathBuf};

use husk_net::cni;

/// Where the plugins of the built-in network are and which CNI they all speak, or which are missing.
pub(crate) async fn plugins() -> Result<String, String> {
    let cni = super::cni();
    let (mut missing, mut directories, mut newest) = (Vec::new(), Vec::<PathBuf>::new(), Vec::new());
    for plugin in cni::BRIDGE_PLUGINS {
        match cni.installed(plugin).await {
            Ok(installed) => {
                newest.extend(installed.versions.last().cloned());
                directories.extend(installed.path.parent().map(Path::to_owned));
            }
            Err(cni::PluginError { failure: cni::PluginFailure::NotFound { .. }, .. }) => missing.push(plugin),
            Err(error) => return Err(error.to_string()),
        }
    }
    if !missing.is_empty() {
        let places = super::directories("HUSK_CNI_BIN_DIRS", &cni::PLUGIN_DIRS);
        return Err(format!(
            "{} not in {}: install the package {}; without them pods run with --network none",
            missing.join(", "),
            list(&places),
            super::PLUGINS_PACKAGE,
        ));
    }
    directories.dedup();
    newest.sort();
    let version = newest.first().map_or("unknown", String::as_str);
    Ok(format!("{} in {} (CNI {version})", cni::BRIDGE_PLUGINS.join(", "), list(&directories)))
}

/// The device behind every tap.
pub(crate) fn tun() -> Result<String, String> {
    const TUN: &str = "/dev/net/tun";
    if Path::new(TUN).exists() {
        Ok(TUN.to_owned())
    } else {
        Err(format!("there is no {TUN}: load the tun module (modprobe tun)"))
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
