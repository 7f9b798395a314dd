//! Debian's docker-registry on loopback, empty at first.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Runs until it is dropped.
#[derive(Debug)]
pub(super) struct Registry {
    address: SocketAddr,
    process: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// Keeps its images in `dir`.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let settings = dir.join("registry.yml");
        let storage = dir.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \
             \"{address}\"}}\n",
            storage.display()
        );
        std::fs::write(&settings, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("starting docker-registry")?;
        let mut registry = Self { address, process };
        for _ in 0..600 {
            if TcpStream::connect(address).is_ok() {
                return Ok(registry);
            }
            ensure!(registry.process.try_wait()?.is_none(), "docker-registry ends at once: see {}", settings.display());
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("docker-registry did not listen on {address} within a minute")
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}
