//! Getting hold of images, and what a container needs to know of one.

use std::sync::Arc;

use anyhow::Context as _;
use husk_image::{Image, LookupError, Progress, PullOptions, Reference, Store};

use crate::error::Advise as _;
use crate::pods::plan::{ContainerPlan, PullPolicy, UserPlan};
use crate::spec::ImageFacts;

/// The image that `name` means, pulled when the policy says so.
pub(crate) async fn ensure(
    store: &Store,
    name: &str,
    policy: PullPolicy,
    progress: Arc<dyn Progress>,
) -> anyhow::Result<Image> {
    if policy != PullPolicy::Always {
        match store.get(name) {
            Ok(image) => return Ok(image),
            Err(LookupError::Unknown { .. }) if policy == PullPolicy::Missing => {}
            Err(error) => return Err(error.into()),
        }
    }
    pull(store, name, progress).await
}

/// Fetches an image from its registry.
pub(crate) async fn pull(store: &Store, name: &str, progress: Arc<dyn Progress>) -> anyhow::Result<Image> {
    let reference: Reference = name.parse()?;
    let pulled = store.pull(&reference, &PullOptions::default(), progress).await;
    pulled.hint("`husk load -i FILE` takes an image from an archive instead")
}

/// What the image says about a container's process, and who its user is in this image.
pub(crate) fn facts(image: &Image, plan: &ContainerPlan) -> anyhow::Result<ImageFacts> {
    let config = image.config.config().clone().unwrap_or_default();
    let user = user_of(&plan.user, config.user().as_deref().unwrap_or_default());
    let resolved = image.resolve_user(&user).with_context(|| format!("container {}", plan.name))?;
    Ok(ImageFacts {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        workdir: config.working_dir().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone(),
        uid: resolved.uid,
        gid: resolved.gid,
        groups: resolved.additional_gids,
        home: resolved.home,
    })
}

/// `USER[:GROUP]`: the parts that the plan has, the image's for the others.
fn user_of(plan: &UserPlan, image: &str) -> String {
    let user = match (&plan.user, &plan.group) {
        (None, None) => return image.to_owned(),
        (Some(user), _) => user.as_str(),
        (None, Some(_)) => image.split(':').next().filter(|user| !user.is_empty()).unwrap_or("0"),
    };
    plan.group.as_ref().map_or_else(|| user.to_owned(), |group| format!("{user}:{group}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_group_come_from_the_plan_or_else_the_image() {
        let plan = |user: Option<&str>, group: Option<&str>| UserPlan {
            user: user.map(str::to_owned),
            group: group.map(str::to_owned),
            ..UserPlan::default()
        };
        for (user, group, image, expected) in [
            (None, None, "www:www", "www:www"),
            (Some("7"), None, "www:www", "7"),
            (Some("7"), Some("8"), "www", "7:8"),
            (None, Some("8"), "www:www", "www:8"),
            (None, Some("8"), "", "0:8"),
        ] {
            assert_eq!(user_of(&plan(user, group), image), expected);
        }
    }
}
