//! The client's end of the control socket: calls with ids, replies in any order, events beside them.
//!
//! The VMM may be hostile: messages are bounded by the transport, replies to calls that nobody made are dropped, and
//! events only overwrite a state of fixed size.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use husk_vmm_control::{Call, Event, ExitReason, FromVmm, Outcome, Reply, Request, Timeline, TransportError};
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::VmmError;

/// What the VMM has told so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) ready: Option<Timeline>,
    pub(super) exit: Option<ExitReason>,
    /// The socket is closed; the text is empty when the VMM closed it in good order.
    pub(super) closed: Option<String>,
}

#[derive(Debug)]
pub(super) struct Control {
    shared: Arc<Shared>,
    told: watch::Receiver<Told>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    socket: AsyncFd<OwnedFd>,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    last_id: u64,
    /// `None` once the socket is closed.
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    closed: bool,
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Nothing panics while it is held; the map is whole in any case.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // With the reader goes the socket, and with the socket the VM.
        self.reader.abort();
    }
}

impl Control {
    /// `socket` does not block.
    pub(super) fn new(socket: OwnedFd) -> std::io::Result<Self> {
        // SAFETY: an `OwnedFd` names one descriptor for its whole life and keeps it open; nothing takes it out again.
        let socket = unsafe { AsyncFd::register(socket) }?;
        let shared = Arc::new(Shared { socket, calls: Mutex::default() });
        let (tell, told) = watch::channel(Told::default());
        let reader = tokio::spawn(read(Arc::clone(&shared), tell));
        Ok(Self { shared, told, reader })
    }

    pub(super) fn told(&self) -> watch::Receiver<Told> {
        self.told.clone()
    }

    /// `None` when the socket closed before the answer.
    pub(super) async fn call(
        &self,
        name: &'static str,
        call: Call,
        fds: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Option<Reply>, VmmError> {
        match tokio::time::timeout(deadline, self.exchange(name, call, fds)).await {
            Ok(result) => result,
            Err(_) => Err(VmmError::Deadline { call: name, after: deadline }),
        }
    }

    async fn exchange(
        &self,
        name: &'static str,
        call: Call,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Option<Reply>, VmmError> {
        let Some((id, answer)) = self.register() else { return Ok(None) };
        // Also when the deadline drops this future.
        let _forget = Forget { shared: &self.shared, id };
        match self.send(&Request { id, call }, fds).await {
            Ok(()) => {}
            Err(TransportError::Io(error)) if is_hang_up(&error) => return Ok(None),
            Err(source) => return Err(VmmError::Transport { call: name, source }),
        }
        match answer.await {
            Ok(Outcome::Ok(reply)) => Ok(Some(reply)),
            Ok(Outcome::Error(mut source)) => {
                source.message = crate::text::message(&source.message);
                Err(VmmError::Refused { call: name, source })
            }
            Err(_) => Ok(None),
        }
    }

    fn register(&self) -> Option<(u64, oneshot::Receiver<Outcome>)> {
        let mut calls = self.shared.calls();
        if calls.closed {
            return None;
        }
        let id = calls.last_id.wrapping_add(1);
        calls.last_id = id;
        let (answer, receiver) = oneshot::channel();
        calls.waiting.insert(id, answer);
        Some((id, receiver))
    }

    async fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), TransportError> {
        loop {
            let mut ready = self.shared.socket.writable().await?;
            match husk_vmm_control::send(self.shared.socket.get_ref(), request, fds) {
                Err(TransportError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => ready.clear_ready(),
                result => return result,
            }
        }
    }
}

struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.calls().waiting.remove(&self.id);
    }
}

fn is_hang_up(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset)
}

async fn read(shared: Arc<Shared>, tell: watch::Sender<Told>) {
    let cause = loop {
        match receive(&shared).await {
            Ok(Some(FromVmm::Reply { id, outcome })) => {
                let waiting = shared.calls().waiting.remove(&id);
                match waiting {
                    // The caller may have given up meanwhile.
                    Some(answer) => drop(answer.send(outcome)),
                    None => tracing::debug!(id, "reply of the VMM to no pending call"),
                }
            }
            Ok(Some(FromVmm::Event(Event::Ready(timeline)))) => {
                tell.send_modify(|told| told.ready = told.ready.or(Some(timeline)));
            }
            Ok(Some(FromVmm::Event(Event::Exited(reason)))) => {
                tell.send_modify(|told| told.exit = told.exit.take().or(Some(reason)));
            }
            Ok(None) => break String::new(),
            Err(TransportError::Io(error)) if is_hang_up(&error) => break String::new(),
            Err(error) => break crate::text::message(&error.to_string()),
        }
    };
    {
        let mut calls = shared.calls();
        calls.closed = true;
        calls.waiting.clear();
    }
    tell.send_modify(|told| told.closed = Some(cause));
}

async fn receive(shared: &Shared) -> Result<Option<FromVmm>, TransportError> {
    loop {
        let mut ready = shared.socket.readable().await?;
        match husk_vmm_control::receive::<FromVmm>(shared.socket.get_ref()) {
            Err(TransportError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => ready.clear_ready(),
            // File descriptors that come with it are of no use here and closed at once.
            result => return result.map(|received| received.map(|received| received.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use husk_vmm_control::{CallError, ErrorKind, SlotIndex};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn pair() -> (Control, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        rustix::io::ioctl_fionbio(&theirs, false).unwrap();
        (Control::new(ours).unwrap(), theirs)
    }

    fn answer(theirs: &OwnedFd, id: u64, outcome: Outcome) {
        husk_vmm_control::send(theirs, &FromVmm::Reply { id, outcome }, &[]).unwrap();
    }

    #[tokio::test]
    async fn replies_find_their_calls_in_any_order() {
        let (control, theirs) = pair();
        let vmm = tokio::task::spawn_blocking(move || {
            let first = husk_vmm_control::receive::<Request>(&theirs).unwrap().unwrap().message;
            let second = husk_vmm_control::receive::<Request>(&theirs).unwrap().unwrap().message;
            answer(&theirs, 999, Outcome::Ok(Reply::Done));
            for request in [second, first] {
                let Call::Unplug { slot, .. } = request.call else { panic!("{request:?}") };
                answer(&theirs, request.id, Outcome::Ok(Reply::Plugged { slot }));
            }
            theirs
        });
        let call = |slot| control.call("unplug", Call::Unplug { slot: SlotIndex(slot), force: false }, &[], SOON);
        let (one, two) = tokio::join!(call(1), call(2));
        assert_eq!(one.unwrap(), Some(Reply::Plugged { slot: SlotIndex(1) }));
        assert_eq!(two.unwrap(), Some(Reply::Plugged { slot: SlotIndex(2) }));
        vmm.await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_and_its_text_is_escaped() {
        let (control, theirs) = pair();
        let vmm = tokio::task::spawn_blocking(move || {
            let request = husk_vmm_control::receive::<Request>(&theirs).unwrap().unwrap().message;
            let error = CallError { kind: ErrorKind::Busy, message: "held\x1b[0m".into() };
            answer(&theirs, request.id, Outcome::Error(error));
            theirs
        });
        let refused = control.call("status", Call::Status, &[], SOON).await.unwrap_err().to_string();
        assert!(refused.contains("held\\u{1b}"), "{refused}");
        vmm.await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_vmm_meets_the_deadline() {
        let (control, theirs) = pair();
        answer(&theirs, 999, Outcome::Ok(Reply::Done));
        let late = control.call("status", Call::Status, &[], Duration::from_millis(50)).await;
        assert!(matches!(late, Err(VmmError::Deadline { .. })), "{late:?}");
    }

    #[tokio::test]
    async fn a_closed_socket_ends_every_call() {
        let (control, theirs) = pair();
        let pending = control.call("status", Call::Status, &[], SOON);
        let (result, ()) = tokio::join!(pending, async move { drop(theirs) });
        assert_eq!(result.unwrap(), None);
        assert_eq!(control.call("status", Call::Status, &[], SOON).await.unwrap(), None);
        let mut told = control.told();
        assert_eq!(told.wait_for(|told| told.closed.is_some()).await.unwrap().closed.as_deref(), Some(""));
    }

    #[tokio::test]
    async fn garbage_from_the_vmm_closes_the_socket_with_a_cause() {
        let (control, theirs) = pair();
        rustix::io::write(&theirs, b"{\"reply\":").unwrap();
        let mut told = control.told();
        let told = told.wait_for(|told| told.closed.is_some()).await.unwrap();
        assert!(told.closed.as_deref().unwrap().contains("JSON"), "{told:?}");
    }

    #[tokio::test]
    async fn events_are_remembered() {
        let (control, theirs) = pair();
        let timeline = Timeline { ready_us: 7, ..Timeline::default() };
        husk_vmm_control::send(&theirs, &FromVmm::Event(Event::Ready(timeline)), &[]).unwrap();
        husk_vmm_control::send(&theirs, &FromVmm::Event(Event::Exited(ExitReason::Reset)), &[]).unwrap();
        let mut told = control.told();
        let told = told.wait_for(|told| told.exit.is_some()).await.unwrap();
        assert_eq!(told.ready, Some(timeline));
        assert_eq!(told.exit, Some(ExitReason::Reset));
    }
}
