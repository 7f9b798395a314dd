//! Pausing a container and letting it go on.

use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};
use containerd_shim_protos::topics;

use super::engine::{Engine, Kind};
use super::error::Error;
use super::process::Phase;

impl Engine {
    /// Stops every process of a running container where it stands.
    pub(super) async fn pause(&self, id: &str) -> Result<(), Error> {
        let task = self.task(id)?;
        check(task.kind, id, "pause")?;
        if !matches!(task.init.phase(), Phase::Running { .. }) {
            return Err(task.init.wrong_phase("paused").into());
        }
        self.running_pod()?.pause(id).await?;
        // A kill may have ended it meanwhile.
        task.init.advance("paused", |phase| match phase {
            Phase::Running { pid } => Some(Phase::Paused { pid }),
            _ => None,
        })?;
        let event = TaskPaused { container_id: id.to_owned(), ..TaskPaused::default() };
        self.publish(topics::TASK_PAUSED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// Lets a paused container go on.
    pub(super) async fn resume(&self, id: &str) -> Result<(), Error> {
        let task = self.task(id)?;
        check(task.kind, id, "resume")?;
        if !matches!(task.init.phase(), Phase::Paused { .. }) {
            return Err(task.init.wrong_phase("resumed").into());
        }
        self.running_pod()?.resume(id).await?;
        task.init.advance("resumed", |phase| match phase {
            Phase::Paused { pid } => Some(Phase::Running { pid }),
            _ => None,
        })?;
        let event = TaskResumed { container_id: id.to_owned(), ..TaskResumed::default() };
        self.publish(topics::TASK_RESUMED_EVENT_TOPIC, &event);
        Ok(())
    }
}

fn check(kind: Kind, id: &str, action: &str) -> Result<(), Error> {
    match kind {
        Kind::Sandbox => Err(Error::Invalid(format!("{id} is the pod itself; {action} its containers"))),
        Kind::Container | Kind::Single => Ok(()),
    }
}
