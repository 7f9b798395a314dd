//! A command in the container, whose output nobody wants.

use std::time::Duration;

use husk_client::{Stdio, TaskError};
use tokio::time::timeout;

use super::super::ids;
use super::super::record::ContainerRecord;
use super::{Failure, Target};
use crate::spec::{self, ExecInputs};
use husk_spec::signals;

/// How long a killed command may take to be gone.
const KILL_END: Duration = Duration::from_secs(5);

pub(super) async fn run(
    target: &Target,
    container: &ContainerRecord,
    command: &[String],
    limit: Duration,
) -> Result<(), Failure> {
    let (shim, id) = (&target.shim, &container.id);
    let spec = target.dir.spec(id)?;
    let first = spec.process().clone().unwrap_or_default();
    let inputs = ExecInputs { args: command.to_vec(), ..ExecInputs::default() };
    let process =
        spec::exec_process(&container.name, &first, inputs).map_err(|error| Failure::Command(error.to_string()))?;
    let exec = ids::exec();
    shim.exec(id, &exec, &process, Stdio::default()).await?;
    let ended = timeout(limit, async {
        shim.start_exec(id, &exec).await.map_err(|error| Failure::Command(error.to_string()))?;
        Ok::<_, Failure>(shim.wait(id, Some(&exec)).await?)
    })
    .await;
    let result = match ended {
        Ok(Ok(exit)) if exit.code == 0 => Ok(()),
        Ok(Ok(exit)) => Err(Failure::ExitCode(exit.code)),
        Ok(Err(failure)) => Err(failure),
        Err(_) => {
            if let Ok(()) | Err(TaskError::FailedPrecondition(_)) =
                shim.kill(id, Some(&exec), signals::KILL, false).await
            {
                let _ = timeout(KILL_END, shim.wait(id, Some(&exec))).await;
            }
            Err(Failure::Timeout(limit))
        }
    };
    // Goes with its container when this fails.
    let _ = shim.delete(id, Some(&exec)).await;
    result
}
