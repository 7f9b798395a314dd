//! The server with clients at its sockets.

mod exec;
mod limits;
mod port_forward;
mod requests;
mod runtime;
mod spdy_client;
mod websocket;

use std::sync::Arc;

use crate::{AttachRequest, ExecRequest, PortForwardRequest, Server};
use runtime::{Seen, TestRuntime};
use tokio_util::sync::CancellationToken;

/// A server that serves until the test ends.
struct Served {
    server: Arc<Server>,
    seen: Arc<Seen>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn served() -> Served {
    let seen = Arc::new(Seen::default());
    let runtime = Arc::new(TestRuntime { seen: Arc::clone(&seen) });
    let server = Arc::new(Server::bind(([127, 0, 0, 1], 0).into(), runtime).await.unwrap());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn({
        let (server, shutdown) = (Arc::clone(&server), shutdown.clone());
        async move { server.serve(shutdown).await }
    });
    Served { server, seen, shutdown, task }
}

/// What a command of the test runtime is asked for with.
#[derive(Clone, Copy, Default)]
struct With {
    tty: bool,
    stdin: bool,
}

impl Served {
    fn exec(&self, command: &str, With { tty, stdin }: With) -> String {
        let command = vec![command.to_owned()];
        let request = ExecRequest { container: "c1".to_owned(), command, tty, stdin, stdout: true, stderr: true };
        self.server.exec_url(request).unwrap()
    }

    fn attach(&self) -> String {
        let container = "c1".to_owned();
        self.server
            .attach_url(AttachRequest { container, tty: false, stdin: true, stdout: true, stderr: false })
            .unwrap()
    }

    fn port_forward(&self, ports: &[u16]) -> String {
        let (sandbox, ports) = ("s1".to_owned(), ports.to_vec());
        self.server.port_forward_url(PortForwardRequest { sandbox, ports }).unwrap()
    }
}

/// Bytes that differ from each other.
fn pattern(length: usize) -> Vec<u8> {
    (0u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).take(length).collect()
}
