//! `--device` in podman's words.

use anyhow::ensure;

use super::Args;
use crate::pods::plan::DevicePlan;

/// All devices that the flags ask for.
pub(super) fn all(args: &Args) -> anyhow::Result<Vec<DevicePlan>> {
    args.device.iter().map(|text| device(text)).collect()
}

/// `/dev/host[:/dev/container][:PERMISSIONS]`, permissions of the letters r, w and m.
fn device(text: &str) -> anyhow::Result<DevicePlan> {
    let mut parts: Vec<&str> = text.split(':').collect();
    let is_access = |part: &str| !part.is_empty() && part.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'));
    let access = if parts.len() > 1 { parts.pop_if(|part| is_access(part)) } else { None }.unwrap_or("rwm");
    let (host, container) = match parts.as_slice() {
        [host] => (*host, *host),
        [host, container] => (*host, *container),
        _ => ("", ""),
    };
    ensure!(host.starts_with('/'), "--device {text}: expected /dev/HOST[:/dev/CONTAINER][:rwm]");
    ensure!(DevicePlan::is_place(container), "--device {text}: {container} is no path below /dev");
    ensure!(access.contains('r'), "--device {text}: a disk that cannot be read is of no use; write r or rw");
    Ok(DevicePlan { host: host.into(), container: container.to_owned(), writable: access.contains('w') })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_a_place_and_permissions() {
        let parsed = |text| device(text).map(|plan| (plan.host.display().to_string(), plan.container, plan.writable));
        let expected = |host: &str, container: &str, writable| (host.to_owned(), container.to_owned(), writable);
        assert_eq!(parsed("/dev/vdb").unwrap(), expected("/dev/vdb", "/dev/vdb", true));
        assert_eq!(parsed("/dev/vdb:/dev/x/data").unwrap(), expected("/dev/vdb", "/dev/x/data", true));
        assert_eq!(parsed("/dev/vdb:/dev/data:r").unwrap(), expected("/dev/vdb", "/dev/data", false));
        assert_eq!(parsed("/dev/vdb:rw").unwrap(), expected("/dev/vdb", "/dev/vdb", true));
        for bad in
            ["", "vdb", "/dev/vdb:/data", "/dev/vdb:/dev/../x", "/dev/vdb:w", "/dev/a:/dev/b:rw:c", "/dev/a:/dev/b:x"]
        {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
