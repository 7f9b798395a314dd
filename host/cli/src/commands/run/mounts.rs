//! `-v`, `--mount` and `--tmpfs` in podman's words.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::{Args, flags};
use crate::error::Advise as _;
use crate::pods::plan::{
    Access, HostPath, HostPathKind, ImageSource, MountFlag, MountOptions, MountPlan, MountSource, Propagation,
    PullPolicy,
};
use crate::pods::volumes;

/// All mounts that the flags ask for.
pub(super) fn all(args: &Args) -> anyhow::Result<Vec<MountPlan>> {
    let mut mounts = args.volume.iter().map(|text| volume(text)).collect::<anyhow::Result<Vec<_>>>()?;
    for text in &args.mount {
        mounts.push(mount(text, args.pull)?);
    }
    for text in &args.tmpfs {
        mounts.push(tmpfs(text)?);
    }
    let mut places: Vec<_> = mounts.iter().map(|m| m.destination.trim_end_matches('/')).collect();
    places.sort_unstable();
    if let Some([twice, _]) = places.array_windows::<2>().find(|[a, b]| a == b) {
        bail!("two mounts at {twice}");
    }
    Ok(mounts)
}

/// `HOST:/path[:options]` or `NAME:/path[:options]`.
fn volume(text: &str) -> anyhow::Result<MountPlan> {
    let mut parts = text.split(':');
    let (source, destination) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (options, rest) = (parts.next().unwrap_or_default(), parts.next());
    if source.is_empty() || destination.is_empty() || rest.is_some() {
        return Err(anyhow::anyhow!("-v {text}: expected a source and a path in the container"))
            .hint("write -v /host/path:/path, -v NAME:/path, or either with :ro at the end");
    }
    let flag = format!("-v {text}");
    let mut mount = Mount::default();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        mount.option(&flag, option)?;
    }
    // As podman tells a path from a name.
    let source = if source.starts_with(['/', '.']) {
        MountSource::Host { path: host_path(&flag, source)? }
    } else {
        named(source)?
    };
    mount.plan(&flag, source, destination)
}

/// `type=bind,src=/host/path,dst=/path,ro`, as podman and docker have it.
fn mount(text: &str, pull: PullPolicy) -> anyhow::Result<MountPlan> {
    let flag = format!("--mount {text}");
    let (mut kind, mut source, mut destination) = ("volume", None, None);
    let mut mount = Mount::default();
    let mut tmpfs = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let value_of = || value.filter(|v| !v.is_empty()).with_context(|| format!("{flag}: {key} needs a value"));
        match key {
            "type" => kind = value_of()?,
            "src" | "source" => source = Some(value_of()?),
            "dst" | "destination" | "target" => destination = Some(value_of()?),
            "ro" | "readonly" if switch(&flag, key, value)? => mount.set_access(Access::ReadOnly),
            "rw" if !switch(&flag, key, value)? => mount.set_access(Access::ReadOnly),
            "ro" | "readonly" | "rw" => mount.set_access(Access::ReadWrite),
            "subpath" | "volume-subpath" | "image-subpath" => mount.sub_path = Some(value_of()?.to_owned()),
            "bind-propagation" => mount.propagation(&flag, value_of()?)?,
            "bind-nonrecursive" => mount.options.recursive = !switch(&flag, key, value)?,
            "bind-recursive" => match value_of()? {
                "enabled" | "true" => mount.options.recursive = true,
                "disabled" | "false" => mount.options.recursive = false,
                "writable" => mount.set_access(Access::ReadOnly),
                "readonly" => mount.set_access(Access::RecursiveReadOnly),
                other => bail!("{flag}: bind-recursive={other} is none of enabled, disabled, writable, readonly"),
            },
            "tmpfs-size" => tmpfs.push(format!("size={}", size(&flag, value_of()?)?)),
            "tmpfs-mode" => tmpfs.push(format!("mode={}", mode(&flag, value_of()?)?)),
            "relabel" => {}
            _ if value.is_none() => mount.option(&flag, key)?,
            other => bail!(
                "{flag}: {other} is not known: there are type, src, dst, ro, rw, subpath, bind-propagation, \
                 bind-recursive, tmpfs-size and tmpfs-mode"
            ),
        }
    }
    let destination = destination.with_context(|| format!("{flag}: dst= is missing, the path in the container"))?;
    let from = || source.with_context(|| format!("{flag}: src= is missing"));
    let source = match kind {
        "bind" => MountSource::Host { path: host_path(&flag, from()?)? },
        "volume" => named(from()?)?,
        "image" => {
            ensure!(mount.access != Some(Access::ReadWrite), "{flag}: an image cannot be written: leave rw away");
            mount.set_access(Access::ReadOnly);
            MountSource::Image(ImageSource { reference: from()?.to_owned(), pull })
        }
        "tmpfs" if source.is_some() => bail!("{flag}: a tmpfs has no src"),
        "tmpfs" => MountSource::Tmpfs { options: std::mem::take(&mut tmpfs) },
        "devpts" | "glob" | "npipe" | "ramfs" | "cluster" => bail!("{flag}: type {kind} is not supported"),
        other => bail!("{flag}: type {other} is none of bind, volume, tmpfs, image"),
    };
    ensure!(tmpfs.is_empty(), "{flag}: tmpfs-size and tmpfs-mode are for type=tmpfs");
    mount.plan(&flag, source, destination)
}

/// `/path[:option,option]`.
fn tmpfs(text: &str) -> anyhow::Result<MountPlan> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let flag = format!("--tmpfs {text}");
    let mut access = Access::ReadWrite;
    let mut kept = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => access = Access::ReadOnly,
            "rw" => access = Access::ReadWrite,
            other => kept.push(other.to_owned()),
        }
    }
    let mount = Mount { access: Some(access), ..Mount::default() };
    mount.plan(&flag, MountSource::Tmpfs { options: kept }, destination)
}

/// What is said of a mount before it is known what is mounted.
#[derive(Default)]
struct Mount {
    options: MountOptions,
    access: Option<Access>,
    sub_path: Option<String>,
    /// Something was said that only a mount of the host can honour.
    of_host: Option<&'static str>,
}

impl Mount {
    /// The stricter one of two stays.
    fn set_access(&mut self, access: Access) {
        if self.access != Some(Access::RecursiveReadOnly) {
            self.access = Some(access);
        }
    }

    fn option(&mut self, flag: &str, option: &str) -> anyhow::Result<()> {
        match option {
            "ro" => self.set_access(Access::ReadOnly),
            "rw" => self.set_access(Access::ReadWrite),
            "rro" => self.set_access(Access::RecursiveReadOnly),
            "rbind" => self.options.recursive = true,
            "bind" => {
                self.options.recursive = false;
                self.of_host = Some("bind");
            }
            "nosuid" => self.options.flags.push(MountFlag::NoSuid),
            "nodev" => self.options.flags.push(MountFlag::NoDev),
            "noexec" => self.options.flags.push(MountFlag::NoExec),
            "idmap" => self.options.id_mapped = true,
            // Labels of SELinux: nothing to do on a host without it, as in podman; a guest has none.
            "z" | "Z" => {}
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable" | "runbindable" => {
                self.propagation(flag, option)?;
            }
            other => {
                return Err(anyhow::anyhow!("{flag}: option {other} is not supported")).hint(
                    "there are ro, rw, rro, rbind, bind, rprivate, rslave, idmap, nosuid, nodev and noexec; z and Z do nothing",
                );
            }
        }
        Ok(())
    }

    fn propagation(&mut self, flag: &str, propagation: &str) -> anyhow::Result<()> {
        self.options.propagation = match propagation {
            "private" | "rprivate" => Propagation::Private,
            "slave" | "rslave" => {
                self.of_host = Some("rslave");
                Propagation::Slave
            }
            "shared" | "rshared" => {
                let text = format!(
                    "{flag}: {propagation} is not supported: a mount of the pod's kernel cannot appear on the host"
                );
                return Err(anyhow::anyhow!(text)).hint("use rslave for the other direction, or rprivate");
            }
            other => bail!("{flag}: propagation {other} is none of private, rprivate, slave, rslave"),
        };
        Ok(())
    }

    fn plan(self, flag: &str, source: MountSource, destination: &str) -> anyhow::Result<MountPlan> {
        if let (Some(option), false) = (self.of_host, matches!(source, MountSource::Host { .. })) {
            bail!("{flag}: {option} is for directories of the host: nothing else has mounts of the host below it");
        }
        if self.options.propagation == Propagation::Slave && !self.options.recursive {
            bail!("{flag}: mounts of the host are followed as a whole: use rbind with rslave");
        }
        if let Some(sub) = &self.sub_path {
            let good = !sub.starts_with('/') && !sub.split('/').any(|part| part == "..");
            ensure!(good, "{flag}: subpath {sub} must be relative and without \"..\"");
            ensure!(
                !matches!(source, MountSource::Tmpfs { .. }),
                "{flag}: a tmpfs is empty at first and has no subpath"
            );
        }
        let mut options = self.options;
        options.access = self.access.unwrap_or(Access::ReadWrite);
        Ok(MountPlan { sub_path: self.sub_path, options, ..MountPlan::new(source, mount_point(flag, destination)?) })
    }
}

/// Relative paths are so to where husk is run. What is not there is an error, as in podman.
fn host_path(flag: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(text).with_context(|| format!("{flag}: {text}"))?;
    if let Err(error) = std::fs::metadata(&path) {
        let told = Err(error).with_context(|| format!("{flag}: {}", path.display()));
        return told.hint("make it first; for a named volume, write its name without a slash");
    }
    HostPath { path: path.clone(), kind: HostPathKind::Any }.ensure().with_context(|| flag.to_owned())?;
    Ok(path)
}

fn named(name: &str) -> anyhow::Result<MountSource> {
    ensure!(volumes::is_name(name), volumes::VolumeError::Name(name.to_owned()));
    Ok(MountSource::NamedVolume { name: name.to_owned() })
}

fn mount_point(flag: &str, path: &str) -> anyhow::Result<String> {
    let good =
        Path::new(path).is_absolute() && path.bytes().any(|b| b != b'/') && !path.split('/').any(|part| part == "..");
    ensure!(good, "{flag}: {path} must be an absolute path below / without \"..\"");
    Ok(path.to_owned())
}

/// `ro` and `ro=true` are on, `ro=false` is off.
fn switch(flag: &str, key: &str, value: Option<&str>) -> anyhow::Result<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => bail!("{flag}: {key}={other} is neither true nor false"),
    }
}

fn size(flag: &str, text: &str) -> anyhow::Result<u64> {
    flags::bytes(text).map_err(|error| anyhow::anyhow!("{flag}: tmpfs-size: {error}"))
}

fn mode<'a>(flag: &str, text: &'a str) -> anyhow::Result<&'a str> {
    let good = u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o7777);
    ensure!(good, "{flag}: tmpfs-mode {text} is no octal mode such as 1777");
    Ok(text)
}

#[cfg(test)]
mod tests;
