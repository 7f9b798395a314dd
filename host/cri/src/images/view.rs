//! An image as CRI shows it.

use std::collections::HashMap;

use husk_image::ImageSummary;
use serde_json::json;
use tonic::Status;

use crate::api::{Image, ImageSpec, Int64Value};

pub(super) fn image(summary: ImageSummary) -> Image {
    let id = summary.id.to_string();
    let (uid, username) = user(&summary.user);
    Image {
        // What was pulled by digest has no tag.
        repo_tags: summary.names.into_iter().filter(|name| !name.contains('@')).collect(),
        repo_digests: summary.digests,
        // CRI wants more than nothing, whatever file systems make of small files.
        size: summary.size.max(1),
        uid: uid.map(|value| Int64Value { value }),
        username,
        spec: Some(ImageSpec {
            image: id.clone(),
            annotations: summary.annotations.into_iter().collect(),
            ..ImageSpec::default()
        }),
        pinned: summary.pinned,
        id,
    }
}

/// Of `USER[:GROUP]` the user, as a number if it is one. An image that names none runs as root.
fn user(text: &str) -> (Option<i64>, String) {
    match text.split(':').next().unwrap_or_default() {
        "" => (Some(0), String::new()),
        user => match user.parse::<u32>() {
            Ok(uid) => (Some(uid.into()), String::new()),
            Err(_) => (None, user.to_owned()),
        },
    }
}

/// What is shown of an image on demand, in the shape that containerd gives it: `crictl inspecti` and its users look for
/// `imageSpec`.
pub(super) fn info(image: &husk_image::Image) -> Result<HashMap<String, String>, Status> {
    let disk: Vec<_> = std::iter::once(&image.erofs_path).chain(&image.data_paths).collect();
    let info = json!({"imageSpec": image.config, "manifestDigest": image.digest, "disk": disk});
    let text = serde_json::to_string(&info);
    Ok(HashMap::from([("info".to_owned(), text.map_err(|error| Status::internal(error.to_string()))?)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_a_number_or_a_name_is_said_of_the_user() {
        for (text, uid, name) in [
            ("", Some(0), ""),
            ("0", Some(0), ""),
            ("1002", Some(1002), ""),
            ("1003:1004", Some(1003), ""),
            ("www-data", None, "www-data"),
            ("www-data:1004", None, "www-data"),
            (":1004", Some(0), ""),
            ("4294967296", None, "4294967296"),
        ] {
            assert_eq!(user(text), (uid, name.to_owned()), "{text}");
        }
    }
}
