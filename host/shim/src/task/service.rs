//! containerd's Task service, versions 3 and 2: the same messages under two names.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::shim_async::{Task, create_task};
use husk_client::{METRICS_TYPE_URL, api as pod_api, to_timestamp};
use oci_spec::runtime as oci;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde::de::DeserializeOwned;
use ttrpc::asynchronous::{Service, TtrpcContext};

use super::engine::Engine;
use super::error::Error;
use super::lifecycle::Create;
use super::pod_service::PodService;
use super::process::Phase;
use crate::stdio;

type Answer<T> = ttrpc::Result<T>;

/// All services of the shim's socket.
pub(crate) fn services(engine: &Arc<Engine>) -> HashMap<String, Service> {
    let task = || -> Arc<dyn Task + Send + Sync> { Arc::new(TaskService { engine: Arc::clone(engine) }) };
    let mut services = create_task(task());
    // Version 2, which CRI-O and older clients speak, differs in the package's name only.
    let second = create_task(task()).into_iter().map(|(name, service)| (name.replace(".v3.", ".v2."), service));
    services.extend(second);
    services.extend(pod_api::create_pod(Arc::new(PodService::new(Arc::clone(engine)))));
    services
}

#[derive(Debug)]
struct TaskService {
    engine: Arc<Engine>,
}

impl TaskService {
    /// Carries a request out to its end, even when its client goes away in the midst of it: what is half made could
    /// not be found again.
    async fn whole<T, F>(&self, request: impl FnOnce(Arc<Engine>) -> F) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let done = tokio::spawn(request(Arc::clone(&self.engine))).await;
        done.unwrap_or_else(|error| Err(Error::Internal(error.to_string()))).map_err(Into::into)
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, request: api::CreateTaskRequest) -> Answer<api::CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(Error::Unimplemented("creating from a checkpoint").into());
        }
        let create = Create {
            id: request.id,
            bundle: request.bundle.into(),
            rootfs: request.rootfs,
            streams: stdio::Request {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            },
        };
        let pid = self.whole(|engine| async move { engine.create(create).await }).await?;
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: api::StartRequest) -> Answer<api::StartResponse> {
        let pid = self.whole(|engine| async move { engine.start(&request.id, &request.exec_id).await }).await?;
        Ok(api::StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: api::DeleteRequest) -> Answer<api::DeleteResponse> {
        let deleted = self.whole(|engine| async move { engine.delete(&request.id, &request.exec_id).await }).await?;
        Ok(api::DeleteResponse {
            pid: deleted.pid,
            exit_status: deleted.exit.code,
            exited_at: Some(to_timestamp(deleted.exit.at)).into(),
            ..Default::default()
        })
    }

    async fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> Answer<api::Empty> {
        if request.exec_id.is_empty() {
            return Err(Error::Invalid("exec_id is empty; choose an id for the further process".into()).into());
        }
        let process: oci::Process = from_json("spec", request.spec.as_ref())?;
        let streams = stdio::Request {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        self.engine.exec(&request.id, &request.exec_id, process, streams)?;
        Ok(api::Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> Answer<api::Empty> {
        let api::KillRequest { id, exec_id, signal, all, .. } = request;
        self.whole(move |engine| async move { engine.kill(&id, &exec_id, signal, all).await }).await?;
        Ok(api::Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> Answer<api::WaitResponse> {
        let exit = self.engine.wait(&request.id, &request.exec_id).await?;
        let exited_at = Some(to_timestamp(exit.at)).into();
        Ok(api::WaitResponse { exit_status: exit.code, exited_at, ..Default::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: api::StateRequest) -> Answer<api::StateResponse> {
        let snapshot = self.engine.snapshot(&request.id, &request.exec_id)?;
        let exit = snapshot.phase.exit();
        Ok(api::StateResponse {
            id: request.id,
            exec_id: request.exec_id,
            bundle: snapshot.bundle,
            pid: snapshot.phase.pid(),
            status: status(snapshot.phase).into(),
            stdin: snapshot.streams.stdin,
            stdout: snapshot.streams.stdout,
            stderr: snapshot.streams.stderr,
            terminal: snapshot.streams.terminal,
            exit_status: exit.map(|exit| exit.code).unwrap_or_default(),
            exited_at: exit.map(|exit| to_timestamp(exit.at)).into(),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> Answer<api::PidsResponse> {
        let pids = self.engine.pids(&request.id).await?;
        let processes = pids.into_iter().map(|pid| api::ProcessInfo { pid, ..Default::default() }).collect();
        Ok(api::PidsResponse { processes, ..Default::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: api::StatsRequest) -> Answer<api::StatsResponse> {
        let metrics = self.engine.stats(&request.id).await?;
        let value = metrics.write_to_bytes().map_err(|error| Error::Internal(error.to_string()))?;
        let any = Any { type_url: METRICS_TYPE_URL.into(), value, ..Any::default() };
        Ok(api::StatsResponse { stats: Some(any).into(), ..Default::default() })
    }

    async fn update(&self, _: &TtrpcContext, request: api::UpdateTaskRequest) -> Answer<api::Empty> {
        let resources: oci::LinuxResources = from_json("resources", request.resources.as_ref())?;
        self.whole(move |engine| async move { engine.update(&request.id, &resources).await }).await?;
        Ok(api::Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: api::ResizePtyRequest) -> Answer<api::Empty> {
        self.engine.resize(&request.id, &request.exec_id, request.height, request.width).await?;
        Ok(api::Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> Answer<api::Empty> {
        if request.stdin {
            self.engine.close_stdin(&request.id, &request.exec_id)?;
        }
        Ok(api::Empty::new())
    }

    async fn connect(&self, _: &TtrpcContext, request: api::ConnectRequest) -> Answer<api::ConnectResponse> {
        // containerd asks under the pod's id before any task exists.
        let task_pid = self.engine.snapshot(&request.id, "").map(|task| task.phase.pid()).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION").into();
        Ok(api::ConnectResponse { shim_pid: std::process::id(), task_pid, version, ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: api::ShutdownRequest) -> Answer<api::Empty> {
        if !self.engine.end() {
            tracing::debug!("shutdown of {} is ignored: tasks remain", request.id);
        }
        Ok(api::Empty::new())
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> Answer<api::Empty> {
        self.whole(move |engine| async move { engine.pause(&request.id).await }).await?;
        Ok(api::Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> Answer<api::Empty> {
        self.whole(move |engine| async move { engine.resume(&request.id).await }).await?;
        Ok(api::Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: api::CheckpointTaskRequest) -> Answer<api::Empty> {
        Err(Error::Unimplemented("checkpoint").into())
    }
}

fn status(phase: Phase) -> api::Status {
    match phase {
        Phase::Creating | Phase::Created { .. } | Phase::Starting { .. } => api::Status::CREATED,
        Phase::Running { .. } => api::Status::RUNNING,
        Phase::Paused { .. } => api::Status::PAUSED,
        Phase::Stopped { .. } | Phase::Deleted { .. } => api::Status::STOPPED,
        Phase::Deleting { exit, .. } if exit.is_none() => api::Status::CREATED,
        Phase::Deleting { .. } => api::Status::STOPPED,
    }
}

/// OCI objects travel as JSON in an `Any` whose type containerd's `typeurl` has chosen; the field tells enough.
fn from_json<T: DeserializeOwned>(field: &str, any: Option<&Any>) -> Result<T, Error> {
    let any = any.ok_or_else(|| Error::Invalid(format!("{field} is missing")))?;
    serde_json::from_slice(&any.value).map_err(|error| Error::Invalid(format!("{field} ({}): {error}", any.type_url)))
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use husk_client::Dirs;

    use super::super::engine::Settings;
    use super::*;
    use crate::events::Publisher;
    use crate::stdio::Lifetime;

    #[test]
    fn both_versions_of_the_task_service_have_every_call() {
        let engine = Engine::new(Settings {
            namespace: "default".into(),
            pod: "web".into(),
            dirs: Dirs { run: "/nonexistent".into(), root: "/nonexistent".into() },
            lifetime: Lifetime::Once,
            publisher: Publisher::start("", "default"),
            started: Instant::now(),
            started_at: SystemTime::now(),
        });
        let services = services(&engine);
        for name in ["containerd.task.v3.Task", "containerd.task.v2.Task"] {
            assert_eq!(services[name].methods.len(), 17, "{name}");
        }
        let mut calls: Vec<_> = services["husk.shim.v1.Pod"].methods.keys().map(String::as_str).collect();
        calls.sort_unstable();
        assert_eq!(calls, ["Attach", "Forward", "Inspect", "Processes", "ReopenLog", "Resize", "Stats", "Usage"]);
    }

    #[test]
    fn a_malformed_process_names_its_field() {
        let any = Any { type_url: "x/Process".into(), value: b"{".to_vec(), ..Any::default() };
        let error = from_json::<oci::Process>("spec", Some(&any)).unwrap_err();
        assert!(error.to_string().starts_with("spec (x/Process): "), "{error}");
        assert!(from_json::<oci::Process>("spec", None).is_err());
    }
}
