//! Making a volume of each kind.

use std::path::Path;

use husk_agent_api::v1::{BlockVolume, HostSocket, ScratchDirectory, SharedTree, create_volume_request::Source};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tokio::net::UnixListener;

use super::super::quota;
use super::super::slots::{Slots, blocking};
use super::{Kind, Volumes};
use crate::error::{Context, Error, Result};
use crate::fs::remove::remove_tree;
use crate::paths;

/// The file systems that a block device may carry.
fn known_fs(field: &str, fs_type: &str) -> Result<&'static str> {
    match fs_type {
        "ext4" => Ok("ext4"),
        "erofs" => Ok("erofs"),
        other => Err(Error::invalid(format!("{field}: {other:?} is neither ext4 nor erofs"))),
    }
}

impl Volumes {
    pub(super) async fn make(&self, slots: &Slots, name: &str, source: Source, gid: Option<u32>) -> Result<Kind> {
        if gid.is_some() && !matches!(source, Source::Scratch(_) | Source::Tmpfs(_)) {
            return Err(Error::invalid("gid: only scratch and tmpfs volumes are given to a group"));
        }
        match source {
            Source::Scratch(ScratchDirectory { size_bytes }) => {
                if !self.has_scratch() {
                    return Err(Error::precondition("the pod has no scratch disk yet; mount it first"));
                }
                let directory = paths::scratch_volume(name);
                make_directory(&directory, 0o777)?;
                let limited = if size_bytes == 0 { Ok(()) } else { quota::limit(&directory, size_bytes) };
                if let Err(error) = limited.and_then(|()| give_to_group(&directory, gid)) {
                    remove_tree(&directory)?;
                    return Err(error);
                }
                Ok(Kind::ScratchDirectory)
            }
            Source::Tmpfs(tmpfs) => {
                let target = paths::volume(name);
                std::fs::create_dir_all(&target).on("mkdir", target.display())?;
                let mut data = match gid {
                    None => String::from("mode=0777"),
                    Some(gid) => format!("mode=2777,gid={gid}"),
                };
                if tmpfs.size_bytes != 0 {
                    data = format!("{data},size={}", tmpfs.size_bytes);
                }
                let data = std::ffi::CString::new(data).map_err(|_| Error::invalid("tmpfs options"))?;
                rustix::mount::mount("tmpfs", &target, "tmpfs", MountFlags::NODEV, data.as_c_str())
                    .on("mount", target.display())?;
                Ok(Kind::Tmpfs)
            }
            Source::Block(BlockVolume { slot, fs_type, read_only }) => {
                let fs_type = known_fs("block.fs_type", &fs_type)?;
                let mut flags = MountFlags::NODEV | MountFlags::NOATIME;
                if read_only || fs_type == "erofs" {
                    flags |= MountFlags::RDONLY;
                }
                slots.mount_exclusive(slot, format!("volume {name}"), paths::volume(name), fs_type, flags, c"").await?;
                Ok(Kind::Block { slot })
            }
            Source::Shared(SharedTree { slot, tag }) => {
                self.mount_shared(slots, slot, tag).await?;
                let tree = paths::shared_volume(name);
                blocking(move || rustix::fs::lstat(&tree).on("lstat", tree.display())).await??;
                Ok(Kind::Shared)
            }
            Source::Socket(socket) => self.make_socket(name, &socket),
        }
    }

    /// Makes a socket for which the host carries the bytes.
    fn make_socket(&self, name: &str, socket: &HostSocket) -> Result<Kind> {
        let path = paths::volume(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).on("mkdir", parent.display())?;
        }
        let listener = UnixListener::bind(&path).on("bind", path.display())?;
        let owned = rustix::fs::chown(&path, Some(Uid::from_raw(socket.uid)), Some(Gid::from_raw(socket.gid)))
            .and_then(|()| rustix::fs::chmod(&path, Mode::from_raw_mode(socket.mode & 0o777)));
        let added = owned.on("chown", path.display()).and_then(|()| {
            let added = self.streams.add_socket(&format!("volume {name}"), socket.token, listener);
            if added { Ok(()) } else { Err(Error::invalid("socket.token: taken, or there are too many streams")) }
        });
        if let Err(error) = added {
            remove_socket(&path)?;
            return Err(error);
        }
        Ok(Kind::Socket { token: socket.token })
    }

    /// Mounts the file system with the trees of the host, if it is not yet.
    async fn mount_shared(&self, slots: &Slots, slot: u32, tag: String) -> Result<()> {
        let mut mounted = self.shared.lock().await;
        match *mounted {
            Some(mounted) if mounted == slot => Ok(()),
            Some(mounted) => Err(Error::precondition(format!(
                "shared.slot: the trees of the host are in slot {mounted}, and one device shows all of a pod's"
            ))),
            None => {
                if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(Error::invalid("shared.tag: not printable ASCII without space"));
                }
                // A device node of the host means nothing here.
                let flags = MountFlags::NODEV;
                slots.mount_shared(slot, tag, paths::SHARED.into(), flags).await?;
                *mounted = Some(slot);
                Ok(())
            }
        }
    }
}

pub(super) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(mode)).on("mkdir", path.display())?;
    // Not subject to any umask.
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).on("chmod", path.display())
}

/// Kubernetes' fsGroup: the group owns the directory, and what is made in it.
fn give_to_group(directory: &Path, gid: Option<u32>) -> Result<()> {
    let Some(gid) = gid else { return Ok(()) };
    rustix::fs::chown(directory, None, Some(Gid::from_raw(gid))).on("chown", directory.display())?;
    rustix::fs::chmod(directory, Mode::from_raw_mode(0o2777)).on("chmod", directory.display())
}

pub(super) fn remove_socket(path: &Path) -> Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).on("unlink", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_systems_of_ours_are_mounted() {
        assert!(known_fs("fs_type", "ext4").is_ok());
        assert!(known_fs("fs_type", "vfat").is_err());
    }
}
