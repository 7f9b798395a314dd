//! Cases of standard streams and terminals.

use std::time::Duration;

use husk_agent_api::v1::{CloseStdinRequest, ListProcessesRequest, ResizeTerminalRequest, Stdio, WindowSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use super::case;
use crate::client::{Client, attach, container, read_all, refused, shell, token};

pub(crate) async fn cases(client: &Client) {
    case("megabytes pass through stdin and stdout unchanged", echo(client.clone())).await;
    case("CloseStdin ends the input", close_stdin(client.clone())).await;
    case("output stays readable after the end, until removal", late_reader(client.clone())).await;
    case("an unread container holds nobody up", unread(client.clone())).await;
    case("a terminal has a name, a size and a line discipline", terminal(client.clone())).await;
    case("a further process has a terminal of its own", exec_terminal(client.clone())).await;
    case("a user may open its standard output anew", reopen(client.clone())).await;
}

async fn echo(client: Client) {
    let (stdin, stdout) = (token(), token());
    let mut process = shell("cat");
    process.stdio = Some(Stdio { stdin, stdout, stderr: 0 });
    let mark = client.mark().await;
    client.create(container("cat", process)).await.unwrap();
    client.start("cat").await.unwrap();
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let mut input = attach(stdin).await.unwrap();
    let mut output = attach(stdout).await.unwrap();
    assert_eq!(attach(stdout).await.unwrap_err(), 1);
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        input.write_all(&sent).await.unwrap();
        input.shutdown().await.unwrap();
        input
    });
    let mut received = Vec::new();
    output.read_to_end(&mut received).await.unwrap();
    assert!(received == data, "{} bytes", received.len());
    writer.await.unwrap();
    assert_eq!(client.wait("cat", "", mark).await.exit_code, 0);
    client.remove("cat").await;
}

async fn close_stdin(client: Client) {
    let mut process = shell("cat; echo end");
    let (stdin, stdout) = (token(), token());
    process.stdio = Some(Stdio { stdin, stdout, stderr: 0 });
    client.create(container("close", process)).await.unwrap();
    client.start("close").await.unwrap();
    let mut input = attach(stdin).await.unwrap();
    input.write_all(b"some ").await.unwrap();
    let request = CloseStdinRequest { container_id: "close".to_owned(), exec_id: String::new() };
    client.agent.clone().close_stdin(request).await.unwrap();
    assert_eq!(read_all(stdout).await, "some end\n");
    client.remove("close").await;
}

async fn late_reader(client: Client) {
    let process = shell("echo kept; exit 0");
    let stdout = process.stdio.unwrap().stdout;
    let mark = client.mark().await;
    client.create(container("late", process)).await.unwrap();
    client.start("late").await.unwrap();
    client.wait("late", "", mark).await;
    assert_eq!(read_all(stdout).await, "kept\n");
    let process = shell("echo lost");
    let stdout = process.stdio.unwrap().stdout;
    client.exec("late", "x", process).await.unwrap_err();
    client.remove("late").await;
    assert_eq!(attach(stdout).await.unwrap_err(), 1);
}

async fn unread(client: Client) {
    client.create(container("full", shell("while true; do echo full; done"))).await.unwrap();
    client.start("full").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let outcome = client.run(container("other", shell("echo fine"))).await;
    assert_eq!(outcome.stdout, "fine\n");
    let list = ListProcessesRequest { container_id: "full".to_owned(), ..Default::default() };
    assert_eq!(client.agent.clone().list_processes(list).await.unwrap().into_inner().pids.len(), 1);
    client.remove("full").await;
}

async fn terminal(client: Client) {
    let (stdin, stdout) = (token(), token());
    let mut process = shell(
        "tty; stty size; trap 'stty size; exit 9' WINCH; ls -l /dev/console | cut -c1; echo ready; while true; do sleep 0.1; done",
    );
    process.terminal = true;
    process.window_size = Some(WindowSize { rows: 24, columns: 80 });
    process.stdio = Some(Stdio { stdin, stdout, stderr: 0 });
    let mark = client.mark().await;
    client.create(container("tty", process)).await.unwrap();
    client.start("tty").await.unwrap();
    let mut output = attach(stdout).await.unwrap();
    let mut text = String::new();
    while !text.contains("ready") {
        let mut buffer = [0; 256];
        let read = output.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(text.starts_with("/dev/pts/0\r\n24 80\r\nc\r\n"), "{text:?}");
    let size = Some(WindowSize { rows: 50, columns: 132 });
    let request = ResizeTerminalRequest { container_id: "tty".to_owned(), exec_id: String::new(), size };
    client.agent.clone().resize_terminal(request.clone()).await.unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("50 132"), "{rest:?}");
    assert_eq!(client.wait("tty", "", mark).await.exit_code, 9);
    client.remove("tty").await;
    refused(client.agent.clone().resize_terminal(request).await, Code::NotFound, "tty");
}

async fn exec_terminal(client: Client) {
    client.create(container("host", shell("sleep 1000"))).await.unwrap();
    client.start("host").await.unwrap();
    let (stdin, stdout) = (token(), token());
    let mut process = shell("tty; read line; echo got $line; sleep 1000");
    process.terminal = true;
    process.stdio = Some(Stdio { stdin, stdout, stderr: 0 });
    let mark = client.mark().await;
    client.exec("host", "t", process).await.unwrap();
    let mut input = attach(stdin).await.unwrap();
    input.write_all(b"hello\n").await.unwrap();
    let mut output = attach(stdout).await.unwrap();
    let mut text = String::new();
    while !text.contains("got hello") {
        let mut buffer = [0; 256];
        let read = output.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    // Ctrl-C, as a terminal has it.
    input.write_all(b"\x03").await.unwrap();
    assert_eq!(client.wait("host", "t", mark).await.exit_code, 130);
    client.remove("host").await;
}

async fn reopen(client: Client) {
    let mut process = shell("echo again > /dev/stdout; id -u; echo $HOME");
    process.user = Some(husk_agent_api::v1::User { uid: 1000, gid: 1000, ..Default::default() });
    let outcome = client.run(container("reopen", process)).await;
    assert_eq!(outcome.stdout, "again\n1000\n/home/web\n", "{outcome:?}");
}
