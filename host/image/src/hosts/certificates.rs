//! Files of certificates and keys, as `hosts.toml` names them and as Docker keeps them.

use std::path::{Path, PathBuf};

use crate::credentials::Secret;

/// What a directory of Docker's has.
pub(super) struct Found {
    pub(super) ca: Vec<Vec<u8>>,
    pub(super) clients: Vec<Secret>,
}

/// A certificate of an authority.
pub(super) fn authority(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("the certificate {} cannot be read: {error}", path.display()))
}

/// Certificate and key of the client, from one file or two.
pub(super) fn client((certificate, key): &(PathBuf, Option<PathBuf>)) -> Result<Secret, String> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map_err(|error| format!("the client certificate or key {} cannot be read: {error}", path.display()))
    };
    let certificate = read(certificate)?;
    Ok(Secret::from(match key {
        None => certificate,
        Some(key) => format!("{certificate}\n{}", read(key)?),
    }))
}

/// Docker's files in a directory, which need not be there: `*.crt` of authorities, `*.cert` and `*.key` of the client.
pub(super) fn read(dir: &Path) -> Result<Option<Found>, String> {
    let cannot = |error: std::io::Error| format!("it cannot be read: {error}");
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(cannot(error)),
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(cannot)?;
    paths.sort();
    let of = |kind: &str| -> Vec<PathBuf> {
        paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == kind)).cloned().collect()
    };
    let pairs: Vec<_> = of("cert").into_iter().map(|path| (path.clone(), Some(path.with_extension("key")))).collect();
    if let Some(key) = of("key").iter().find(|key| !key.with_extension("cert").exists()) {
        return Err(format!("the key {} has no certificate beside it: add the .cert file", key.display()));
    }
    let ca: Vec<_> = of("crt").iter().map(|path| authority(path)).collect::<Result<_, _>>()?;
    let clients: Vec<_> = pairs.iter().map(client).collect::<Result<_, _>>()?;
    Ok((!ca.is_empty() || !clients.is_empty()).then_some(Found { ca, clients }))
}
