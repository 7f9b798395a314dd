//! A container's end.

use std::sync::Arc;
use std::time::SystemTime;

use husk_client::{Exit, Shim};

use super::super::Engine;
use crate::api::ContainerEventType;
use crate::state::{Container, ContainerPhase, nanoseconds};

/// The exit code of what nobody saw end; containerd's.
const UNKNOWN_CODE: u32 = 255;

/// Waits for a running container's end and notes it. What it takes is known from now on.
pub(in crate::runtime) fn watch_container(engine: &Arc<Engine>, container: &Arc<Container>, shim: Shim) {
    container.sandbox.samples.want();
    let (engine, container) = (Arc::clone(engine), Arc::clone(container));
    tokio::spawn(async move {
        let ended = match shim.wait(&container.id, None).await {
            Ok(exit) => Ended { exit, oom: was_out_of_memory(&shim, &container.id).await, seen: true },
            Err(error) => {
                tracing::warn!(container = %container.id, "its end was not seen: {error}");
                Ended::unseen()
            }
        };
        engine.exited(&container, ended);
    });
}

/// How a container ended.
#[derive(Clone, Copy, Debug)]
pub(in crate::runtime) struct Ended {
    pub(in crate::runtime) exit: Exit,
    /// A process of it was killed for want of memory.
    pub(in crate::runtime) oom: bool,
    /// The shim saw it.
    pub(in crate::runtime) seen: bool,
}

impl Ended {
    /// The end of what had ended when somebody looked.
    pub(in crate::runtime) fn unseen() -> Self {
        Self { exit: Exit { code: UNKNOWN_CODE, at: SystemTime::now() }, oom: false, seen: false }
    }

    fn reason(self) -> &'static str {
        match (self.seen, self.exit.code, self.oom) {
            (false, ..) => "Unknown",
            (true, 0, _) => "Completed",
            (true, _, true) => "OOMKilled",
            (true, _, false) => "Error",
        }
    }
}

async fn was_out_of_memory(shim: &Shim, id: &str) -> bool {
    let containers = shim.inspect().await.map(|inspect| inspect.containers).unwrap_or_default();
    containers.iter().any(|container| container.id == id && container.oom_kills > 0)
}

impl Engine {
    /// Notes a container's end, once.
    pub(in crate::runtime) fn exited(&self, container: &Arc<Container>, ended: Ended) {
        let mut news = false;
        let noted = container.record.update(|record| {
            let started_at = match record.phase {
                ContainerPhase::Running { started_at } => started_at,
                ContainerPhase::Making | ContainerPhase::Created => 0,
                ContainerPhase::Exited { .. } => return,
            };
            news = true;
            record.phase = ContainerPhase::Exited {
                started_at,
                finished_at: nanoseconds(ended.exit.at),
                exit_code: i32::try_from(ended.exit.code).unwrap_or(i32::MAX),
                reason: ended.reason().to_owned(),
                message: String::new(),
            };
        });
        if let Err(error) = noted {
            tracing::error!(container = %container.id, "its end cannot be written down: {error}");
        }
        if news {
            let (pod, code, reason) = (&container.sandbox.id, ended.exit.code, ended.reason());
            tracing::info!(%pod, container = %container.id, code, reason, "container exited");
            self.tell(&container.sandbox, Some(container), ContainerEventType::ContainerStoppedEvent);
        }
    }

    /// Waits until the end of a container whose pod has ended is noted. One that never ran has nobody who notes it.
    pub(in crate::runtime) async fn note_end_with_pod(&self, container: &Arc<Container>) {
        match container.phase() {
            ContainerPhase::Making | ContainerPhase::Created => {
                let exit = Exit { code: UNKNOWN_CODE, at: SystemTime::now() };
                self.exited(container, Ended { exit, oom: false, seen: true });
            }
            ContainerPhase::Running { .. } | ContainerPhase::Exited { .. } => container.exited().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_kubernetes_reason() {
        let ended = |code, oom| Ended { exit: Exit { code, at: SystemTime::now() }, oom, seen: true }.reason();
        assert_eq!(ended(0, false), "Completed");
        assert_eq!(ended(0, true), "Completed");
        assert_eq!(ended(137, true), "OOMKilled");
        assert_eq!(ended(137, false), "Error");
        assert_eq!(Ended::unseen().reason(), "Unknown");
    }
}
