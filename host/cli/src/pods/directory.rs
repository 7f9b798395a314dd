//! The pods on disk: `HUSK_RUN/pods/ID/` with `pod.json`, `bundles/CONTAINER/config.json`, `logs/NAME.log` and, for
//! volumes whose files husk writes, `volumes/NAME`. Only root can enter, and `HUSK_RUN` belongs on a tmpfs: some of it is
//! secret.
//!
//! A record is only ever replaced whole, by rename, and changed under the pod's lock, so that supervisor and commands
//! may write it at the same time and a reader never needs a lock.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use super::atomic_writer::{AtomicWriteError, AtomicWriter};
use super::plan::{VolumePlan, VolumeSource};
use super::record::{ContainerRecord, PodRecord, VERSION};
use crate::paths::Paths;

const RECORD: &str = "pod.json";

/// Why a pod's directory could not be made, read or changed.
#[derive(Debug, Error)]
pub(crate) enum DirectoryError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} cannot be understood: {cause}", path.display())]
    Malformed { path: PathBuf, cause: String },
    #[error("the {what} name {name} is in use by {what} {id}; remove it (`husk{} rm {name}`) or choose another name", if *.what == "pod" { " pod" } else { "" })]
    NameInUse { what: &'static str, name: String, id: String },
    #[error(
        "volume {volume} is in use by pod {pod}: a volume is one disk, and belongs to one pod at a time; stop that pod first (`husk pod stop {pod}`)"
    )]
    VolumeInUse { volume: String, pod: String },
    #[error("volume {volume}: {source}")]
    Files { volume: String, source: AtomicWriteError },
    /// Removed meanwhile.
    #[error("the pod has been removed")]
    Gone,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + '_ {
    |source| DirectoryError::Io { path: path.to_owned(), source }
}

/// All pods.
#[derive(Debug, Clone)]
pub(crate) struct Pods {
    root: PathBuf,
}

/// One pod's directory.
#[derive(Debug, Clone)]
pub(crate) struct PodDir {
    path: PathBuf,
}

impl Pods {
    pub(crate) fn new(paths: &Paths) -> Self {
        Self { root: paths.pods() }
    }

    /// Every pod's record, the oldest first. What is being made or removed is not listed; a record that cannot be read
    /// does not hide the others.
    pub(crate) fn list(&self) -> Result<Vec<PodRecord>, DirectoryError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(at(&self.root)(e)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let entry = entry.map_err(at(&self.root))?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            match (PodDir { path: entry.path() }).record() {
                Ok(record) => records.push(record),
                Err(DirectoryError::Gone) => {}
                Err(error) => tracing::warn!("skipping a pod: {error}"),
            }
        }
        records.sort_by_key(|r| r.created);
        Ok(records)
    }

    pub(crate) fn open(&self, id: &str) -> PodDir {
        PodDir { path: self.root.join(id) }
    }

    /// Makes a pod's directory, complete or not at all.
    ///
    /// # Errors
    ///
    /// When its name or a container's is taken, or a file cannot be written.
    pub(crate) fn create(
        &self,
        record: &PodRecord,
        sandbox: &Spec,
        containers: &[(String, Spec)],
        volumes: &[VolumePlan],
    ) -> Result<PodDir, DirectoryError> {
        let _lock = self.lock()?;
        let others = self.list()?;
        if let Some(other) = others.iter().find(|p| p.name == record.name) {
            return Err(in_use("pod", &record.name, &other.id));
        }
        for container in &record.containers {
            check_container_name(&others, &container.name)?;
        }
        check_volumes(&others, &record.id, &record.named_volumes)?;
        let draft = PodDir { path: self.root.join(format!(".{}", record.id)) };
        let made = draft.fill(record, sandbox, containers).and_then(|()| draft.write_files(volumes)).and_then(|()| {
            let pod = self.open(&record.id);
            fs::rename(&draft.path, &pod.path).map_err(at(&pod.path))?;
            Ok(pod)
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&draft.path);
        }
        made
    }

    /// Adds a container to a pod.
    ///
    /// # Errors
    ///
    /// When its name is taken, in the pod or anywhere, or the pod has been removed.
    pub(crate) fn add(
        &self,
        pod: &PodDir,
        container: &ContainerRecord,
        spec: &Spec,
        volumes: &[String],
    ) -> Result<(), DirectoryError> {
        let _lock = self.lock()?;
        let others = self.list()?;
        check_container_name(&others, &container.name)?;
        check_volumes(&others, &pod.record()?.id, volumes)?;
        write_bundle(&pod.bundle(&container.id), spec)?;
        let added = pod.update(|record| {
            record.containers.push(container.clone());
            record.named_volumes.extend(volumes.iter().cloned());
            record.named_volumes.sort();
            record.named_volumes.dedup();
        });
        if added.is_err() {
            let _ = fs::remove_dir_all(pod.bundle(&container.id));
        }
        added.map(drop)
    }

    /// Names are given out one at a time.
    fn lock(&self) -> Result<File, DirectoryError> {
        make_dir(&self.root)?;
        lock_file(&self.root.with_extension("lock"))
    }
}

impl PodDir {
    /// The bundle of a container, or of the sandbox under the pod's id.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.path.join("bundles").join(id)
    }

    /// Where a container's output goes, in the CRI log format.
    pub(crate) fn log(&self, short_name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{short_name}.log"))
    }

    /// A volume whose files husk writes.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.path.join("volumes").join(name)
    }

    /// What the supervisor itself has to say.
    pub(crate) fn supervisor_log(&self) -> PathBuf {
        self.path.join("supervisor.log")
    }

    /// FIFOs and other short-lived things.
    pub(crate) fn fifos(&self) -> PathBuf {
        self.path.join("fifos")
    }

    pub(crate) fn record(&self) -> Result<PodRecord, DirectoryError> {
        let path = self.path.join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(DirectoryError::Gone),
            Err(e) => return Err(at(&path)(e)),
        };
        let malformed = |cause: String| DirectoryError::Malformed { path: path.clone(), cause };
        let record: PodRecord = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
        if record.version != VERSION {
            return Err(malformed(format!("it is of version {}, this husk knows {VERSION}", record.version)));
        }
        Ok(record)
    }

    /// Changes the record under the pod's lock and answers the changed one.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Gone`] when the pod has been removed.
    pub(crate) fn update(&self, change: impl FnOnce(&mut PodRecord)) -> Result<PodRecord, DirectoryError> {
        if !self.path.join(RECORD).exists() {
            return Err(DirectoryError::Gone);
        }
        let _lock = lock_file(&self.path.join("pod.lock"))?;
        let mut record = self.record()?;
        change(&mut record);
        self.write(&record)?;
        Ok(record)
    }

    pub(crate) fn spec(&self, id: &str) -> Result<Spec, DirectoryError> {
        let path = self.bundle(id).join("config.json");
        let text = fs::read(&path).map_err(at(&path))?;
        serde_json::from_slice(&text).map_err(|e| DirectoryError::Malformed { path, cause: e.to_string() })
    }

    /// Changes the bundle that a container's next run begins with, under the pod's lock.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Gone`] when the pod has been removed.
    pub(crate) fn change_spec(&self, id: &str, change: impl FnOnce(&mut Spec)) -> Result<(), DirectoryError> {
        if !self.path.join(RECORD).exists() {
            return Err(DirectoryError::Gone);
        }
        let _lock = lock_file(&self.path.join("pod.lock"))?;
        let mut spec = self.spec(id)?;
        change(&mut spec);
        write_bundle(&self.bundle(id), &spec)
    }

    /// Removes a container's bundle, log and record.
    pub(crate) fn remove_container(&self, id: &str) -> Result<(), DirectoryError> {
        let mut short_name = None;
        self.update(|record| {
            short_name = record.container(id).map(|c| c.short_name.clone());
            record.containers.retain(|c| c.id != id);
        })?;
        remove_all(&self.bundle(id))?;
        match short_name.map(|name| self.log(&name)) {
            Some(log) => remove_all(&log),
            None => Ok(()),
        }
    }

    /// Removes the directory with all that is in it. Idempotent.
    pub(crate) fn remove(&self) -> Result<(), DirectoryError> {
        // The record goes first: what is left of an interrupted removal is no pod any more.
        remove_all(&self.path.join(RECORD))?;
        remove_all(&self.path)
    }

    fn fill(&self, record: &PodRecord, sandbox: &Spec, containers: &[(String, Spec)]) -> Result<(), DirectoryError> {
        make_dir(&self.path)?;
        make_dir(&self.path.join("logs"))?;
        make_dir(&self.fifos())?;
        write_bundle(&self.bundle(&record.id), sandbox)?;
        for (id, spec) in containers {
            write_bundle(&self.bundle(id), spec)?;
        }
        self.write(record)
    }

    /// The files of those volumes that consist of files.
    fn write_files(&self, volumes: &[VolumePlan]) -> Result<(), DirectoryError> {
        for volume in volumes {
            if let VolumeSource::Files { payload, group } = &volume.source {
                let written = AtomicWriter::new(self.volume(&volume.name), *group).write(payload);
                written.map_err(|source| DirectoryError::Files { volume: volume.name.clone(), source })?;
            }
        }
        Ok(())
    }

    fn write(&self, record: &PodRecord) -> Result<(), DirectoryError> {
        write_whole(&self.path.join(RECORD), record)
    }
}

fn check_container_name(pods: &[PodRecord], name: &str) -> Result<(), DirectoryError> {
    let taken = pods.iter().flat_map(|p| &p.containers).find(|c| c.name == name);
    taken.map_or(Ok(()), |other| Err(in_use("container", name, &other.id)))
}

/// A disk image has one writer: the VM that it is attached to.
fn check_volumes(pods: &[PodRecord], own: &str, volumes: &[String]) -> Result<(), DirectoryError> {
    for volume in volumes {
        let holder = pods.iter().find(|p| p.id != own && !p.phase.is_over() && p.named_volumes.contains(volume));
        if let Some(pod) = holder {
            return Err(DirectoryError::VolumeInUse { volume: volume.clone(), pod: pod.name.clone() });
        }
    }
    Ok(())
}

fn in_use(what: &'static str, name: &str, id: &str) -> DirectoryError {
    DirectoryError::NameInUse { what, name: name.to_owned(), id: id.chars().take(12).collect() }
}

fn write_bundle(bundle: &Path, spec: &Spec) -> Result<(), DirectoryError> {
    make_dir(bundle)?;
    write_whole(&bundle.join("config.json"), spec)
}

/// By way of a temporary file, so that no reader sees half of it.
fn write_whole<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), DirectoryError> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|e| DirectoryError::Io { path: path.to_owned(), source: e.into() })?;
    let draft = path.with_extension("tmp");
    let written =
        File::create(&draft).and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&draft, path));
    written.map_err(at(path))
}

pub(crate) fn make_dir(path: &Path) -> Result<(), DirectoryError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Holds an exclusive lock for as long as the file is open.
pub(crate) fn lock_file(path: &Path) -> Result<File, DirectoryError> {
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = match file {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(DirectoryError::Gone),
        other => other.map_err(at(path))?,
    };
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(|()| file).map_err(|e| at(path)(e.into())),
        }
    }
}

fn remove_all(path: &Path) -> Result<(), DirectoryError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
