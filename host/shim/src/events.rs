//! Telling containerd what happens to tasks.
//!
//! Events are forwarded in order over containerd's ttrpc socket. containerd may be restarting, so the queue is kept and
//! retried for as long as the shim lives: a lost exit event would leave a pod terminating for ever. Without an address,
//! as under our own front doors, nothing is kept or sent.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::EventsClient;
use husk_client::to_timestamp;
use protobuf::MessageFull;
use protobuf::well_known_types::any::Any;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{self, Context};

/// One attempt at forwarding.
const ATTEMPT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What remains of the queue when the shim ends gets this long.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// ttrpc metadata in which containerd looks for the namespace.
const NAMESPACE_HEADER: &str = "containerd-namespace-ttrpc";

/// The sending end of the queue.
#[derive(Debug)]
pub(crate) struct Publisher {
    namespace: String,
    queue: Option<mpsc::UnboundedSender<Envelope>>,
    /// Events published and not yet taken by containerd.
    pending: watch::Sender<usize>,
}

impl Publisher {
    /// `address` is a unix socket's path, with or without `unix://`; empty for nobody.
    pub(crate) fn start(address: &str, namespace: &str) -> Self {
        let path = address.strip_prefix("unix://").unwrap_or(address).to_owned();
        let pending = watch::Sender::new(0);
        let queue = (!path.is_empty()).then(|| {
            let (queue, events) = mpsc::unbounded_channel();
            tokio::spawn(forward_all(path, namespace.to_owned(), events, pending.clone()));
            queue
        });
        Self { namespace: namespace.to_owned(), queue, pending }
    }

    /// Appends an event to the queue.
    pub(crate) fn publish<M: MessageFull>(&self, topic: &str, event: &M) {
        let Some(queue) = &self.queue else { return };
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => {
                tracing::error!("event {topic} cannot be encoded: {error}");
                return;
            }
        };
        let any = Any { type_url: M::descriptor().full_name().to_owned(), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: Some(to_timestamp(SystemTime::now())).into(),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(any).into(),
            ..Envelope::default()
        };
        self.pending.send_modify(|pending| *pending = pending.saturating_add(1));
        // The receiver lives as long as the publisher.
        let _ = queue.send(envelope);
    }

    /// Waits, within a bounded time, until containerd has taken everything.
    pub(crate) async fn flush(&self) {
        let mut pending = self.pending.subscribe();
        if tokio::time::timeout(LAST_CHANCE, pending.wait_for(|pending| *pending == 0)).await.is_err() {
            tracing::warn!("events remain that containerd did not take");
        }
    }
}

async fn forward_all(
    path: String,
    namespace: String,
    mut events: mpsc::UnboundedReceiver<Envelope>,
    pending: watch::Sender<usize>,
) {
    let mut client = None;
    while let Some(envelope) = events.recv().await {
        let request = ForwardRequest { envelope: Some(envelope).into(), ..ForwardRequest::default() };
        let mut pause = FIRST_PAUSE;
        loop {
            match tokio::time::timeout(ATTEMPT, forward(&mut client, &path, &namespace, &request)).await {
                Ok(Ok(())) => break,
                Ok(Err(ttrpc::Error::RpcStatus(status))) if status.code() != ttrpc::Code::UNAVAILABLE => {
                    // containerd has seen it and does not want it; the next one may be better.
                    tracing::warn!("event {}: {}", request.envelope.topic, status.message);
                    break;
                }
                failed => {
                    tracing::debug!("event {}: {failed:?}; trying again", request.envelope.topic);
                    client = None;
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
        pending.send_modify(|pending| *pending = pending.saturating_sub(1));
    }
}

async fn forward(
    client: &mut Option<EventsClient>,
    path: &str,
    namespace: &str,
    request: &ForwardRequest,
) -> ttrpc::Result<()> {
    let client = match client {
        Some(client) => client,
        None => {
            let stream = UnixStream::connect(path).await.map_err(|error| ttrpc::Error::Socket(error.to_string()))?;
            client.insert(EventsClient::new(Client::new(Socket::from(stream))))
        }
    };
    client.forward(context_for(namespace), request).await.map(drop)
}

fn context_for(namespace: &str) -> Context {
    let mut context = context::with_timeout(0);
    context.set(NAMESPACE_HEADER.to_owned(), vec![namespace.to_owned()]);
    context
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use containerd_shim_protos::events::task::{TaskExit, TaskStart};
    use containerd_shim_protos::protobuf::Message;
    use containerd_shim_protos::shim_async::{Events, create_events};
    use protobuf::well_known_types::empty::Empty;
    use ttrpc::asynchronous::{Server, TtrpcContext};

    use super::*;

    #[derive(Default)]
    struct Containerd {
        seen: Mutex<Vec<Envelope>>,
    }

    #[async_trait]
    impl Events for Containerd {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            let envelope = request.envelope.unwrap();
            if envelope.topic == "/unwanted" {
                return Err(ttrpc::error::get_rpc_status(ttrpc::Code::INVALID_ARGUMENT, "no such topic"));
            }
            self.seen.lock().unwrap().push(envelope);
            Ok(Empty::new())
        }
    }

    #[tokio::test]
    async fn events_wait_for_containerd_and_arrive_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("containerd.sock.ttrpc");
        let address = format!("unix://{}", socket.display());
        let publisher = Publisher::start(&address, "k8s.io");
        publisher.publish("/tasks/start", &TaskStart { container_id: "web".into(), ..TaskStart::default() });
        publisher.publish("/unwanted", &TaskStart::default());
        publisher.publish("/tasks/exit", &TaskExit { exit_status: 7, ..TaskExit::default() });
        // Only now does containerd come up.
        tokio::time::sleep(FIRST_PAUSE).await;
        let containerd = Arc::new(Containerd::default());
        let service: Arc<dyn Events + Send + Sync> = containerd.clone();
        let mut server = Server::new().bind(&address).unwrap().register_service(create_events(service));
        server.start().await.unwrap();
        publisher.flush().await;

        let seen = containerd.seen.lock().unwrap();
        let topics: Vec<&str> = seen.iter().map(|envelope| envelope.topic.as_str()).collect();
        assert_eq!(topics, ["/tasks/start", "/tasks/exit"]);
        assert!(seen.iter().all(|envelope| envelope.namespace == "k8s.io"));
        assert_eq!(seen[1].event.type_url, "containerd.events.TaskExit");
        assert_eq!(TaskExit::parse_from_bytes(&seen[1].event.value).unwrap().exit_status, 7);
    }

    #[tokio::test]
    async fn without_an_address_nothing_is_kept() {
        let publisher = Publisher::start("", "default");
        publisher.publish("/tasks/start", &TaskStart::default());
        assert_eq!(*publisher.pending.borrow(), 0);
        publisher.flush().await;
    }
}
