//! The row of virtio-mmio slots. A monitor that fills them while the guest boots leaves it to us to bind the driver.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

const DEVICES: &str = "/sys/bus/platform/devices";
const BIND: &str = "/sys/bus/platform/drivers/virtio-mmio/bind";
const PAUSE: Duration = Duration::from_millis(50);
const TRIES: usize = 400;

/// Binds slots until `complete` says that all is there.
pub(crate) fn bind_until(complete: impl Fn() -> Result<bool>) -> Result<()> {
    for _ in 0..TRIES {
        if complete()? {
            return Ok(());
        }
        bind()?;
        if complete()? {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    bail!("not all devices came; there are {:?}", drivers()?)
}

fn bind() -> Result<()> {
    for entry in fs::read_dir(DEVICES)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("virtio-mmio.") && !entry.path().join("driver").exists() {
            // An empty slot answers that there is no device.
            let _ = fs::write(BIND, &name);
        }
    }
    Ok(())
}

fn drivers() -> Result<Vec<String>> {
    let devices = fs::read_dir(Path::new("/sys/bus/virtio/devices"))?;
    devices.map(|entry| Ok(fs::read_to_string(entry?.path().join("device"))?.trim().to_owned())).collect()
}
