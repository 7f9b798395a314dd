//! Acting on containers and their processes.

use std::sync::Arc;

use husk_agent_api::{is_valid_id, v1};
use oci_spec::runtime::{LinuxResources, Process};
use tracing::Instrument;

use super::Pod;
use super::create::check_terminal;
use super::status::{ContainerState, ExitStatus};
use super::table::Holdings;
use crate::agent::{AgentError, ProcessStreams, StdioWanted, Tokens, attach};
use crate::error::ProcessError;
use crate::spec::{self, Limits, SpecError};
use crate::text;

use ContainerState::{Created, Running, Stopped};

impl Pod {
    /// Lets a created container run.
    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), ProcessError> {
        self.table.expect(id, &[Created], "start")?;
        self.agent.start_container(id.into()).await.map_err(|source| agent(id, source))?;
        self.table.started(id);
        tracing::info!(pod = self.name, container = id, "container started");
        Ok(())
    }

    /// Runs a further process in a running container; answers with its pid in the guest. Goes on to its end also when
    /// the future is dropped.
    pub async fn exec(
        self: &Arc<Self>,
        id: &str,
        exec: &str,
        process: &Process,
        stdio: StdioWanted,
    ) -> Result<(u32, ProcessStreams), ProcessError> {
        if !is_valid_id(exec) {
            return Err(ProcessError::BadId { exec: text::printable(exec, 80) });
        }
        let process = spec::process(process)
            .and_then(|process| check_terminal(&process, stdio).map(|()| process))
            .map_err(|source| ProcessError::Spec { container: id.into(), source })?;
        self.table.begin_exec(id, exec)?;
        let (pod, owned_id, owned_exec) = (Arc::clone(self), id.to_owned(), exec.to_owned());
        let span = tracing::info_span!("exec", pod = self.name, container = id, exec);
        let task = async move { pod.exec_or_undo(&owned_id, &owned_exec, process, stdio).await };
        match tokio::spawn(task.instrument(span)).await {
            Ok(result) => result,
            Err(error) => {
                self.table.forget_exec(id, exec);
                Err(ProcessError::Abandoned { container: id.into(), why: error.to_string() })
            }
        }
    }

    async fn exec_or_undo(
        &self,
        id: &str,
        exec: &str,
        process: v1::Process,
        stdio: StdioWanted,
    ) -> Result<(u32, ProcessStreams), ProcessError> {
        let result = self.run_exec(id, exec, process, stdio).await;
        match &result {
            Ok((pid, _)) => self.table.exec_started(id, exec, *pid),
            Err(_) => self.table.forget_exec(id, exec),
        }
        result
    }

    async fn run_exec(
        &self,
        id: &str,
        exec: &str,
        process: v1::Process,
        stdio: StdioWanted,
    ) -> Result<(u32, ProcessStreams), ProcessError> {
        let stream = |source| ProcessError::Stream { container: id.into(), source };
        let tokens = Tokens::random(stdio).map_err(stream)?;
        let request = v1::ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            process: Some(v1::Process { stdio: Some(tokens.message()), ..process }),
        };
        let pid = self.agent.exec_process(request).await.map_err(|source| agent(id, source))?;
        match attach(self.agent.socket(), tokens, self.deadlines.stream).await {
            Ok(streams) => Ok((pid, streams)),
            Err(source) => {
                // Nobody would ever read what it writes.
                let _ = self.signal(id, Some(exec), 9, false).await;
                Err(stream(source))
            }
        }
    }

    /// Sends a signal to the container's init, to an exec, or with `all` to every process of the container.
    pub async fn signal(&self, id: &str, exec: Option<&str>, signal: u32, all: bool) -> Result<(), ProcessError> {
        self.table.exit_of(id, exec)?;
        let request =
            v1::SignalProcessRequest { container_id: id.into(), exec_id: exec.unwrap_or_default().into(), signal, all };
        self.agent.signal_process(request).await.map_err(|source| agent(id, source))
    }

    /// Tells a terminal its size in characters.
    pub async fn resize_terminal(
        &self,
        id: &str,
        exec: Option<&str>,
        rows: u32,
        columns: u32,
    ) -> Result<(), ProcessError> {
        self.table.exit_of(id, exec)?;
        let side = |value: u32| value.min(u32::from(u16::MAX));
        let request = v1::ResizeTerminalRequest {
            container_id: id.into(),
            exec_id: exec.unwrap_or_default().into(),
            size: Some(v1::WindowSize { rows: side(rows), columns: side(columns) }),
        };
        self.agent.resize_terminal(request).await.map_err(|source| agent(id, source))
    }

    /// Gives the process end of file on its standard input.
    pub async fn close_stdin(&self, id: &str, exec: Option<&str>) -> Result<(), ProcessError> {
        self.table.exit_of(id, exec)?;
        let request = v1::CloseStdinRequest { container_id: id.into(), exec_id: exec.unwrap_or_default().into() };
        self.agent.close_stdin(request).await.map_err(|source| agent(id, source))
    }

    /// Changes a container's limits. Fields that are absent stay as they are. The VM of a single container follows them.
    pub async fn update(self: &Arc<Self>, id: &str, resources: &LinuxResources) -> Result<(), ProcessError> {
        self.table.expect(id, &[Created, Running], "update")?;
        let refused = |source| ProcessError::Spec { container: id.into(), source };
        let limits = spec::resources(resources, &[]).map_err(refused)?;
        let limits = self.locate(limits).await.map_err(refused)?;
        let resize = |source| ProcessError::Resize { container: id.into(), source: Box::new(source) };
        let grows = self.traits.single_container && self.is_outgrown_by(&limits);
        if grows {
            self.resize_around(&limits).await.map_err(resize)?;
        }
        let request = v1::UpdateContainerRequest { container_id: id.into(), resources: Some(limits.clone()) };
        self.agent.update_container(request).await.map_err(|source| agent(id, source))?;
        if self.traits.single_container && !grows {
            self.resize_around(&limits).await.map_err(resize)?;
        }
        Ok(())
    }

    /// Limits as the agent sets them: devices of the host become the slots in which the pod has them.
    pub(super) async fn locate(&self, limits: Limits) -> Result<v1::Resources, SpecError> {
        let Limits { mut agent, throttles } = limits;
        for throttle in throttles {
            let slot = match self.devices.slot_of_block(throttle.major, throttle.minor).await {
                Some(slot) => slot,
                // What the containers write to their root file systems ends up there.
                None if self.scratch.is_on(throttle.major, throttle.minor) => self.scratch.slot,
                None => return Err(throttle.unknown_device()),
            };
            agent.io_max.push(v1::IoMax { slot, ..throttle.rates });
        }
        Ok(agent)
    }

    /// Usage of a container, also after its exit and until it is removed; of the pod where `id` is `None`. The numbers
    /// are the guest's word.
    pub async fn stats(&self, id: Option<&str>) -> Result<v1::ContainerStatsResponse, ProcessError> {
        if let Some(id) = id {
            self.table.expect(id, &[Created, Running, Stopped], "statistics")?;
        }
        let container = id.unwrap_or_default();
        self.agent.stats(container.into()).await.map_err(|source| agent(container, source))
    }

    /// Process ids of a container as the guest's initial pid namespace numbers them.
    pub async fn pids(&self, id: &str) -> Result<Vec<u32>, ProcessError> {
        self.table.expect(id, &[Created, Running, Stopped], "listing its processes")?;
        let listed = self.agent.list_processes(id.into(), false).await;
        listed.map(|answer| answer.pids).map_err(|source| agent(id, source))
    }

    /// The same with what the guest says of each. Texts are made fit to be shown.
    pub async fn processes(&self, id: &str) -> Result<Vec<v1::ProcessInfo>, ProcessError> {
        self.table.expect(id, &[Created, Running, Stopped], "listing its processes")?;
        let listed = self.agent.list_processes(id.into(), true).await.map_err(|source| agent(id, source))?;
        let shown = |info: v1::ProcessInfo| v1::ProcessInfo {
            state: text::printable(&info.state, 8),
            terminal: text::printable(&info.terminal, 32),
            name: text::printable(&info.name, 64),
            command: text::printable(&info.command, 4096),
            ..info
        };
        Ok(listed.processes.into_iter().map(shown).collect())
    }

    /// Stops every process of a running container where it stands.
    pub async fn pause(&self, id: &str) -> Result<(), ProcessError> {
        self.table.expect(id, &[Running], "pause")?;
        self.agent.pause_container(id.into()).await.map_err(|source| agent(id, source))
    }

    /// Lets the processes of a paused container go on.
    pub async fn resume(&self, id: &str) -> Result<(), ProcessError> {
        self.table.expect(id, &[Running], "resume")?;
        self.agent.resume_container(id.into()).await.map_err(|source| agent(id, source))
    }

    /// Waits for the end of a container's init or of an exec; at once when it has ended. The end of the VM ends all.
    pub async fn wait(&self, id: &str, exec: Option<&str>) -> Result<ExitStatus, ProcessError> {
        let mut exit = self.table.exit_of(id, exec)?;
        let status = exit.wait_for(Option::is_some).await.map(|status| *status);
        match status {
            Ok(Some(status)) => Ok(status),
            // It was removed meanwhile.
            _ => Err(match exec {
                Some(exec) => ProcessError::NoExec { container: id.into(), exec: exec.into() },
                None => ProcessError::NoContainer { container: id.into() },
            }),
        }
    }

    /// Forgets an exec that has ended; its id is free again.
    pub fn remove_exec(&self, id: &str, exec: &str) -> Result<ExitStatus, ProcessError> {
        let exit = *self.table.exit_of(id, Some(exec))?.borrow();
        match exit {
            Some(status) => {
                self.table.forget_exec(id, exec);
                Ok(status)
            }
            None => Err(ProcessError::State { container: id.into(), state: "running", action: "removing an exec" }),
        }
    }

    /// Kills what is left of a container and removes it. Idempotent; without the VM it succeeds as well. Goes on to its
    /// end also when the future is dropped.
    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<(), ProcessError> {
        let Some(holdings) = self.table.begin_removal(id)? else { return Ok(()) };
        let (pod, owned_id) = (Arc::clone(self), id.to_owned());
        let span = tracing::info_span!("remove", pod = self.name, container = id);
        let task = async move { pod.remove(&owned_id, holdings).await };
        match tokio::spawn(task.instrument(span)).await {
            Ok(result) => result,
            Err(error) => Err(ProcessError::Abandoned { container: id.into(), why: error.to_string() }),
        }
    }

    async fn remove(&self, id: &str, holdings: Holdings) -> Result<(), ProcessError> {
        match self.agent.remove_container(id.into()).await {
            Ok(()) | Err(AgentError::Ended(_)) => {}
            Err(source) => {
                self.table.cancel_removal(id, holdings);
                return Err(agent(id, source));
            }
        }
        self.let_go(holdings).await;
        self.table.forget(id);
        tracing::info!("container removed");
        Ok(())
    }
}

fn agent(container: &str, source: AgentError) -> ProcessError {
    ProcessError::Agent { container: container.into(), source }
}
