//! What the kernel calls a block device.

/// The name of a block device, such as `vda`; empty when there is none of that number (sysfs(5), `/sys/dev/block`).
#[must_use]
pub fn device_name(major: u32, minor: u32) -> String {
    let target = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap_or_default();
    target.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_has_no_name() {
        assert_eq!(device_name(4095, 1_048_575), "");
    }
}
