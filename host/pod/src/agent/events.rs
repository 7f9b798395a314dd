//! The agent's event stream, followed over broken connections without a gap.

use std::time::{Duration, SystemTime};

use husk_agent_api::{is_valid_id, v1};

use super::{Agent, AgentError};
use crate::vmm::ended_now;

/// Between two tries to open the stream.
const RETRY: Duration = Duration::from_millis(200);

/// An event whose form has been checked. Whether its ids are ours is for the receiver to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestEvent {
    Exited {
        container: String,
        /// `None` = the container's init.
        exec: Option<String>,
        /// 0 to 255.
        code: u32,
        oom_killed: bool,
        at: SystemTime,
    },
    Oom {
        container: String,
        kills: u64,
    },
}

/// Hands every event to `receive` until the VM is over. Each comes once and in order.
pub(crate) async fn follow(agent: Agent, mut receive: impl FnMut(GuestEvent)) {
    let mut ended = agent.ended();
    let mut last = 0;
    loop {
        tokio::select! {
            result = follow_once(&agent, &mut last, &mut receive) => match result {
                Ok(()) => tracing::debug!("the guest agent closed its event stream"),
                Err(AgentError::Ended(_)) => return,
                Err(error) => tracing::debug!(%error, "event stream broken"),
            },
            _ = ended_now(&mut ended) => return,
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_once(agent: &Agent, last: &mut u64, receive: &mut impl FnMut(GuestEvent)) -> Result<(), AgentError> {
    let mut stream = agent.events(*last).await?;
    loop {
        let message = stream.message().await.map_err(|status| AgentError::Refused {
            call: "events",
            code: status.code(),
            message: crate::text::message(status.message()),
        })?;
        let Some(event) = message else { return Ok(()) };
        if event.sequence <= *last {
            // A replay of what has been seen.
            continue;
        }
        if event.sequence != last.saturating_add(1) {
            tracing::warn!(last = *last, next = event.sequence, "events of the guest were lost");
        }
        *last = event.sequence;
        match checked(event) {
            Some(event) => receive(event),
            None => tracing::debug!("malformed event of the guest dropped"),
        }
    }
}

fn checked(event: v1::Event) -> Option<GuestEvent> {
    match event.kind? {
        v1::event::Kind::Exited(exited) => {
            let exec = Some(exited.exec_id).filter(|id| !id.is_empty());
            let ids_are_valid = is_valid_id(&exited.container_id) && exec.as_deref().is_none_or(is_valid_id);
            (ids_are_valid && exited.exit_code <= 255).then(|| GuestEvent::Exited {
                container: exited.container_id,
                exec,
                code: exited.exit_code,
                oom_killed: exited.oom_killed,
                at: guest_time(event.time_ns),
            })
        }
        v1::event::Kind::Oom(oom) => is_valid_id(&oom.container_id)
            .then_some(GuestEvent::Oom { container: oom.container_id, kills: oom.oom_kill }),
    }
}

/// The guest's clock, as far as it can be believed: not the future.
fn guest_time(ns: u64) -> SystemTime {
    let now = SystemTime::now();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(ns)).map_or(now, |time| time.min(now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exited(container_id: &str, exec_id: &str, exit_code: u32) -> v1::Event {
        let exited = v1::ProcessExited {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            exit_code,
            oom_killed: false,
        };
        v1::Event { sequence: 1, time_ns: 5, kind: Some(v1::event::Kind::Exited(exited)) }
    }

    #[test]
    fn an_exit_is_understood() {
        let event = checked(exited("web", "", 137)).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(5);
        assert_eq!(event, GuestEvent::Exited { container: "web".into(), exec: None, code: 137, oom_killed: false, at });
    }

    #[test]
    fn malformed_events_are_dropped() {
        assert_eq!(checked(exited("../x", "", 0)), None);
        assert_eq!(checked(exited("web", "a/b", 0)), None);
        assert_eq!(checked(exited("web", "", 256)), None);
        assert_eq!(checked(v1::Event::default()), None);
    }

    #[test]
    fn the_guest_cannot_report_the_future() {
        assert!(guest_time(u64::MAX) <= SystemTime::now());
    }

    proptest! {
        #[test]
        fn only_well_formed_ids_come_through(container in ".{0,90}", exec in ".{0,90}", code in any::<u32>()) {
            if let Some(GuestEvent::Exited { container, exec, code, .. }) = checked(exited(&container, &exec, code)) {
                prop_assert!(is_valid_id(&container));
                prop_assert!(exec.as_deref().is_none_or(is_valid_id));
                prop_assert!(code <= 255);
            }
        }
    }
}
