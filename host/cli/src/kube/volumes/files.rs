//! Volumes whose files come from the manifest: configMap, secret, downwardAPI and projected, with the modes, paths and
//! rules of kubelet (`pkg/volume/{configmap,secret,downwardapi,projected}`).

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume, VolumeProjection};

use super::super::convert::{Context, Problems};
use super::super::objects::ObjectKind;
use crate::pods::atomic_writer::Payload;

/// Of files, unless the manifest says otherwise.
const MODE: i32 = 0o644;

/// The files of a volume; `None` when it is of another kind.
pub(super) fn payload(volume: &Volume, path: &str, context: &Context<'_>, problems: &mut Problems) -> Option<Payload> {
    let mut files = Files { payload: Payload::default(), mode: MODE, shared: false, context, problems };
    if let Some(map) = &volume.config_map {
        let path = format!("{path}.configMap");
        files.default_mode(map.default_mode, &path);
        files.object(ObjectKind::ConfigMap, &map.name, map.items.as_deref(), map.optional, &path);
    } else if let Some(secret) = &volume.secret {
        let path = format!("{path}.secret");
        files.default_mode(secret.default_mode, &path);
        let name = secret.secret_name.as_deref().unwrap_or_default();
        files.object(ObjectKind::Secret, name, secret.items.as_deref(), secret.optional, &path);
    } else if let Some(downward) = &volume.downward_api {
        let path = format!("{path}.downwardAPI");
        files.default_mode(downward.default_mode, &path);
        files.downward(downward.items.as_deref().unwrap_or_default(), &path);
    } else if let Some(projected) = &volume.projected {
        files.projected(projected, &format!("{path}.projected"));
    } else {
        return None;
    }
    Some(files.payload)
}

struct Files<'a, 'p> {
    payload: Payload,
    /// Of files that have none of their own.
    mode: i32,
    /// Several sources share the volume: a path may stand in one of them only.
    shared: bool,
    context: &'a Context<'a>,
    problems: &'p mut Problems,
}

impl Files<'_, '_> {
    fn default_mode(&mut self, mode: Option<i32>, path: &str) {
        let mode = mode.unwrap_or(MODE);
        if (0..=0o777).contains(&mode) {
            self.mode = mode;
        } else {
            self.problems
                .add(&format!("{path}.defaultMode"), format!("{mode} is not between 0 and 0777 (decimal 511)"));
        }
    }

    fn insert(&mut self, file: &str, mode: Option<i32>, content: Vec<u8>, path: &str) {
        if self.shared && self.payload.contains(file) {
            self.problems.add(path, format!("\"{file}\" stands in two sources of the volume"));
            return;
        }
        if let Err(error) = self.payload.insert(file, mode.unwrap_or(self.mode), content) {
            self.problems.add(path, error);
        }
    }

    /// All keys of an object, or those that `items` names.
    fn object(
        &mut self,
        kind: ObjectKind,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        path: &str,
    ) {
        let Some(object) = self.context.object(kind, name, optional, path, self.problems) else { return };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, value) in object.files() {
                self.insert(key, None, value.to_vec(), path);
            }
            return;
        };
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}.items[{index}]");
            match object.file(&item.key) {
                Some(value) => self.insert(&item.path, item.mode, value.to_vec(), &path),
                None if optional == Some(true) => {}
                None => {
                    let text = format!("{} {name} has no key \"{}\"", kind.as_str(), item.key);
                    self.problems.add(&format!("{path}.key"), text);
                }
            }
        }
    }

    fn downward(&mut self, items: &[DownwardAPIVolumeFile], path: &str) {
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}.items[{index}]");
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), None) => {
                    self.context.downward.file(field).map_err(|text| (format!("{path}.fieldRef.fieldPath"), text))
                }
                (None, Some(resource)) => {
                    let value = self.context.downward.resource(resource, None);
                    value.map_err(|text| (format!("{path}.resourceFieldRef"), text))
                }
                _ => Err((path.clone(), "has either a fieldRef or a resourceFieldRef".to_owned())),
            };
            match value {
                Ok(value) => self.insert(&item.path, item.mode, value.into_bytes(), &path),
                Err((path, text)) => self.problems.add(&path, text),
            }
        }
    }

    fn projected(&mut self, projected: &ProjectedVolumeSource, path: &str) {
        self.default_mode(projected.default_mode, path);
        self.shared = true;
        for (index, source) in projected.sources.iter().flatten().enumerate() {
            self.projection(source, &format!("{path}.sources[{index}]"));
        }
    }

    fn projection(&mut self, source: &VolumeProjection, path: &str) {
        match (&source.config_map, &source.secret, &source.downward_api) {
            (Some(map), None, None) => {
                let path = format!("{path}.configMap");
                self.object(ObjectKind::ConfigMap, &map.name, map.items.as_deref(), map.optional, &path);
            }
            (None, Some(secret), None) => {
                let path = format!("{path}.secret");
                self.object(ObjectKind::Secret, &secret.name, secret.items.as_deref(), secret.optional, &path);
            }
            (None, None, Some(downward)) => {
                self.downward(downward.items.as_deref().unwrap_or_default(), &format!("{path}.downwardAPI"));
            }
            _ => self.problems.add(path, "has exactly one of configMap, secret and downwardAPI"),
        }
    }
}
