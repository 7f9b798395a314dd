//! What a container holds in the guest, and gives back when it is removed or could not be made.

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::fs::remove::remove_tree;
use crate::paths;
use std::time::Duration;

/// How long processes may take to end after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The resources of one container. Each is noted when it is taken and forgotten when it is given back, so that giving
/// back may be repeated after a failure.
#[derive(Debug)]
pub struct Held {
    id: String,
    cgroup: Cgroup,
    images: Vec<u32>,
    volumes: Vec<String>,
    layer: bool,
}

impl Held {
    /// Nothing yet.
    #[must_use]
    pub fn new(id: &str, cgroup: Cgroup) -> Self {
        Self { id: id.to_owned(), cgroup, images: Vec::new(), volumes: Vec::new(), layer: false }
    }

    /// Counts a user of the image in a slot.
    pub async fn image(&mut self, agent: &Agent, slot: u32) -> Result<std::path::PathBuf> {
        let path = agent.slots.acquire_image(slot).await?;
        self.images.push(slot);
        Ok(path)
    }

    /// Counts a user of a volume.
    pub fn volume(&mut self, agent: &Agent, name: &str) -> Result<()> {
        agent.volumes.acquire(name)?;
        self.volumes.push(name.to_owned());
        Ok(())
    }

    /// Notes that there is a writable layer on the scratch disk.
    pub fn layer(&mut self) {
        self.layer = true;
    }

    /// Ends every process and gives everything back.
    pub async fn give_back(&mut self, agent: &Agent) -> Result<()> {
        agent.streams.remove_container(&self.id);
        self.cgroup.kill_and_wait(KILL_LIMIT).await?;
        while let Some(slot) = self.images.last().copied() {
            agent.slots.release_image(slot).await?;
            self.images.pop();
        }
        for name in self.volumes.drain(..) {
            agent.volumes.release(&name);
        }
        if self.layer {
            let path = paths::scratch_container(&self.id);
            tokio::task::spawn_blocking(move || remove_tree(&path))
                .await
                .map_err(|error| Error::Internal(format!("worker thread: {error}")))??;
            self.layer = false;
        }
        self.cgroup.remove()
    }
}
