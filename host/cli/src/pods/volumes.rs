//! Named volumes: one sparse ext4 disk image each, `HUSK_ROOT/volumes/NAME/data.img`, that outlives pods.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use super::directory::make_dir;
use super::plan::{ContainerPlan, MountSource, VolumePlan, VolumeSource};
use super::record::PodRecord;
use crate::engine::Engine;
use crate::paths::Paths;

/// What a volume can hold at most, unless `husk volume create --size` said otherwise: 10 GiB. Only what is written
/// takes space on the host.
pub(crate) const DEFAULT_BYTES: u64 = 10 << 30;

/// ext4 needs some room for itself.
const MIN_BYTES: u64 = 8 << 20;

#[derive(Debug, Error)]
pub(crate) enum VolumeError {
    #[error("\"{0}\" is no volume name: use letters, digits, _ . and -, beginning with a letter or digit, at most 64")]
    Name(String),
    #[error("there is no volume named {0}; `husk volume ls` shows what there is")]
    Unknown(String),
    #[error("there is a volume named {0} already")]
    Exists(String),
    #[error("volume {name} is in use by pod {pod}; remove that first (`husk pod rm -f {pod}`)")]
    InUse { name: String, pod: String },
    #[error("a volume needs at least {} MiB", MIN_BYTES >> 20)]
    TooSmall,
    #[error("volume {name}: {}: {source}", path.display())]
    Io { name: String, path: PathBuf, source: io::Error },
    #[error("volume {name}: mkfs.ext4 cannot be run: {source}; install e2fsprogs")]
    NoMkfs { name: String, source: io::Error },
    #[error("volume {name}: mkfs.ext4 failed: {output}")]
    Mkfs { name: String, output: String },
}

/// A volume as it is listed.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// What it can hold, bytes.
    pub(crate) size: u64,
    /// What it takes on the host, bytes.
    pub(crate) used: u64,
    pub(crate) created: jiff::Timestamp,
}

pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The disk image of a volume.
pub(crate) fn disk(paths: &Paths, name: &str) -> PathBuf {
    paths.volumes().join(name).join("data.img")
}

/// Makes those volumes of a pod and its containers that do not exist yet; answers all their names.
pub(crate) fn ensure_all(
    engine: &Engine,
    pod: &[VolumePlan],
    containers: &[ContainerPlan],
) -> Result<Vec<String>, VolumeError> {
    let own = containers.iter().flat_map(|c| &c.mounts).filter_map(|mount| match &mount.source {
        MountSource::NamedVolume { name } => Some(name),
        _ => None,
    });
    let shared = pod.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Named { name, .. } => Some(name),
        _ => None,
    });
    let mut names: Vec<String> = own.chain(shared).cloned().collect();
    names.sort();
    names.dedup();
    for name in &names {
        match create(&engine.paths, name, DEFAULT_BYTES) {
            Ok(_) | Err(VolumeError::Exists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// Makes an empty volume of `bytes`.
pub(crate) fn create(paths: &Paths, name: &str, bytes: u64) -> Result<Volume, VolumeError> {
    if !is_name(name) {
        return Err(VolumeError::Name(name.to_owned()));
    }
    if bytes < MIN_BYTES {
        return Err(VolumeError::TooSmall);
    }
    let image = disk(paths, name);
    if image.exists() {
        return Err(VolumeError::Exists(name.to_owned()));
    }
    let io = |path: &Path| {
        let (name, path) = (name.to_owned(), path.to_owned());
        move |source| VolumeError::Io { name, path, source }
    };
    let parent = paths.volumes();
    make_dir(&parent).map_err(|e| io(&parent)(io::Error::other(e)))?;
    // Formatted aside and renamed, so that a volume is there whole or not at all.
    let draft = parent.join(format!(".{name}.{}", std::process::id()));
    let made = make_dir(&draft).map_err(|e| io(&draft)(io::Error::other(e))).and_then(|()| {
        format(name, &draft.join("data.img"), bytes)?;
        let target = parent.join(name);
        fs::rename(&draft, &target).map_err(io(&target))
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&draft);
    }
    match made {
        // Somebody else was quicker with the same name.
        Err(VolumeError::Io { .. }) if image.exists() => Err(VolumeError::Exists(name.to_owned())),
        Err(error) => Err(error),
        Ok(()) => describe(paths, name),
    }
}

fn format(name: &str, image: &Path, bytes: u64) -> Result<(), VolumeError> {
    let io = |source| VolumeError::Io { name: name.to_owned(), path: image.to_owned(), source };
    File::create_new(image).and_then(|file| file.set_len(bytes)).map_err(io)?;
    // Unlike a pod's scratch disk this one keeps its journal: it must survive a host that loses power.
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"])
        .arg(image)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| VolumeError::NoMkfs { name: name.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(VolumeError::Mkfs { name: name.to_owned(), output })
}

fn describe(paths: &Paths, name: &str) -> Result<Volume, VolumeError> {
    let path = disk(paths, name);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(VolumeError::Unknown(name.to_owned())),
        Err(source) => return Err(VolumeError::Io { name: name.to_owned(), path, source }),
    };
    let created = metadata.created().or_else(|_| metadata.modified()).ok();
    Ok(Volume {
        name: name.to_owned(),
        size: metadata.len(),
        used: metadata.blocks().saturating_mul(512),
        created: created.and_then(|t| t.try_into().ok()).unwrap_or_default(),
        path,
    })
}

/// All volumes by name.
pub(crate) fn list(paths: &Paths) -> Result<Vec<Volume>, VolumeError> {
    let parent = paths.volumes();
    let entries = match fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(VolumeError::Io { name: "*".into(), path: parent, source }),
    };
    let mut volumes: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_name(name))
        .filter_map(|name| describe(paths, &name).ok())
        .collect();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(volumes)
}

/// Removes a volume that no pod holds, with its data.
pub(crate) fn remove(paths: &Paths, pods: &[PodRecord], name: &str) -> Result<(), VolumeError> {
    if !is_name(name) {
        return Err(VolumeError::Name(name.to_owned()));
    }
    describe(paths, name)?;
    if let Some(pod) = user(pods, name) {
        return Err(VolumeError::InUse { name: name.to_owned(), pod: pod.name.clone() });
    }
    let path = paths.volumes().join(name);
    fs::remove_dir_all(&path).map_err(|source| VolumeError::Io { name: name.to_owned(), path, source })
}

/// A pod that has the volume. One that has ended could still be looked at, not run again: it does not hold its volumes.
pub(crate) fn user<'a>(pods: &'a [PodRecord], name: &str) -> Option<&'a PodRecord> {
    pods.iter().find(|pod| !pod.phase.is_over() && pod.named_volumes.iter().any(|volume| volume == name))
}

#[cfg(test)]
mod tests {
    use super::super::directory::tests::pod;
    use super::*;

    #[test]
    fn names_cannot_leave_the_directory() {
        for good in ["db", "db-1.x_y", "0"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "-x", "a b", "ä"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_volume_is_made_listed_held_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        assert!(list(&paths).unwrap().is_empty());
        let volume = create(&paths, "db", 64 << 20).unwrap();
        assert_eq!(volume.size, 64 << 20);
        assert!(volume.used < 32 << 20, "it is sparse");
        assert!(matches!(create(&paths, "db", 64 << 20), Err(VolumeError::Exists(_))));
        assert!(matches!(create(&paths, "tiny", 1), Err(VolumeError::TooSmall)));
        assert_eq!(list(&paths).unwrap().len(), 1);
        let holder = PodRecord { named_volumes: vec!["db".into()], ..pod("web", vec![]) };
        assert!(matches!(remove(&paths, &[holder], "db"), Err(VolumeError::InUse { .. })));
        remove(&paths, &[], "db").unwrap();
        assert!(matches!(remove(&paths, &[], "db"), Err(VolumeError::Unknown(_))));
        assert_eq!(fs::read_dir(paths.volumes()).unwrap().count(), 0);
    }
}
