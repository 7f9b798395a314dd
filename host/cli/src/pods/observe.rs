//! What is true of a pod now, when nobody who knew has written it down.
//!
//! A supervisor may have been killed and a shim may have died. Records that a living supervisor keeps are believed;
//! others are compared with the shim, and put right.

use jiff::Timestamp;

use super::detach;
use super::directory::{DirectoryError, PodDir};
use super::record::{Phase, PodRecord, Status, Wanted};
use super::teardown;
use crate::engine::Engine;

/// Every pod as it is now.
pub(crate) async fn all(engine: &Engine) -> anyhow::Result<Vec<PodRecord>> {
    let mut pods = Vec::new();
    for record in engine.pods.list()? {
        if let Some(record) = pod(engine, record).await? {
            pods.push(record);
        }
    }
    Ok(pods)
}

/// One pod as it is now; `None` when it is being removed.
pub(crate) async fn pod(engine: &Engine, record: PodRecord) -> anyhow::Result<Option<PodRecord>> {
    let orphans = orphans(&record);
    let supervised = record.containers.iter().any(|c| c.supervisor.is_some_and(|s| s.is_alive()));
    if record.phase.is_over() || supervised && orphans.is_empty() {
        return Ok(Some(record));
    }
    let dir = engine.pods.open(&record.id);
    let observed = match engine.connect(&record.id).await? {
        None if supervised => return Ok(Some(record)),
        None => dead(engine, &dir, &record).await,
        Some(_) if orphans.is_empty() => return Ok(Some(record)),
        Some(_) => adopt(&dir, &record, &orphans).await,
    };
    match observed {
        Ok(record) => Ok(Some(record)),
        Err(error) if matches!(error.downcast_ref(), Some(DirectoryError::Gone)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Containers that run, or should one day, and whose supervisor has died.
fn orphans(record: &PodRecord) -> Vec<String> {
    let orphaned = record.containers.iter().filter(|c| {
        let unfinished = c.state.is_active() || c.wanted == Wanted::Run && c.state.status == Status::Created;
        unfinished && c.supervisor.is_some_and(|s| !s.is_alive())
    });
    orphaned.map(|c| c.id.clone()).collect()
}

/// Its VM is gone and nobody said so: the shim died, or whoever was making the pod did.
async fn dead(engine: &Engine, dir: &PodDir, record: &PodRecord) -> anyhow::Result<PodRecord> {
    if record.phase == Phase::Pending && record.containers.iter().all(|c| c.supervisor.is_none()) {
        let age = Timestamp::now().as_second().saturating_sub(record.created.as_second());
        if age < MAKING_SECONDS {
            // Somebody is between making it and looking after it.
            return Ok(record.clone());
        }
    }
    teardown::purge(engine, &record.id, &dir.bundle(&record.id)).await;
    let message = match record.phase {
        Phase::Pending => "whoever was starting it was interrupted",
        _ => "its VM ended unexpectedly",
    };
    Ok(dir.update(|record| {
        if !record.phase.is_over() {
            record.end(Phase::Failed, Some(message.to_owned()), Timestamp::now());
        }
    })?)
}

/// From the making of the record to the first word of a supervisor it takes much less.
const MAKING_SECONDS: i64 = 30;

/// The pod lives, its supervisor does not: a new one takes over where the old one stopped.
async fn adopt(dir: &PodDir, record: &PodRecord, orphans: &[String]) -> anyhow::Result<PodRecord> {
    let mut reports = detach::spawn(dir, &record.id, orphans)?;
    reports.claimed().await;
    Ok(dir.record()?)
}
