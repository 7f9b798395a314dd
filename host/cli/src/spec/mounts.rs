//! What is mounted in a container: the kernel's file systems, the pod's files, and the volumes that were asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use husk_client::RootfsImage;
use husk_spec::defaults::MOUNTS;
use oci_spec::runtime::Mount;

use super::SpecError;
use crate::pods::plan::{
    Access, ContainerPlan, ImageSource, Medium, MountFlag, MountOptions, MountPlan, MountSource, Propagation,
    VolumePlan, VolumeSource,
};

/// Where on the host the things are that mounts name.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    pub(crate) volumes: &'a [VolumePlan],
    /// The directory of a volume whose files husk writes.
    pub(crate) files: &'a dyn Fn(&str) -> PathBuf,
    /// The disk image of a named volume.
    pub(crate) disk: &'a dyn Fn(&str) -> PathBuf,
    /// The disks of images that are mounted as volumes, by their references.
    pub(crate) images: &'a BTreeMap<String, RootfsImage>,
}

impl fmt::Debug for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("volumes", &self.volumes).field("images", &self.images).finish_non_exhaustive()
    }
}

/// All mounts of a container, parents before children. One that was asked for takes the place of a default one.
pub(super) fn all(plan: &ContainerPlan, places: Places<'_>) -> Result<Vec<Mount>, SpecError> {
    let wanted = &plan.mounts;
    let mut mounts: Vec<Mount> = MOUNTS
        .iter()
        .filter(|(destination, ..)| !wanted.iter().any(|m| same_place(&m.destination, destination)))
        .map(|(destination, typ, source, options)| {
            // A privileged container may write to the kernel's own file systems.
            let options = options.iter().filter(|option| !(plan.exposure.privileged && **option == "ro"));
            mount(destination, typ, Path::new(source), options.map(|o| (*o).to_owned()).collect())
        })
        .collect();
    for wanted in wanted {
        let mut mount = of_plan(wanted, places).ok_or_else(|| SpecError::Mount {
            container: plan.name.clone(),
            destination: wanted.destination.clone(),
        })?;
        if is_id_mapped(plan, wanted) {
            let mut options = mount.options().clone().unwrap_or_default();
            options.push("idmap".to_owned());
            mount.set_options(Some(options));
        }
        mounts.push(mount);
    }
    // Stable, so that mounts of equal depth keep their order.
    mounts.sort_by_key(|m| depth(m.destination()));
    Ok(mounts)
}

/// What is the pod's own shows the container's ids. What is the host's shows them when that was asked for.
fn is_id_mapped(plan: &ContainerPlan, mount: &MountPlan) -> bool {
    let own = matches!(mount.source, MountSource::NamedVolume { .. } | MountSource::Image(_));
    mount.options.id_mapped || own && plan.users.is_some()
}

/// `None` when the volume or image is not among the places.
fn of_plan(plan: &MountPlan, places: Places<'_>) -> Option<Mount> {
    Some(match &plan.source {
        MountSource::PodVolume { name } => {
            let volume = places.volumes.iter().find(|v| v.name == *name)?;
            return of_volume(plan, volume, places);
        }
        MountSource::NamedVolume { name } => disk(plan, &(places.disk)(name), plan.options.access),
        MountSource::Host { path } => bind(plan, path, plan.options.access),
        MountSource::Image(image) => of_image(plan, image, places)?,
        MountSource::Tmpfs { options } => {
            let mut all = vec!["nosuid".to_owned(), "nodev".to_owned(), access(plan.options.access).to_owned()];
            all.extend(options.iter().cloned());
            mount(&plan.destination, "tmpfs", Path::new("tmpfs"), all)
        }
    })
}

fn of_volume(plan: &MountPlan, volume: &VolumePlan, places: Places<'_>) -> Option<Mount> {
    let own = plan.options.access;
    Some(match &volume.source {
        VolumeSource::Empty { medium, size, group } => {
            let mut options = guest_options(&plan.options, own);
            options.push(match medium {
                Medium::Disk => "medium=disk".to_owned(),
                Medium::Memory => "medium=memory".to_owned(),
            });
            options.extend(size.map(|bytes| format!("size={bytes}")));
            options.extend(group.map(|gid| format!("gid={gid}")));
            options.extend(sub_path(plan));
            mount(&plan.destination, "husk.volume", Path::new(&volume.name), options)
        }
        VolumeSource::Host(host) => bind(plan, &host.path, own),
        // Read-only as in kubelet, whatever the container asks for: its writes would meet the next update.
        VolumeSource::Files { .. } => bind(plan, &(places.files)(&volume.name), at_most_read(own)),
        VolumeSource::Image(image) => of_image(plan, image, places)?,
        // Nothing can be mounted from a device that is given as it is.
        VolumeSource::Device(_) => return None,
        VolumeSource::Named { name, read_only } => {
            disk(plan, &(places.disk)(name), if *read_only { at_most_read(own) } else { own })
        }
    })
}

fn of_image(plan: &MountPlan, image: &ImageSource, places: Places<'_>) -> Option<Mount> {
    let disk = places.images.get(&image.reference)?;
    let mut options = guest_options(&plan.options, Access::ReadOnly);
    options.push("fs=erofs".to_owned());
    options.extend(disk.devices.iter().map(|device| format!("device={}", device.display())));
    options.extend(sub_path(plan));
    Some(mount(&plan.destination, "husk.disk", &disk.path, options))
}

fn disk(plan: &MountPlan, image: &Path, access: Access) -> Mount {
    let mut options = guest_options(&plan.options, access);
    options.extend(sub_path(plan));
    mount(&plan.destination, "husk.disk", image, options)
}

/// Something of the host.
fn bind(plan: &MountPlan, source: &Path, access: Access) -> Mount {
    let mut options = vec![
        if plan.options.recursive { "rbind" } else { "bind" }.to_owned(),
        match access {
            Access::ReadWrite => "rw",
            Access::ReadOnly => "ro",
            Access::RecursiveReadOnly => "rro",
        }
        .to_owned(),
        match plan.options.propagation {
            Propagation::Private => "rprivate",
            Propagation::Slave => "rslave",
        }
        .to_owned(),
    ];
    options.extend(flags(&plan.options.flags));
    options.extend(sub_path(plan));
    mount(&plan.destination, "bind", source, options)
}

/// Access and flags of what is the guest's own: nothing is mounted below it, so read-only is recursive, and the host
/// has no mounts to make there.
fn guest_options(options: &MountOptions, own: Access) -> Vec<String> {
    let mut all = vec![access(own).to_owned()];
    all.extend(flags(&options.flags));
    all
}

fn access(access: Access) -> &'static str {
    if access == Access::ReadWrite { "rw" } else { "ro" }
}

fn at_most_read(access: Access) -> Access {
    if access == Access::ReadWrite { Access::ReadOnly } else { access }
}

fn flags(flags: &[MountFlag]) -> impl Iterator<Item = String> {
    flags.iter().map(|flag| flag.as_str().to_owned())
}

fn sub_path(plan: &MountPlan) -> Option<String> {
    plan.sub_path.as_ref().map(|path| format!("subpath={path}"))
}

fn mount(destination: &str, typ: &str, source: &Path, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options));
    mount
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

fn same_place(a: &str, b: &str) -> bool {
    Path::new(a).components().eq(Path::new(b).components())
}
