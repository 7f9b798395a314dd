//! Drives a real pod through the shim, with the client that the front doors use: two containers, exec, streams, a log,
//! a terminal, a memory limit, clients that join ([`joins`]), and an end that leaves nothing.
//!
//! Usage: `drive SHIM IMAGE`, as root on a machine with KVM, with `HUSK_VMM`, `HUSK_KERNEL` and `HUSK_INITRAMFS` set.
//! IMAGE is an EROFS file with busybox at `/bin/busybox` and its applets beside it.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a failed step ends the program")]

mod joins;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use husk_client::{
    CreateTask, Dirs, FifoStreams, Fifos, RootfsImage, Shim, ShimLauncher, Status, Stdio, TaskError, Wanted,
};
use oci_spec::runtime::{LinuxResources, Process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const POD: &str = "drive";
const MIB: usize = 1 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(shim), Some(image)) = (args.next(), args.next()) else { bail!("usage: drive SHIM IMAGE") };
    let place = tempfile::Builder::new().prefix("husk-drive").tempdir()?;
    let dirs = Dirs { run: place.path().join("run"), root: "/var/lib/husk".into() };
    let launcher =
        ShimLauncher { binary: shim, namespace: "drive".into(), dirs: dirs.clone(), env: Vec::new(), debug: true };
    let bench = Bench { place: place.path().to_owned(), image };

    let sandbox = bench.bundle(POD, &json!({}), &json!({ "container-type": "sandbox" }))?;
    let shim = launcher.launch(POD, &sandbox).await.context("launching the shim")?;
    let result = drive(&bench, &shim, &sandbox, &dirs).await;
    if result.is_err() {
        for log in ["shim.log", "vmm.log", "console.log"] {
            let path = dirs.shim_state("drive", POD)?.join(log);
            println!("---- {log}\n{}", fs::read_to_string(path).unwrap_or_default());
        }
    }
    result?;
    step("the pod ends and leaves nothing", async {
        shim.kill(POD, None, 15, false).await?;
        let exit = shim.wait(POD, None).await?;
        ensure!(exit.code == 0, "sandbox ended with {}", exit.code);
        ensure!(shim.inspect().await?.vmm_pid.is_none());
        shim.delete(POD, None).await?;
        shim.shutdown().await?;
        gone(&dirs.shim_state("drive", POD)?).await?;
        gone(&dirs.pod_data("drive", POD)?).await
    })
    .await?;
    unexpected_death(&bench, &launcher).await?;
    step("a container without a sandbox is a pod of its own", single(&bench, &launcher)).await?;
    println!("all steps passed");
    Ok(())
}

async fn drive(bench: &Bench, shim: &Shim, sandbox: &Path, dirs: &Dirs) -> Result<()> {
    step("the sandbox boots a VM", async {
        let pid = shim.create(CreateTask { id: POD.into(), bundle: sandbox.into(), ..CreateTask::default() }).await?;
        ensure!(shim.start(POD).await? == pid);
        let pod = shim.inspect().await?;
        ensure!(pod.vmm_pid == Some(pid));
        for timeline in &pod.timeline {
            println!("    {:>9.1} ms  {}", Duration::from_micros(timeline.at_us).as_secs_f64() * 1e3, timeline.name);
        }
        println!("    {} MiB, {} CPUs, Linux {}", pod.memory_mib, pod.vcpus, pod.kernel_release);
        Ok(())
    })
    .await?;
    step("output and exit code arrive through FIFOs", async {
        let (code, out, err) = bench.run(shim, "short", &["sh", "-c", "echo out; echo err >&2; exit 7"], b"").await?;
        ensure!((code, out.as_slice(), err.as_slice()) == (7, &b"out\n"[..], &b"err\n"[..]), "{code} {out:?} {err:?}");
        Ok(())
    })
    .await?;
    step("64 MiB go through cat", async {
        let sent: Vec<u8> = (0..64 * MIB).map(|index| (index / 7 % 251).to_le_bytes()[0]).collect();
        let (code, out, _) = bench.run(shim, "cat", &["cat"], &sent).await?;
        ensure!(code == 0 && out == sent, "exit {code}, {} bytes back", out.len());
        Ok(())
    })
    .await?;
    step("a long-running container with a log", logged(bench, shim)).await?;
    step("a terminal has a size and passes keys", terminal(bench, shim)).await?;
    joins::drive(bench, shim, dirs).await?;
    step("a container over its memory limit says so", oom(bench, shim)).await?;
    step("a program that is not there is an error, not a hang", async {
        let bundle = bench.container("missing", &["/no/such/program"], &json!({}), false)?;
        shim.create(bench.task("missing", &bundle, Stdio::default())).await?;
        let error = shim.start("missing").await;
        ensure!(
            matches!(&error, Err(TaskError::FailedPrecondition(text)) if text.contains("/no/such/program")),
            "{error:?}"
        );
        ensure!(shim.wait("missing", None).await?.code != 0);
        shim.delete("missing", None).await?;
        Ok(())
    })
    .await?;
    step("a container that was never started can be deleted", async {
        let bundle = bench.container("unborn", &["true"], &json!({}), false)?;
        shim.create(bench.task("unborn", &bundle, Stdio::default())).await?;
        let waiting = shim.wait("unborn", None);
        let deleting = shim.delete("unborn", None);
        let (waited, deleted) = tokio::join!(waiting, deleting);
        ensure!(waited?.code != 0 && deleted?.code != 0);
        Ok(())
    })
    .await?;
    step("a bundle that asks for the impossible is refused by name", async {
        let bundle =
            bench.container("hooks", &["true"], &json!({ "hooks": { "poststop": [{ "path": "/x" }] } }), false)?;
        let error = shim.create(bench.task("hooks", &bundle, Stdio::default())).await;
        ensure!(matches!(&error, Err(TaskError::InvalidArgument(text)) if text.contains("hooks")), "{error:?}");
        Ok(())
    })
    .await
}

async fn logged(bench: &Bench, shim: &Shim) -> Result<()> {
    let log = bench.place.join("logs/0.log");
    let uri = Some(format!("cri-log://{}", log.display()));
    let script = "trap 'echo bye; exit 3' TERM; echo hello; echo oops >&2; while :; do sleep 0.1; done";
    let bundle = bench.container("web", &["sh", "-c", script], &json!({}), false)?;
    let stdio = Stdio { stdout: uri.clone(), stderr: uri, ..Stdio::default() };
    shim.create(bench.task("web", &bundle, stdio)).await?;
    let again = shim.create(bench.task("web", &bundle, Stdio::default())).await;
    ensure!(matches!(again, Err(TaskError::AlreadyExists(_))), "{again:?}");
    ensure!(shim.state("web", None).await?.status == Status::Created);
    shim.start("web").await?;
    until("the first lines", || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 2)).await?;

    let process: Process = serde_json::from_value(bench.process(&["sh", "-c", "cat; exit 5"], false))?;
    let fifos = Fifos::create(&bench.place, "exec", ALL)?;
    shim.exec("web", "one", &process, fifos.stdio()).await?;
    shim.start_exec("web", "one").await?;
    let (out, _) = talk(fifos.into_streams()?, b"through exec").await?;
    ensure!(shim.wait("web", Some("one")).await?.code == 5 && out == b"through exec");
    ensure!(shim.delete("web", Some("one")).await?.code == 5);

    ensure!(shim.pids("web").await?.len() >= 2, "{:?}", shim.pids("web").await?);
    let resources: LinuxResources = serde_json::from_value(json!({ "memory": { "limit": 64 << 20 } }))?;
    shim.update("web", &resources).await?;
    let stats = shim.stats("web").await?;
    ensure!(stats.memory_limit == 64 << 20 && stats.memory_usage > 0 && stats.cpu_usage_us > 0, "{stats:?}");
    ensure!(shim.stats(POD).await?.cpu_usage_us >= stats.cpu_usage_us);

    fs::rename(&log, log.with_extension("1"))?;
    shim.reopen_log("web").await?;
    ensure!(shim.delete("web", None).await.is_err(), "a running container was deleted");
    shim.kill("web", None, 15, false).await?;
    ensure!(shim.wait("web", None).await?.code == 3);
    ensure!(matches!(shim.kill("web", None, 9, false).await, Err(TaskError::NotFound(_))));
    shim.delete("web", None).await?;
    let text = |path: &Path| -> Result<Vec<String>> {
        let lines = fs::read_to_string(path)?;
        let mut lines: Vec<_> = lines.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect();
        lines.sort_unstable();
        Ok(lines)
    };
    ensure!(text(&log.with_extension("1"))? == ["stderr F oops", "stdout F hello"]);
    ensure!(text(&log)? == ["stdout F bye"]);
    Ok(())
}

async fn terminal(bench: &Bench, shim: &Shim) -> Result<()> {
    let bundle = bench.container("tty", &["sh", "-c", "read line; stty size; echo got $line"], &json!({}), true)?;
    let fifos = Fifos::create(&bench.place, "tty", Wanted { terminal: true, ..ALL })?;
    shim.create(bench.task("tty", &bundle, fifos.stdio())).await?;
    let mut streams = fifos.into_streams()?;
    shim.start("tty").await?;
    shim.resize("tty", None, 41, 97).await?;
    let mut keys = streams.stdin.take().context("no stdin")?;
    keys.write_all(b"key\n").await?;
    let mut out = Vec::new();
    streams.stdout.take().context("no stdout")?.read_to_end(&mut out).await?;
    let out = String::from_utf8_lossy(&out).into_owned();
    ensure!(out.contains("41 97\r\n") && out.contains("got key\r\n"), "{out:?}");
    ensure!(shim.wait("tty", None).await?.code == 0);
    shim.delete("tty", None).await?;
    Ok(())
}

async fn oom(bench: &Bench, shim: &Shim) -> Result<()> {
    let limits = json!({ "linux": { "resources": { "memory": { "limit": 24 << 20, "swap": 24 << 20 } } } });
    let bundle = bench.container("greedy", &["tail", "/dev/zero"], &limits, false)?;
    shim.create(bench.task("greedy", &bundle, Stdio::default())).await?;
    shim.start("greedy").await?;
    ensure!(shim.wait("greedy", None).await?.code == 137);
    let pod = shim.inspect().await?;
    let greedy = pod.containers.iter().find(|container| container.id == "greedy").context("not listed")?;
    ensure!(greedy.oom_kills > 0 && greedy.status == Status::Stopped, "{greedy:?}");
    ensure!(shim.stats("greedy").await?.oom_kill >= 1);
    shim.delete("greedy", None).await?;
    Ok(())
}

/// As `ctr` and `nerdctl` do: no annotations, and the VM ends with its container.
async fn single(bench: &Bench, launcher: &ShimLauncher) -> Result<()> {
    let bundle = bench.container(POD, &["sh", "-c", "exit 9"], &json!({ "annotations": null }), false)?;
    let shim = launcher.launch(POD, &bundle).await?;
    shim.create(bench.task(POD, &bundle, Stdio::default())).await?;
    shim.start(POD).await?;
    ensure!(shim.wait(POD, None).await?.code == 9);
    ensure!(shim.inspect().await?.vmm_pid.is_some());
    println!("    the shim has {}", memory(shim_pid(launcher, POD)?)?);
    shim.delete(POD, None).await?;
    ensure!(shim.inspect().await?.vmm_pid.is_none());
    shim.shutdown().await?;
    gone(&launcher.dirs.shim_state("drive", POD)?).await?;
    gone(&launcher.dirs.pod_data("drive", POD)?).await
}

fn memory(pid: rustix::process::Pid) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A VMM that is killed takes its containers with it, and everything can still be deleted.
async fn unexpected_death(bench: &Bench, launcher: &ShimLauncher) -> Result<()> {
    let sandbox = bench.bundle(POD, &json!({}), &json!({ "container-type": "sandbox" }))?;
    let shim = launcher.launch(POD, &sandbox).await?;
    step("the VM dies unexpectedly and everything can be deleted", async {
        let pid = shim.create(CreateTask { id: POD.into(), bundle: sandbox.clone(), ..CreateTask::default() }).await?;
        shim.start(POD).await?;
        let bundle = bench.container("web", &["sleep", "1000"], &json!({}), false)?;
        shim.create(bench.task("web", &bundle, Stdio::default())).await?;
        shim.start("web").await?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        ensure!(shim.wait("web", None).await?.code == 137);
        ensure!(shim.wait(POD, None).await?.code == 255);
        ensure!(shim.inspect().await?.vm_ended.is_some());
        ensure!(shim.create(bench.task("late", &bundle, Stdio::default())).await.is_err());
        shim.delete("web", None).await?;
        shim.delete(POD, None).await?;
        shim.shutdown().await?;
        gone(&launcher.dirs.shim_state("drive", POD)?).await
    })
    .await?;
    let shim = launcher.launch(POD, &sandbox).await?;
    step("the shim dies and delete cleans up", async {
        let vmm = shim.create(CreateTask { id: POD.into(), bundle: sandbox.clone(), ..CreateTask::default() }).await?;
        let pid = shim_pid(launcher, POD)?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        ensure!(matches!(shim.wait(POD, None).await, Err(TaskError::Unavailable(_))));
        launcher.delete_dead(POD, &sandbox).await?;
        ensure!(!Path::new(&format!("/proc/{vmm}")).exists(), "the VMM survives");
        gone(&launcher.dirs.shim_state("drive", POD)?).await?;
        gone(&launcher.dirs.pod_data("drive", POD)?).await
    })
    .await
}

/// The daemon's pid, found by its command line.
fn shim_pid(launcher: &ShimLauncher, pod: &str) -> Result<rustix::process::Pid> {
    let wanted = format!("-namespace\0{}\0-id\0{pod}\0", launcher.namespace);
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command.contains(&wanted) && command.ends_with("serve\0") {
            let pid = entry.file_name().to_string_lossy().parse()?;
            return rustix::process::Pid::from_raw(pid).context("no pid");
        }
    }
    bail!("no shim of {pod} runs")
}

const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, terminal: false };

struct Bench {
    place: PathBuf,
    image: PathBuf,
}

impl Bench {
    fn bundle(&self, name: &str, spec: &Value, annotations: &Value) -> Result<PathBuf> {
        let bundle = self.place.join("bundles").join(name);
        fs::create_dir_all(&bundle)?;
        let mut config = json!({
            "ociVersion": "1.2.0",
            "hostname": POD,
            "annotations": annotations.as_object().into_iter().flatten()
                .map(|(name, value)| (format!("io.kubernetes.cri.{name}"), value.clone()))
                .collect::<serde_json::Map<_, _>>(),
        });
        merge(&mut config, spec);
        fs::write(bundle.join("config.json"), config.to_string())?;
        Ok(bundle)
    }

    fn container(&self, name: &str, args: &[&str], more: &Value, terminal: bool) -> Result<PathBuf> {
        let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
        let mut spec = json!({
            "process": self.process(args, terminal),
            "root": { "path": "rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
            ],
            "linux": { "namespaces": namespaces },
        });
        merge(&mut spec, more);
        self.bundle(name, &spec, &json!({ "container-type": "container", "sandbox-id": POD }))
    }

    fn process(&self, args: &[&str], terminal: bool) -> Value {
        json!({
            "terminal": terminal,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin:/usr/bin"],
            "cwd": "/",
        })
    }

    fn task(&self, id: &str, bundle: &Path, stdio: Stdio) -> CreateTask {
        let image = RootfsImage { path: self.image.clone(), devices: Vec::new() };
        CreateTask { id: id.into(), bundle: bundle.into(), rootfs: vec![image], stdio }
    }

    /// Runs a container to its end; its exit code, output and errors.
    async fn run(&self, shim: &Shim, id: &str, args: &[&str], input: &[u8]) -> Result<(u32, Vec<u8>, Vec<u8>)> {
        let bundle = self.container(id, args, &json!({}), false)?;
        let fifos = Fifos::create(&self.place, id, ALL)?;
        shim.create(self.task(id, &bundle, fifos.stdio())).await?;
        let streams = fifos.into_streams()?;
        shim.start(id).await?;
        let (out, err) = talk(streams, input).await?;
        let code = shim.wait(id, None).await?.code;
        shim.delete(id, None).await?;
        Ok((code, out, err))
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Writes everything, ends the input, and reads both outputs to their ends.
async fn talk(streams: FifoStreams, input: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let FifoStreams { stdin, stdout, stderr } = streams;
    let (mut stdin, mut stdout, mut stderr) =
        (stdin.context("no stdin")?, stdout.context("no stdout")?, stderr.context("no stderr")?);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let write = async move {
        stdin.write_all(input).await?;
        drop(stdin);
        Ok(0)
    };
    tokio::try_join!(write, stdout.read_to_end(&mut out), stderr.read_to_end(&mut err))?;
    Ok((out, err))
}

async fn step(what: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    println!("{what}");
    let began = Instant::now();
    tokio::time::timeout(Duration::from_secs(300), work).await.context("not within 300 s")?.context(what.to_owned())?;
    println!("    ok, {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..3000 {
        if done() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{what}: not within a minute")
}

async fn gone(path: &Path) -> Result<()> {
    until(&format!("{} goes away", path.display()), || !path.exists()).await
}
