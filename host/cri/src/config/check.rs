//! What values must be, checked while they are read, so that errors know their place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error};

use super::Handler;

/// Longest name of a handler that Kubernetes takes (a DNS label).
const NAME_MAX: usize = 63;

fn path<E: Error>(path: PathBuf) -> Result<PathBuf, E> {
    if path.is_absolute() {
        return Ok(path);
    }
    Err(E::custom(format_args!("{path:?} is not an absolute path: begin it with /")))
}

fn within<E: Error>(value: u64, least: u64, most: u64, unit: &str) -> Result<u64, E> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(E::custom(format_args!("{value} is not between {least} and {most} {unit}")))
}

pub(super) fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    path(PathBuf::deserialize(deserializer)?)
}

pub(super) fn some_absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    absolute(deserializer).map(Some)
}

pub(super) fn absolute_all<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    if paths.is_empty() {
        return Err(D::Error::custom("the list is empty: name at least one directory"));
    }
    paths.into_iter().map(path).collect()
}

pub(super) fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(u64::deserialize(deserializer)?, 64, 1 << 20, "MiB").map(Some)
}

pub(super) fn handlers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Handler>, D::Error> {
    let handlers = BTreeMap::<String, Handler>::deserialize(deserializer)?;
    for name in handlers.keys() {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let bounded = (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-');
        if !bounded || !name.bytes().all(plain) {
            return Err(D::Error::custom(format_args!(
                "\"{name}\" cannot be the handler of a RuntimeClass: use at most {NAME_MAX} of a-z, 0-9 and - (not first or last)"
            )));
        }
    }
    Ok(handlers)
}
