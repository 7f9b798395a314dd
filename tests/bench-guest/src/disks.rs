//! Disks by their serial numbers.

use std::fs;

use anyhow::Result;

/// The path of the disk's device file, if it is there.
pub(crate) fn find(serial: &str) -> Result<Option<String>> {
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim() == serial {
            return Ok(Some(format!("/dev/{}", entry.file_name().to_string_lossy())));
        }
    }
    Ok(None)
}
