//! Records on disk: `ROOT/cri/sandboxes/ID` and `ROOT/cri/containers/ID`, each with the `config` of its request (protobuf)
//! and its `record.json`.
//!
//! A directory appears whole, by rename, and so does each new record in it. Nothing is synchronised to the disk: a
//! crash of the machine ends every pod, and what it leaves of their records is removed with them.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

const CONFIG: &str = "config";
const RECORD: &str = "record.json";
/// Begins names of directories that are being made or removed.
const HIDDEN: char = '.';

/// One kind of records below one directory.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Records below `root`, which is made if it is missing, for root alone: environments hold secrets.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        Ok(Self { root })
    }

    /// Writes a new object.
    ///
    /// # Errors
    ///
    /// When there is one of that id, or the disk refuses; nothing is left then.
    pub fn create<R: Serialize>(&self, id: &str, config: &impl Message, record: &R) -> io::Result<()> {
        let hidden = self.root.join(format!("{HIDDEN}{id}"));
        let written = (|| {
            fs::DirBuilder::new().mode(0o700).create(&hidden)?;
            fs::write(hidden.join(CONFIG), config.encode_to_vec())?;
            fs::write(hidden.join(RECORD), serde_json::to_vec(record)?)?;
            fs::rename(&hidden, self.root.join(id))
        })();
        if written.is_err() {
            // What is left has a hidden name and goes with the next start at the latest.
            let _ = fs::remove_dir_all(&hidden);
        }
        written
    }

    /// Replaces an object's record.
    ///
    /// # Errors
    ///
    /// When the object is gone or the disk refuses; the record is then as it was.
    pub fn update<R: Serialize>(&self, id: &str, record: &R) -> io::Result<()> {
        let directory = self.root.join(id);
        let new = directory.join(format!("{HIDDEN}{RECORD}"));
        fs::write(&new, serde_json::to_vec(record)?)?;
        fs::rename(&new, directory.join(RECORD))
    }

    /// Forgets an object. Idempotent.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        let hidden = self.root.join(format!("{HIDDEN}{id}"));
        match fs::rename(self.root.join(id), &hidden) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        fs::remove_dir_all(hidden)
    }

    /// Every object, after a restart. What cannot be read is an object that a crash damaged: it is removed.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn load<C: Message + Default, R: DeserializeOwned>(&self) -> io::Result<Vec<(C, R)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
            if id.starts_with(HIDDEN) {
                fs::remove_dir_all(&path)?;
                continue;
            }
            match read(&path) {
                Ok(object) => all.push(object),
                Err(error) => {
                    tracing::warn!("{}: {error}; it is removed", path.display());
                    self.remove(&id)?;
                }
            }
        }
        Ok(all)
    }
}

fn read<C: Message + Default, R: DeserializeOwned>(directory: &Path) -> io::Result<(C, R)> {
    let config = C::decode(fs::read(directory.join(CONFIG))?.as_slice()).map_err(io::Error::other)?;
    let record = serde_json::from_slice(&fs::read(directory.join(RECORD))?)?;
    Ok((config, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ContainerConfig;

    fn config(path: &str) -> ContainerConfig {
        ContainerConfig { log_path: path.to_owned(), ..ContainerConfig::default() }
    }

    fn disk() -> (tempfile::TempDir, Disk) {
        let place = tempfile::tempdir().unwrap();
        let disk = Disk::open(place.path().join("containers")).unwrap();
        (place, disk)
    }

    #[test]
    fn what_was_written_is_read_back_with_its_last_record() {
        let (_place, disk) = disk();
        disk.create("a", &config("0.log"), &1).unwrap();
        disk.create("b", &config("1.log"), &2).unwrap();
        disk.update("a", &3).unwrap();
        disk.remove("b").unwrap();
        disk.remove("b").unwrap();
        assert_eq!(disk.load::<ContainerConfig, i32>().unwrap(), [(config("0.log"), 3)]);
    }

    #[test]
    fn an_id_is_taken_once() {
        let (_place, disk) = disk();
        disk.create("a", &config("0.log"), &1).unwrap();
        assert!(disk.create("a", &config("1.log"), &2).is_err());
        assert_eq!(disk.load::<ContainerConfig, i32>().unwrap(), [(config("0.log"), 1)]);
        assert!(disk.update("gone", &1).is_err());
    }

    #[test]
    fn what_a_crash_left_is_removed() {
        let (place, disk) = disk();
        disk.create("a", &config("0.log"), &1).unwrap();
        let root = place.path().join("containers");
        fs::create_dir(root.join(".half")).unwrap();
        fs::create_dir(root.join("torn")).unwrap();
        fs::write(root.join("torn").join(RECORD), b"{").unwrap();
        assert_eq!(disk.load::<ContainerConfig, i32>().unwrap().len(), 1);
        assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    }
}
