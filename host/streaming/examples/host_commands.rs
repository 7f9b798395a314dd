//! A streaming server whose containers are the host itself: for trying clients.
//!
//! Each line of its standard input asks for a URL, which it prints: `exec [-i] [-t] COMMAND..`, `attach [-i] COMMAND..`
//! or `forward [PORT..]`.

use std::process::Stdio;
use std::sync::Arc;

use husk_streaming::{
    AttachRequest, DataStream, ExecRequest, PortForwardRequest, ProcessStreams, Runtime, Server, StreamError, relay,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio_util::sync::CancellationToken;

struct Host;

#[async_trait::async_trait]
impl Runtime for Host {
    async fn exec(&self, request: ExecRequest, mut streams: ProcessStreams) -> Result<u32, StreamError> {
        let (program, arguments) = request.command.split_first().ok_or_else(|| StreamError::new("no command"))?;
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(if streams.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| StreamError::new(format_args!("{program}: {error}")))?;
        if let (Some(from), Some(to)) = (streams.stdin.take(), child.stdin.take()) {
            tokio::spawn(copy(from, to));
        }
        let stdout = tokio::spawn(copy_if(child.stdout.take(), streams.stdout.take()));
        let stderr = tokio::spawn(copy_if(child.stderr.take(), streams.stderr.take()));
        if let Some(mut sizes) = streams.resize.take() {
            tokio::spawn(async move {
                while let Some(size) = sizes.recv().await {
                    eprintln!("a terminal of {} x {}", size.width, size.height);
                }
            });
        }
        let status = tokio::select! {
            status = child.wait() => status.map_err(StreamError::new)?,
            () = streams.gone.cancelled() => {
                eprintln!("the client has left");
                return Ok(0);
            }
        };
        let _ = tokio::join!(stdout, stderr);
        Ok(status.code().and_then(|code| u32::try_from(code).ok()).unwrap_or(255))
    }

    async fn attach(&self, request: AttachRequest, streams: ProcessStreams) -> Result<u32, StreamError> {
        let command = request.container.split_whitespace().map(str::to_owned).collect();
        let AttachRequest { container, tty, stdin, stdout, stderr } = request;
        self.exec(ExecRequest { container, command, tty, stdin, stdout, stderr }, streams).await
    }

    async fn port_forward(&self, _sandbox: &str, port: u16, stream: DataStream) -> Result<(), StreamError> {
        let target = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map_err(StreamError::new)?;
        relay(stream, target).await;
        Ok(())
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        eprintln!("copying: {error}");
    }
}

async fn copy_if(from: Option<impl AsyncRead + Unpin>, to: Option<impl AsyncWrite + Unpin>) {
    if let (Some(from), Some(to)) = (from, to) {
        copy(from, to).await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Arc::new(Server::bind(([127, 0, 0, 1], 0).into(), Arc::new(Host)).await?);
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn({
        let (server, shutdown) = (Arc::clone(&server), shutdown.clone());
        async move { server.serve(shutdown).await }
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (mut stdin, mut tty) = (false, false);
        let mut words = line.split_whitespace().filter(|word| {
            stdin |= *word == "-i";
            tty |= *word == "-t";
            !matches!(*word, "-i" | "-t")
        });
        let kind = words.next().map(str::to_owned);
        let words: Vec<String> = words.map(str::to_owned).collect();
        let (container, stdout, stderr) = (words.join(" "), true, true);
        let url = match kind.as_deref() {
            Some("exec") => server.exec_url(ExecRequest { container, command: words, tty, stdin, stdout, stderr })?,
            Some("attach") => server.attach_url(AttachRequest { container, tty, stdin, stdout, stderr })?,
            Some("forward") => {
                let ports = words.iter().map(|port| port.parse()).collect::<Result<_, _>>()?;
                server.port_forward_url(PortForwardRequest { sandbox: "host".to_owned(), ports })?
            }
            _ => "exec [-i] [-t] COMMAND.., attach [-i] COMMAND.. or forward [PORT..]".to_owned(),
        };
        println!("{url}");
    }
    shutdown.cancel();
    serving.await?;
    Ok(())
}
