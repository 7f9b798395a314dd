//! Pulls that fail, that are given up, and who asks.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::archive::{TestImage, digest};
use crate::common::server::Reply;
use crate::common::{Node, Registry, connect, image, spec};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use husk_cri::api::{AuthConfig, PullImageRequest};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};

#[tokio::test]
async fn kubelet_is_told_by_code_and_prefix_why_a_pull_failed() {
    let broken =
        Registry::start(|request| request.path.contains("/broken/").then(|| Reply::new("400 Bad Request", &[], b"")));
    let node = Node::start_with(broken).await;
    for (name, code, beginning) in [
        ("app:missing", Code::NotFound, "image app:missing was not found"),
        ("team/broken/app", Code::Unknown, "RegistryUnavailable: "),
        ("UPPER", Code::InvalidArgument, "\"UPPER\" is not an image name"),
        ("app@sha256:12", Code::InvalidArgument, "\"app@sha256:12\" is not an image name"),
        ("", Code::InvalidArgument, "\"\" is not an image name"),
    ] {
        let error = node.pull(name).await.unwrap_err();
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(error.message().starts_with(beginning), "{name}: {error}");
    }
    // What came is not what its digest says: that is nobody's unavailability.
    let test = image("a");
    node.registry.push("library/damaged:latest", &test);
    node.registry.put(&digest(&test.layers[0]), &vec![0; test.layers[0].len()]);
    let error = node.pull("damaged").await.unwrap_err();
    assert!(error.code() == Code::Unknown && !error.message().starts_with("RegistryUnavailable"), "{error}");
    assert!(node.list().await.is_empty());
    node.idle().await;
}

/// Everything that is logged by this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn credentials_reach_the_registry_they_are_for_and_no_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    subscriber.with_ansi(false).try_init().unwrap();
    let basic = format!("Basic {}", STANDARD.encode("me:hunter2"));
    let private = {
        let basic = basic.clone();
        Registry::start(move |request| match request.header("authorization") {
            Some(given) if given == basic || given == "Bearer hunter2" => None,
            _ => {
                let challenge = [("WWW-Authenticate", "Basic realm=\"x\"")];
                Some(Reply::new("401 Unauthorized", &challenge, b""))
            }
        })
    };
    let node = Node::start_with(private).await;
    node.registry.push("library/app:latest", &image("a"));
    let server = node.registry.server.address.to_string();
    let own = || AuthConfig { server_address: server.clone(), ..AuthConfig::default() };
    let named = AuthConfig { username: "me".to_owned(), password: "hunter2".to_owned(), ..own() };
    let encoded = AuthConfig { auth: STANDARD.encode("me:hunter2"), ..own() };
    let bearer = AuthConfig { registry_token: "hunter2".to_owned(), ..own() };
    let others = AuthConfig { server_address: "other.example".to_owned(), ..named.clone() };
    let wrong = AuthConfig { password: "hunter2x".to_owned(), ..named.clone() };
    let broken = AuthConfig { auth: "!hunter2".to_owned(), ..own() };
    for (auth, code) in [
        (None, Code::NotFound),
        (Some(others), Code::NotFound),
        (Some(wrong), Code::NotFound),
        (Some(broken), Code::InvalidArgument),
        (Some(named), Code::Ok),
        (Some(encoded), Code::Ok),
        (Some(bearer), Code::Ok),
    ] {
        let shown = auth.is_some();
        let request = PullImageRequest { image: spec("app"), auth, sandbox_config: None };
        let answer = node.client.clone().pull_image(request).await;
        if let Err(error) = &answer {
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert_eq!(answer.map_or_else(|error| error.code(), |_| Code::Ok), code, "{shown}");
        node.remove("app").await.unwrap();
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("PullImage"), "requests are logged: {log}");
    for secret in ["hunter2", &STANDARD.encode("me:hunter2"), "aHVudGVyMg"] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// A registry whose only image's layer does not come before the gate is open.
struct Gated {
    node: Node,
    test: TestImage,
    gate: Arc<AtomicBool>,
}

impl Gated {
    async fn start() -> Self {
        let test = image("a");
        let layer = digest(&test.layers[0]);
        let gate = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&gate);
        let registry = Registry::start(move |request| {
            for _ in 0..1200 {
                if !request.path.contains(&layer) || open.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            None
        });
        registry.push("library/app:latest", &test);
        Self { node: Node::start_with(registry).await, test, gate }
    }

    /// A client of its own that pulls.
    async fn puller(&self) -> JoinHandle<Result<String, Status>> {
        let mut client = connect(self.node.config.socket.clone()).await;
        tokio::spawn(async move {
            let request = PullImageRequest { image: spec("app"), ..PullImageRequest::default() };
            Ok(client.pull_image(request).await?.into_inner().image_ref)
        })
    }

    /// Waits until so many have asked for the manifest, and one for the layer.
    async fn pulling(&self, pullers: usize) {
        let layer = digest(&self.test.layers[0]);
        for _ in 0..600 {
            let seen = self.node.registry.server.seen();
            let asked = seen.iter().filter(|request| request.path.contains("/manifests/")).count();
            if asked >= pullers && seen.iter().any(|request| request.path.contains(&layer)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody asked for the layer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_ends_with_its_clients_patience() {
    let gated = Gated::start().await;
    let mut request = Request::new(PullImageRequest { image: spec("app"), ..PullImageRequest::default() });
    request.metadata_mut().insert("grpc-timeout", "2S".parse().unwrap());
    let error = gated.node.client.clone().pull_image(request).await.unwrap_err();
    // The server's word, or, where the client's own clock was faster, the client library's.
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    gated.node.idle().await;
    assert!(gated.node.list().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_ends_with_its_clients_connection() {
    let gated = Gated::start().await;
    let puller = gated.puller().await;
    gated.pulling(1).await;
    assert!(std::fs::read_dir(gated.node.config.images().join("tmp")).unwrap().next().is_some());
    puller.abort();
    assert!(puller.await.unwrap_err().is_cancelled());
    gated.node.idle().await;
    gated.gate.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    gated.node.idle().await;
    assert!(gated.node.list().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_wants_an_image_gets_it_when_another_gives_up() {
    let gated = Gated::start().await;
    let first = gated.puller().await;
    gated.pulling(1).await;
    // It waits for what the first one fetches.
    let second = gated.puller().await;
    gated.pulling(2).await;
    first.abort();
    gated.gate.store(true, Ordering::Relaxed);
    assert_eq!(second.await.unwrap().unwrap(), gated.test.id());
    assert_eq!(gated.node.list().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_several_clients_want_is_fetched_once() {
    let gated = Gated::start().await;
    let pullers = [gated.puller().await, gated.puller().await, gated.puller().await];
    gated.pulling(pullers.len()).await;
    gated.gate.store(true, Ordering::Relaxed);
    for puller in pullers {
        assert_eq!(puller.await.unwrap().unwrap(), gated.test.id());
    }
    let layer = digest(&gated.test.layers[0]);
    let fetched = gated.node.registry.server.seen().iter().filter(|request| request.path.contains(&layer)).count();
    assert_eq!(fetched, 1);
}
