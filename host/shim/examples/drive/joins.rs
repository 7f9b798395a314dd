//! Joining what runs: a container's streams by several clients, and ports of the pod.

use std::fs;

use anyhow::{Context, Result, ensure};
use husk_client::{ATTACH, Dirs, FifoStreams, Fifos, Shim, Status, Stdio, TaskError, Wanted};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{ALL, Bench, POD, step, until};

/// What a client of a container without a terminal wants.
const BOTH: Wanted = Wanted { stdin: true, stdout: true, stderr: false, terminal: false };

pub(super) async fn drive(bench: &Bench, shim: &Shim, dirs: &Dirs) -> Result<()> {
    step("clients attach to a container and leave it", attached(bench, shim)).await?;
    step("the end of a client is the end of the input", once(bench, shim)).await?;
    step("a terminal is attached to", terminal(bench, shim)).await?;
    step("ports of the pod are reached on its loopback", ports(bench, shim)).await?;
    step("a front door that comes back finds everything", came_back(bench, shim, dirs)).await
}

/// Attaches a client, whose FIFOs are called `name`.
async fn join(bench: &Bench, shim: &Shim, id: &str, name: &str, wanted: Wanted, close: bool) -> Result<FifoStreams> {
    let fifos = Fifos::create(&bench.place, name, wanted)?;
    shim.attach(id, &fifos.stdio(), close).await?;
    Ok(fifos.into_streams()?)
}

async fn line(from: &mut (impl AsyncRead + Unpin), expected: &str) -> Result<()> {
    let mut bytes = vec![0; expected.len()];
    from.read_exact(&mut bytes).await?;
    ensure!(bytes == expected.as_bytes(), "{:?} instead of {expected:?}", String::from_utf8_lossy(&bytes));
    Ok(())
}

async fn attached(bench: &Bench, shim: &Shim) -> Result<()> {
    let log = bench.place.join("logs/joined.log");
    let uri = Some(format!("cri-log://{}", log.display()));
    let script = "while read word; do echo got $word; echo err $word >&2; [ $word = stop ] && exit 6; done; exit 1";
    let bundle = bench.container("joined", &["sh", "-c", script], &json!({}), false)?;
    let stdio = Stdio { stdin: Some(ATTACH.into()), stdout: uri.clone(), stderr: uri, terminal: false };
    shim.create(bench.task("joined", &bundle, stdio)).await?;
    let early = shim.attach("joined", &Stdio::default(), false).await;
    ensure!(matches!(&early, Err(TaskError::FailedPrecondition(text)) if text.contains("joined")), "{early:?}");
    shim.start("joined").await?;

    let mut first = join(bench, shim, "joined", "first", ALL, false).await?;
    let mut stdin = first.stdin.take().context("no stdin")?;
    stdin.write_all(b"one\n").await?;
    line(first.stdout.as_mut().context("no stdout")?, "got one\n").await?;
    line(first.stderr.as_mut().context("no stderr")?, "err one\n").await?;
    // Two at once; what was written before is not repeated.
    let mut second = join(bench, shim, "joined", "second", BOTH, false).await?;
    stdin.write_all(b"two\n").await?;
    for client in [&mut first, &mut second] {
        line(client.stdout.as_mut().context("no stdout")?, "got two\n").await?;
    }
    drop((first, stdin));
    let mut stdin = second.stdin.take().context("no stdin")?;
    stdin.write_all(b"three\nstop\n").await?;
    let mut rest = String::new();
    second.stdout.take().context("no stdout")?.read_to_string(&mut rest).await?;
    ensure!(rest == "got three\ngot stop\n", "{rest:?}");
    ensure!(shim.wait("joined", None).await?.code == 6);
    let late = shim.attach("joined", &Stdio::default(), false).await;
    ensure!(matches!(late, Err(TaskError::FailedPrecondition(_))), "{late:?}");
    shim.delete("joined", None).await?;
    let text = fs::read_to_string(&log)?;
    let mut lines: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    lines.sort_unstable();
    let mut expected = Vec::new();
    for word in ["one", "two", "three", "stop"] {
        expected.extend([format!("stdout F got {word}"), format!("stderr F err {word}")]);
    }
    expected.sort_unstable();
    ensure!(lines == expected, "{lines:?}");
    Ok(())
}

async fn once(bench: &Bench, shim: &Shim) -> Result<()> {
    let log = format!("file://{}", bench.place.join("logs/once.log").display());
    let bundle = bench.container("once", &["sh", "-c", "wc -c; exit 4"], &json!({}), false)?;
    let stdio = Stdio { stdin: Some(ATTACH.into()), stdout: Some(log), ..Stdio::default() };
    shim.create(bench.task("once", &bundle, stdio)).await?;
    shim.start("once").await?;
    // A reader without stdin changes nothing.
    let reader = join(bench, shim, "once", "reader", Wanted { stdout: true, ..Wanted::default() }, true).await?;
    drop(reader);
    let mut client = join(bench, shim, "once", "writer", BOTH, true).await?;
    let mut stdin = client.stdin.take().context("no stdin")?;
    stdin.write_all(&vec![7; 3_000_000]).await?;
    drop(stdin);
    let mut out = String::new();
    client.stdout.take().context("no stdout")?.read_to_string(&mut out).await?;
    ensure!(out.trim() == "3000000", "{out:?}");
    ensure!(shim.wait("once", None).await?.code == 4);
    shim.delete("once", None).await?;

    let bundle = bench.container("deaf", &["sleep", "1000"], &json!({}), false)?;
    let log = format!("file://{}", bench.place.join("logs/deaf.log").display());
    shim.create(bench.task("deaf", &bundle, Stdio { stdout: Some(log), ..Stdio::default() })).await?;
    shim.start("deaf").await?;
    let fifos = Fifos::create(&bench.place, "deaf", BOTH)?;
    let error = shim.attach("deaf", &fifos.stdio(), false).await;
    ensure!(
        matches!(&error, Err(TaskError::FailedPrecondition(text)) if text.contains("deaf") && text.contains("stdin")),
        "{error:?}"
    );
    shim.kill("deaf", None, 9, false).await?;
    shim.wait("deaf", None).await?;
    shim.delete("deaf", None).await?;
    Ok(())
}

async fn terminal(bench: &Bench, shim: &Shim) -> Result<()> {
    let script = "read word; stty size; echo got $word";
    let log = Some(format!("cri-log://{}", bench.place.join("logs/typed.log").display()));
    let bundle = bench.container("typed", &["sh", "-c", script], &json!({}), true)?;
    let stdio = Stdio { stdin: Some(ATTACH.into()), stdout: log, stderr: None, terminal: true };
    shim.create(bench.task("typed", &bundle, stdio)).await?;
    shim.start("typed").await?;
    let mut client = join(bench, shim, "typed", "typed", Wanted { terminal: true, ..ALL }, true).await?;
    shim.resize("typed", None, 33, 88).await?;
    let mut keys = client.stdin.take().context("no stdin")?;
    keys.write_all(b"key\n").await?;
    let mut out = String::new();
    client.stdout.take().context("no stdout")?.read_to_string(&mut out).await?;
    ensure!(out.contains("33 88\r\n") && out.contains("got key\r\n"), "{out:?}");
    ensure!(shim.wait("typed", None).await?.code == 0);
    shim.delete("typed", None).await?;
    Ok(())
}

/// Connects to a port, sends `question` and its end, and reads the answer.
async fn ask(bench: &Bench, shim: &Shim, port: u16, question: &[u8]) -> Result<Vec<u8>> {
    let fifos = Fifos::create(&bench.place, &format!("port-{port}"), BOTH)?;
    shim.forward(port, &fifos.stdio()).await?;
    let streams = fifos.into_streams()?;
    let (mut to, mut from) = (streams.stdin.context("no stdin")?, streams.stdout.context("no stdout")?);
    let mut answer = Vec::new();
    let write = async move {
        to.write_all(question).await?;
        drop(to);
        Ok(0)
    };
    tokio::try_join!(write, from.read_to_end(&mut answer))?;
    Ok(answer)
}

async fn ports(bench: &Bench, shim: &Shim) -> Result<()> {
    // One answers when it has all of the question, one says nothing and stays, one speaks HTTP.
    let script = "nc -ll -p 7001 -e cat & nc -ll -p 7002 -e sleep 1000 & \
                  mkdir /tmp/web; echo page >/tmp/web/index.html; httpd -f -p 127.0.0.1:7003 -h /tmp/web & \
                  echo ready; wait";
    let log = bench.place.join("logs/ports.log");
    let bundle = bench.container("ports", &["sh", "-c", script], &json!({}), false)?;
    let uri = Some(format!("file://{}", log.display()));
    shim.create(bench.task("ports", &bundle, Stdio { stdout: uri, ..Stdio::default() })).await?;
    shim.start("ports").await?;
    until("the listeners", || fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"))).await?;
    while let Err(error) = ask(bench, shim, 7003, b"").await {
        ensure!(error.to_string().contains("nobody listens on port 7003"), "{error:#}");
    }
    let page = ask(bench, shim, 7003, b"GET / HTTP/1.0\r\n\r\n").await?;
    ensure!(page.ends_with(b"page\n"), "{:?}", String::from_utf8_lossy(&page));
    let sent: Vec<u8> = (0..8_000_000_u32).map(|index| (index / 7 % 251).to_le_bytes()[0]).collect();
    ensure!(ask(bench, shim, 7001, &sent).await? == sent, "bytes are not the same");
    let nobody = ask(bench, shim, 7009, b"").await;
    ensure!(nobody.is_err_and(|error| error.to_string().contains("port 7009")));

    // Connections that are left are gone in the guest, too, although the other side never says anything.
    let fifos = Fifos::create(&bench.place, "kept", BOTH)?;
    shim.forward(7002, &fifos.stdio()).await?;
    let kept = fifos.into_streams()?;
    for _ in 0..20 {
        let fifos = Fifos::create(&bench.place, "idle", BOTH)?;
        shim.forward(7002, &fifos.stdio()).await?;
        drop(fifos.into_streams()?);
    }
    let mut open = connections(bench, shim).await?;
    for _ in 0..100 {
        if open <= 1 {
            break;
        }
        open = connections(bench, shim).await?;
    }
    ensure!(open == 1, "{open} connections instead of the one that is kept");
    drop(kept);
    shim.kill("ports", None, 9, false).await?;
    shim.wait("ports", None).await?;
    shim.delete("ports", None).await?;
    Ok(())
}

/// How many connections the agent has to port 7002, by the guest's own count.
async fn connections(bench: &Bench, shim: &Shim) -> Result<usize> {
    let process = bench.process(&["netstat", "-tn"], false);
    let fifos = Fifos::create(&bench.place, "netstat", ALL)?;
    shim.exec("ports", "netstat", &serde_json::from_value(process)?, fifos.stdio()).await?;
    shim.start_exec("ports", "netstat").await?;
    let (out, _) = super::talk(fifos.into_streams()?, b"").await?;
    shim.wait("ports", Some("netstat")).await?;
    shim.delete("ports", Some("netstat")).await?;
    let text = String::from_utf8_lossy(&out).into_owned();
    let theirs = |line: &&str| {
        let peer = line.split_whitespace().nth(4);
        peer.is_some_and(|peer| peer.ends_with(":7002")) && line.contains("ESTABLISHED")
    };
    Ok(text.lines().filter(theirs).count())
}

/// A client that goes away in the midst of a wait, and another one later.
async fn came_back(bench: &Bench, shim: &Shim, dirs: &Dirs) -> Result<()> {
    let limits = json!({ "linux": { "resources": { "memory": { "limit": 24 << 20, "swap": 24 << 20 } } } });
    let bundle = bench.container("lasting", &["sh", "-c", "read go; tail /dev/zero"], &limits, false)?;
    let stdio = Stdio { stdin: Some(ATTACH.into()), ..Stdio::default() };
    shim.create(bench.task("lasting", &bundle, stdio)).await?;
    shim.start("lasting").await?;
    let killed = Shim::connect(dirs, "drive", POD).await?;
    let waiting = tokio::spawn(async move { killed.wait("lasting", None).await });
    tokio::task::yield_now().await;
    waiting.abort();

    let again = Shim::connect(dirs, "drive", POD).await?;
    ensure!(again.state("lasting", None).await?.status == Status::Running);
    let stdin_only = Wanted { stdin: true, ..Wanted::default() };
    let mut client = join(bench, &again, "lasting", "lasting", stdin_only, false).await?;
    client.stdin.take().context("no stdin")?.write_all(b"go\n").await?;
    let exit = again.wait("lasting", None).await?;
    ensure!(exit.code == 137, "{exit:?}");
    drop(again);

    let later = Shim::connect(dirs, "drive", POD).await?;
    let state = later.state("lasting", None).await?;
    ensure!(state.status == Status::Stopped && state.exit == Some(exit), "{state:?}");
    ensure!(later.wait("lasting", None).await? == exit);
    let pod = later.inspect().await?;
    let container = pod.containers.iter().find(|container| container.id == "lasting").context("not listed")?;
    ensure!(container.exit == Some(exit) && container.oom_kills > 0, "{container:?}");
    ensure!(later.delete("lasting", None).await? == exit);
    ensure!(matches!(later.state("lasting", None).await, Err(TaskError::NotFound(_))));
    Ok(())
}
