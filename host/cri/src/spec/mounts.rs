//! What a container sees below its root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use husk_image::Image;
use husk_spec::defaults::MOUNTS;
use oci_spec::runtime::Mount;

use super::security::id_mapping;
use crate::api::{self, ContainerConfig, MountPropagation};
use crate::error::Error;

/// The most mounts of a container.
const MOST: usize = 1024;

/// An image that a mount shows, by the mount's place in the request.
#[derive(Clone, Debug)]
pub struct MountedImage {
    pub index: usize,
    pub image: Image,
}

/// Checks the mounts of a request and sees that what they show is there: a missing directory of the host is made, as
/// containerd makes it, and links are followed here, on the host.
///
/// # Errors
///
/// [`Error::InvalidArgument`] with the mount's path in the container.
pub fn prepare(config: &ContainerConfig) -> Result<Vec<PathBuf>, Error> {
    if config.mounts.len() > MOST {
        return Err(Error::InvalidArgument(format!("mounts: {} of them; at most {MOST}", config.mounts.len())));
    }
    config.mounts.iter().map(source).collect()
}

/// The canonical source on the host; empty for an image.
fn source(mount: &api::Mount) -> Result<PathBuf, Error> {
    let refused = |why: String| Error::InvalidArgument(format!("mount at {:?}: {why}", mount.container_path));
    if !mount.container_path.starts_with('/') {
        return Err(refused("container_path must be absolute".into()));
    }
    let propagation = MountPropagation::try_from(mount.propagation)
        .map_err(|_| refused(format!("propagation = {}: there is no such mode", mount.propagation)))?;
    if propagation == MountPropagation::PropagationBidirectional {
        return Err(refused(
            "propagation Bidirectional: what a container mounts is mounted in another kernel and never reaches the node"
                .into(),
        ));
    }
    if mount.recursive_read_only {
        // containerd's rules (KEP-3857); kubelet knows the message's beginning.
        if !mount.readonly {
            return Err(refused("recursive_read_only needs readonly".into()));
        }
        if propagation != MountPropagation::PropagationPrivate {
            return Err(refused("recursive_read_only needs propagation PRIVATE".into()));
        }
    }
    for option in &mount.mount_options {
        if !matches!(option.as_str(), "noexec" | "nodev" | "nosuid") {
            return Err(refused(format!("mount_options: {option:?} is not noexec, nodev or nosuid")));
        }
    }
    if mount.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
        if !mount.host_path.is_empty() {
            return Err(refused("both image and host_path are set".into()));
        }
        if !mount.readonly {
            return Err(refused("an image can only be mounted read-only".into()));
        }
        return Ok(PathBuf::new());
    }
    let path = Path::new(&mount.host_path);
    if !path.is_absolute() {
        return Err(refused(format!("host_path {:?} must be absolute", mount.host_path)));
    }
    let failed = |error: io::Error| refused(format!("host_path {:?}: {error}", mount.host_path));
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path).map_err(failed)?;
            fs::canonicalize(path).map_err(failed)
        }
        found => found.map_err(failed),
    }
}

/// The mounts of a container's spec. `sources` are those of [`prepare`].
pub(super) fn all(
    config: &ContainerConfig,
    sources: &[PathBuf],
    images: &[MountedImage],
    privileged: bool,
) -> Result<Vec<Mount>, Error> {
    let taken = |destination: &str| config.mounts.iter().any(|m| same_place(&m.container_path, destination));
    let mut mounts: Vec<Mount> = MOUNTS
        .iter()
        .filter(|(destination, ..)| !taken(destination))
        .map(|(destination, typ, source, options)| {
            // A privileged container may write to the kernel's own file systems.
            let options = options.iter().filter(|option| !(privileged && **option == "ro"));
            of(destination, typ, Path::new(source), options.map(|option| (*option).to_owned()).collect())
        })
        .collect();
    for (index, (wanted, source)) in config.mounts.iter().zip(sources).enumerate() {
        let image = images.iter().find(|image| image.index == index);
        mounts.push(match image {
            Some(mounted) => of_image(wanted, &mounted.image),
            None => of_host(wanted, source)?,
        });
    }
    // Stable, so that mounts of equal depth keep their order.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

fn of_host(wanted: &api::Mount, source: &Path) -> Result<Mount, Error> {
    let access = match (wanted.readonly, wanted.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    let follows = wanted.propagation == i32::from(MountPropagation::PropagationHostToContainer);
    let mut options = vec!["rbind", access, if follows { "rslave" } else { "rprivate" }];
    options.extend(wanted.mount_options.iter().map(String::as_str));
    let mut mount = of(&wanted.container_path, "bind", source, options.into_iter().map(str::to_owned).collect());
    let maps = |maps: &[api::IdMapping]| {
        let mapped: Option<Vec<_>> = maps.iter().map(id_mapping).collect();
        let refused =
            || Error::InvalidArgument(format!("mount at {:?}: an id mapping is not valid", wanted.container_path));
        mapped.map(|maps| (!maps.is_empty()).then_some(maps)).ok_or_else(refused)
    };
    mount.set_uid_mappings(maps(&wanted.uid_mappings)?).set_gid_mappings(maps(&wanted.gid_mappings)?);
    Ok(mount)
}

fn of_image(wanted: &api::Mount, image: &Image) -> Mount {
    let mut options = vec!["ro".to_owned(), "fs=erofs".to_owned()];
    options.extend(image.data_paths.iter().map(|device| format!("device={}", device.display())));
    options.extend(wanted.mount_options.iter().cloned());
    if !wanted.image_sub_path.is_empty() {
        options.push(format!("subpath={}", wanted.image_sub_path));
    }
    of(&wanted.container_path, "husk.disk", &image.erofs_path, options)
}

fn of(destination: &str, typ: &str, source: &Path, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options));
    mount
}

/// As the kernel sees it: without repeated or trailing slashes.
fn same_place(a: &str, b: &str) -> bool {
    Path::new(a).components().eq(Path::new(b).components())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(mount: api::Mount) -> ContainerConfig {
        ContainerConfig { mounts: vec![mount], ..ContainerConfig::default() }
    }

    fn options(config: &ContainerConfig, destination: &str) -> Vec<String> {
        let sources = prepare(config).unwrap();
        let mounts = all(config, &sources, &[], false).unwrap();
        let mount = mounts.iter().find(|mount| mount.destination() == Path::new(destination)).unwrap();
        mount.options().clone().unwrap()
    }

    #[test]
    fn a_missing_directory_is_made_and_a_link_followed_on_the_host() {
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("a/b");
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&missing, &link).unwrap();
        let mount = |path: &Path| {
            let host_path = path.to_str().unwrap().to_owned();
            with(api::Mount { container_path: "/data".into(), host_path, ..api::Mount::default() })
        };
        assert_eq!(prepare(&mount(&missing)).unwrap(), [fs::canonicalize(&missing).unwrap()]);
        assert_eq!(prepare(&mount(&link)).unwrap(), [fs::canonicalize(&missing).unwrap()]);
    }

    #[test]
    fn recursively_read_only_needs_read_only_and_private() {
        let mount = api::Mount {
            container_path: "/data".into(),
            host_path: "/tmp".into(),
            readonly: true,
            recursive_read_only: true,
            ..api::Mount::default()
        };
        assert!(options(&with(mount.clone()), "/data").contains(&"rro".to_owned()));
        let follows = MountPropagation::PropagationHostToContainer.into();
        for bad in [
            api::Mount { readonly: false, ..mount.clone() },
            api::Mount { propagation: follows, ..mount.clone() },
            api::Mount { propagation: MountPropagation::PropagationBidirectional.into(), ..mount.clone() },
            api::Mount { propagation: 9, ..mount.clone() },
            api::Mount { container_path: "data".into(), ..mount.clone() },
            api::Mount { mount_options: vec!["suid".into()], ..mount },
        ] {
            assert!(prepare(&with(bad.clone())).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mount_of_kubelets_replaces_the_pods_own_file() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let host_path = place.path().to_str().unwrap().to_owned();
        let config = with(api::Mount { container_path: "/etc/hosts/".into(), host_path, ..api::Mount::default() });
        let sources = prepare(&config).unwrap();
        let mounts = all(&config, &sources, &[], false).unwrap();
        let hosts: Vec<_> = mounts.iter().filter(|m| m.destination().starts_with("/etc/hosts")).collect();
        assert_eq!(hosts.len(), 1);
        assert_eq!(hosts[0].typ().as_deref(), Some("bind"));
        assert!(mounts.iter().any(|mount| mount.destination() == Path::new("/etc/resolv.conf")));
    }
}
