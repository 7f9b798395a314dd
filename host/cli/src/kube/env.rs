//! A container's environment: `env` and `envFrom` (kubelet's `makeEnvironmentVariables`).

use std::cell::Cell;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EnvVarSource};

use super::convert::{Context, Problems};
use super::expand;
use super::names::is_variable;
use super::objects::{Object, ObjectKind};

/// The variables of a container in their order, and which of them hold secrets.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) pairs: Vec<(String, String)>,
    pub(super) secret: BTreeSet<String>,
}

/// A text whose references are replaced.
pub(super) struct Expanded {
    pub(super) text: String,
    /// One of them was a secret.
    pub(super) secret: bool,
    /// The first that is not set.
    pub(super) unset: Option<String>,
}

impl Environment {
    /// What of `container` says, with all that it refers to.
    pub(super) fn of(container: &Container, path: &str, context: &Context<'_>, problems: &mut Problems) -> Self {
        let mut environment = Self::default();
        for (index, source) in container.env_from.iter().flatten().enumerate() {
            environment.all_of(source, &format!("{path}.envFrom[{index}]"), context, problems);
        }
        for (index, var) in container.env.iter().flatten().enumerate() {
            environment.one(var, &format!("{path}.env[{index}]"), container, context, problems);
        }
        environment
    }

    /// `text` with the variables in place of their names.
    pub(super) fn expand(&self, text: &str) -> Expanded {
        let (secret, unset) = (Cell::new(false), Cell::new(None));
        let text = expand::expand(text, |name| {
            let value = expand::find(&self.pairs, name);
            if value.is_none() {
                let first = unset.take().unwrap_or_else(|| name.to_owned());
                unset.set(Some(first));
            }
            secret.set(secret.get() || self.secret.contains(name));
            value
        });
        Expanded { text, secret: secret.get(), unset: unset.into_inner() }
    }

    /// A later entry of the same name replaces the earlier one, in its place.
    fn set(&mut self, name: String, value: String, secret: bool) {
        if secret {
            self.secret.insert(name.clone());
        } else {
            self.secret.remove(&name);
        }
        match self.pairs.iter_mut().find(|(n, _)| *n == name) {
            Some(entry) => entry.1 = value,
            None => self.pairs.push((name, value)),
        }
    }

    fn all_of(&mut self, source: &EnvFromSource, path: &str, context: &Context<'_>, problems: &mut Problems) {
        let (kind, name, optional, field) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), None) => (ObjectKind::ConfigMap, &map.name, map.optional, "configMapRef"),
            (None, Some(secret)) => (ObjectKind::Secret, &secret.name, secret.optional, "secretRef"),
            _ => return problems.add(path, "has either a configMapRef or a secretRef"),
        };
        let path = format!("{path}.{field}");
        let Some(object) = context.object(kind, name, optional, &path, problems) else { return };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in object.variables() {
            let name = format!("{prefix}{key}");
            if !is_variable(&name) {
                problems.add(&path, format!("key \"{key}\" makes no variable name: \"{name}\""));
            } else if let Some(value) = text(value, key, &path, problems) {
                self.set(name, value, kind == ObjectKind::Secret);
            }
        }
    }

    fn one(&mut self, var: &EnvVar, path: &str, own: &Container, context: &Context<'_>, problems: &mut Problems) {
        if !is_variable(&var.name) {
            problems.add(&format!("{path}.name"), format!("\"{}\" is no variable name", var.name));
        }
        let value = var.value.as_deref().filter(|value| !value.is_empty());
        match (value, &var.value_from) {
            (Some(_), Some(_)) => problems.add(path, "has both value and valueFrom"),
            (_, Some(from)) => {
                let path = format!("{path}.valueFrom");
                if let Some((value, secret)) = referred(from, &path, own, context, problems) {
                    self.set(var.name.clone(), value, secret);
                }
            }
            (value, None) => {
                let value = self.expand(value.unwrap_or_default());
                self.set(var.name.clone(), value.text, value.secret);
            }
        }
    }
}

/// The value that a reference leads to, and whether it is a secret; `None` when it is optional and not there, or a
/// problem. It is taken as it is, without expansion.
fn referred(
    from: &EnvVarSource,
    path: &str,
    own: &Container,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<(String, bool)> {
    let (kind, name, key, optional, field) =
        match (&from.field_ref, &from.resource_field_ref, &from.config_map_key_ref, &from.secret_key_ref) {
            (Some(reference), None, None, None) => {
                let value = context.downward.variable(reference);
                let value = value.map_err(|text| problems.add(&format!("{path}.fieldRef.fieldPath"), text));
                return Some((value.ok()?, false));
            }
            (None, Some(reference), None, None) => {
                let value = context.downward.resource(reference, Some(own));
                let value = value.map_err(|text| problems.add(&format!("{path}.resourceFieldRef"), text));
                return Some((value.ok()?, false));
            }
            (None, None, Some(map), None) => {
                (ObjectKind::ConfigMap, &map.name, &map.key, map.optional, "configMapKeyRef")
            }
            (None, None, None, Some(secret)) => {
                (ObjectKind::Secret, &secret.name, &secret.key, secret.optional, "secretKeyRef")
            }
            _ => {
                problems.add(path, "has exactly one of fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef");
                return None;
            }
        };
    let path = format!("{path}.{field}");
    let object: &Object = context.object(kind, name, optional, &path, problems)?;
    match object.variable(key) {
        Some(value) => Some((text(value, key, &path, problems)?, kind == ObjectKind::Secret)),
        None => {
            if optional != Some(true) {
                problems.add(&path, format!("{} {name} has no key \"{key}\"", kind.as_str()));
            }
            None
        }
    }
}

fn text(value: &[u8], key: &str, path: &str, problems: &mut Problems) -> Option<String> {
    let text = String::from_utf8(value.to_vec()).ok().filter(|text| !text.contains('\0'));
    if text.is_none() {
        problems.add(path, format!("the value of \"{key}\" is no text: mount it as a volume"));
    }
    text
}
