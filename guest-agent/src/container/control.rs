//! Signals, terminals and removal of a container that exists.

use std::os::fd::AsFd;
use std::sync::Arc;

use husk_agent_api::v1::{SignalProcessRequest, WindowSize};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::oneshot;

use super::Container;
use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::sys::send_signal;

const SIGKILL: u32 = 9;
const MAX_SIGNAL: u32 = 64;

/// Sends a signal to one process or to all of a container.
///
/// An init in a pid namespace of its own gets, by the kernel's rule, only signals that it has a handler for, and
/// SIGKILL and SIGSTOP.
pub fn signal(agent: &Agent, request: &SignalProcessRequest) -> Result<()> {
    if request.signal > MAX_SIGNAL {
        return Err(Error::invalid(format!("signal: {} is not within 0 to {MAX_SIGNAL}", request.signal)));
    }
    let container = agent.container(&request.container_id)?;
    if request.all {
        if !request.exec_id.is_empty() {
            return Err(Error::invalid("exec_id: must be empty when all processes are signalled"));
        }
        return signal_all(&container, request.signal);
    }
    let process = container.process(&request.exec_id)?;
    match send_signal(process.pidfd.as_fd(), request.signal) {
        Err(Errno::SRCH) => {
            Err(Error::NotFound(format!("process {} of container {} has ended", process.pid, container.id)))
        }
        other => other.on("pidfd_send_signal", format_args!("process {} signal {}", process.pid, request.signal)),
    }
}

fn signal_all(container: &Container, signal: u32) -> Result<()> {
    if signal == SIGKILL {
        return container.cgroup.kill();
    }
    for pid in container.cgroup.processes()? {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => continue,
            Err(errno) => return Err(errno).on("pidfd_open", pid.as_raw_nonzero()),
        };
        // The number may have been given to another process meanwhile; now that we hold it, look again.
        if !is_in(pid, &container.cgroup) {
            continue;
        }
        match send_signal(&pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno).on("pidfd_send_signal", pid.as_raw_nonzero()),
        }
    }
    Ok(())
}

/// Whether the process is in the cgroup or below, by the agent's own procfs.
pub(super) fn is_in(pid: Pid, cgroup: &Cgroup) -> bool {
    let Ok(own) = cgroup.path().strip_prefix(crate::paths::CGROUP) else { return false };
    let Ok(text) = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())) else { return false };
    text.lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .is_some_and(|path| std::path::Path::new(path).starts_with(own))
}

/// Changes the size of a process's terminal; the kernel tells its foreground processes with SIGWINCH.
pub fn resize(container: &Container, exec_id: &str, size: &WindowSize) -> Result<()> {
    let process = container.process(exec_id)?;
    let console = process
        .console
        .ok_or_else(|| Error::precondition(format!("the process of container {} has no terminal", container.id)))?;
    let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: clamp(size.rows), ws_col: clamp(size.columns), ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(console.get_ref(), size).on("ioctl TIOCSWINSZ", format_args!("container {}", container.id))
}

/// Ends a process's standard input. What the agent has received is written first; a half-close of the stream's
/// connection is the way that is in order with the data. A terminal is left as it is.
pub fn close_stdin(agent: &Agent, container: &Container, exec_id: &str) -> Result<()> {
    let process = container.process(exec_id)?;
    agent.streams.close_input(process.stdin);
    Ok(())
}

/// Ends a container and gives back what it holds. That there is none is success.
pub async fn remove(agent: &Arc<Agent>, id: &str) -> Result<()> {
    let container = match agent.container(id) {
        Ok(container) => container,
        Err(Error::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let (answer, answered) = oneshot::channel();
    // The supervisor ends only when the container has been removed.
    if container.removals.send(answer).await.is_err() {
        return Ok(());
    }
    answered.await.unwrap_or(Ok(())).map_err(|error| error.during(format_args!("container {id}")))
}
