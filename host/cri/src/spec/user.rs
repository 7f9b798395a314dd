//! Who a container's processes are: what the pod says, else what the image says, looked up in the image's files.

use husk_image::Image;

use super::{id, optional_id};
use crate::api::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use crate::error::Error;
use crate::state::UserRecord;

/// A container's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUser {
    pub ids: UserRecord,
    /// Home directory by the image's passwd file, else `/`.
    pub home: String,
}

/// The user of a container of `image`.
///
/// # Errors
///
/// [`Error::InvalidArgument`]: a group without a user, or one that the image does not know.
pub fn user(context: &LinuxContainerSecurityContext, image: &Image) -> Result<ContainerUser, Error> {
    let of_image = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let resolve = |spec: &str| image.resolve_user(spec).map_err(|error| Error::InvalidArgument(error.to_string()));
    let uid = optional_id("run_as_user", context.run_as_user.as_ref())?;
    let gid = optional_id("run_as_group", context.run_as_group.as_ref())?;
    let named = Some(context.run_as_username.as_str()).filter(|name| !name.is_empty());
    let wanted = match (uid, named, gid) {
        (None, None, Some(gid)) => {
            return Err(Error::InvalidArgument(format!(
                "run_as_group = {gid} without a user: set run_as_user or run_as_username, too"
            )));
        }
        (None, None, None) => of_image,
        (uid, name, gid) => {
            let user = uid.map_or_else(|| name.unwrap_or_default().to_owned(), |uid| uid.to_string());
            gid.map_or(user.clone(), |gid| format!("{user}:{gid}"))
        }
    };
    let resolved = resolve(&wanted)?;
    let policy = SupplementalGroupsPolicy::try_from(context.supplemental_groups_policy).map_err(|_| {
        let value = context.supplemental_groups_policy;
        Error::InvalidArgument(format!("supplemental_groups_policy = {value}: it is 0 (Merge) or 1 (Strict)"))
    })?;
    // A process that changes its group must not get rid of its first one (CVE-2022-36109).
    let mut groups = vec![resolved.gid];
    if policy == SupplementalGroupsPolicy::Merge {
        // What the image's group file says of the user holds whether a group was given or not.
        let alone = resolve(wanted.split(':').next().unwrap_or_default())?;
        groups.extend(alone.additional_gids.into_iter().filter(|gid| *gid != alone.gid));
    }
    for gid in &context.supplemental_groups {
        groups.push(id("supplemental_groups", *gid)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|gid| seen.insert(*gid));
    Ok(ContainerUser { ids: UserRecord { uid: resolved.uid, gid: resolved.gid, groups }, home: resolved.home })
}
