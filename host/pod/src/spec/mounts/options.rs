//! Mount options.

use super::super::SpecError;
use super::MAX_DATA;

/// Mount options, sorted into flags and the rest.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// MS_* bits.
    pub(super) flags: u64,
    pub(super) bind: Option<Bind>,
    /// Mounts that the host makes later appear in the container's. The other way is closed: a container's mounts are
    /// its VM's.
    pub(super) follows_host: bool,
    /// Read-only does not hold for mounts below.
    pub(super) writable_below: bool,
    /// Owners show by mappings.
    pub(super) id_mapped: bool,
    rest: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bind {
    pub(super) recursive: bool,
}

impl Options {
    /// The table is runc's (`libcontainer/specconv`).
    pub(super) fn parse(field: &str, options: &[String]) -> Result<Self, SpecError> {
        let mut parsed = Self::default();
        for option in options {
            let (clear, set) = match option.as_str() {
                "defaults" | "loud" | "silent" => (0, 0),
                "private" | "rprivate" => {
                    parsed.follows_host = false;
                    (0, 0)
                }
                "slave" | "rslave" => {
                    parsed.follows_host = true;
                    (0, 0)
                }
                "ro" | "rro" => {
                    parsed.writable_below = option == "ro";
                    (0, libc::MS_RDONLY)
                }
                "rw" => {
                    parsed.writable_below = false;
                    (libc::MS_RDONLY, 0)
                }
                "nosuid" => (0, libc::MS_NOSUID),
                "suid" => (libc::MS_NOSUID, 0),
                "nodev" => (0, libc::MS_NODEV),
                "dev" => (libc::MS_NODEV, 0),
                "noexec" => (0, libc::MS_NOEXEC),
                "exec" => (libc::MS_NOEXEC, 0),
                "sync" => (0, libc::MS_SYNCHRONOUS),
                "async" => (libc::MS_SYNCHRONOUS, 0),
                "dirsync" => (0, libc::MS_DIRSYNC),
                "noatime" => (0, libc::MS_NOATIME),
                "atime" => (libc::MS_NOATIME, 0),
                "nodiratime" => (0, libc::MS_NODIRATIME),
                "diratime" => (libc::MS_NODIRATIME, 0),
                "relatime" => (0, libc::MS_RELATIME),
                "norelatime" => (libc::MS_RELATIME, 0),
                "strictatime" => (0, libc::MS_STRICTATIME),
                "nostrictatime" => (libc::MS_STRICTATIME, 0),
                "bind" | "rbind" => {
                    parsed.bind = Some(Bind { recursive: option == "rbind" });
                    (0, 0)
                }
                "shared" | "rshared" => {
                    let why = "a container's mounts are in its VM and cannot appear on the host";
                    return Err(SpecError::unsupported(format!("{field}.options"), option, why));
                }
                // A volume is one file system: recursive or not is the same.
                "idmap" | "ridmap" => {
                    parsed.id_mapped = true;
                    (0, 0)
                }
                "unbindable" | "runbindable" | "remount" | "tmpcopyup" | "mand" => {
                    let why = "this mount option is not supported in the guest";
                    return Err(SpecError::unsupported(format!("{field}.options"), option, why));
                }
                other => {
                    parsed.rest.push(other.to_owned());
                    (0, 0)
                }
            };
            parsed.flags = (parsed.flags & !clear) | set;
        }
        Ok(parsed)
    }

    /// Takes `NAME=value` out of the rest; the last one counts.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let mut value = None;
        self.rest.retain(|option| match option.split_once('=') {
            Some((key, text)) if key == name => {
                value = Some(text.to_owned());
                false
            }
            _ => true,
        });
        value
    }

    /// As [`take`](Self::take), of an option that may be there several times.
    pub(super) fn take_all(&mut self, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        self.rest.retain(|option| match option.split_once('=') {
            Some((key, text)) if key == name => {
                values.push(text.to_owned());
                false
            }
            _ => true,
        });
        values
    }

    /// Nothing may be left that nobody understood.
    pub(super) fn finish(self, field: &str) -> Result<(), SpecError> {
        if self.bind.is_some() {
            return Err(SpecError::invalid(format!("{field}.options"), "bind", "this type of mount is no bind mount"));
        }
        if self.follows_host {
            let why = "only directories of the host can follow the host's mounts";
            return Err(SpecError::unsupported(format!("{field}.options"), "rslave", why));
        }
        match self.rest.first() {
            Some(option) => {
                Err(SpecError::unsupported(format!("{field}.options"), option, "this type of mount does not know it"))
            }
            None => Ok(()),
        }
    }

    /// What is left is the file system's own, checked by the guest's kernel.
    pub(super) fn into_data(mut self, field: &str) -> Result<String, SpecError> {
        let data = std::mem::take(&mut self.rest).join(",");
        self.finish(field)?;
        if data.len() > MAX_DATA || data.contains('\0') {
            return Err(SpecError::invalid(format!("{field}.options"), data, "at most 4095 bytes without NUL"));
        }
        Ok(data)
    }
}
