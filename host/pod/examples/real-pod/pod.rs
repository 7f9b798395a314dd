//! A pod with little ceremony.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use husk_pod::{
    Assets, Deadlines, DiskImage, ExitStatus, Placement, Pod, PodConfig, ProcessStreams, StdioWanted, teardown,
};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What one check has: a name of its own for its pod.
#[derive(Clone)]
pub(crate) struct Bench {
    id: String,
    root: PathBuf,
    image: PathBuf,
    pod: Arc<Mutex<Option<Arc<Pod>>>>,
}

static NUMBER: AtomicU32 = AtomicU32::new(1);

impl Bench {
    pub(crate) fn new(image: &Path) -> Self {
        let root = std::env::var_os("HUSK_ROOT").map_or("/var/lib/husk".into(), PathBuf::from);
        let id = format!("check-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { id, root, image: image.to_owned(), pod: Arc::default() }
    }

    fn state_dir(&self) -> PathBuf {
        Path::new("/run/husk/shim/real-pod").join(&self.id)
    }

    fn data_dir(&self) -> PathBuf {
        self.root.join("pods/real-pod").join(&self.id)
    }

    pub(crate) fn config(&self, sandbox: Value) -> Outcome<PodConfig> {
        let spec = spec(sandbox);
        Ok(PodConfig {
            namespace: "real-pod".into(),
            id: self.id.clone(),
            state_dir: self.state_dir(),
            data_dir: self.data_dir(),
            scratch_template_dir: self.root.join("scratch"),
            scratch_bytes: 1 << 30,
            cgroup: Placement::of_pod(&spec, "real-pod", &self.id)?,
            spec,
            assets: Assets::find()?,
            single_container: false,
            deadlines: Deadlines::from_env(),
        })
    }

    pub(crate) async fn start(&self, sandbox: Value) -> Outcome<Arc<Pod>> {
        let pod = Pod::start(self.config(sandbox)?).await?;
        *self.pod.lock().unwrap() = Some(Arc::clone(&pod));
        Ok(pod)
    }

    /// A writable ext4 image that outlives pods.
    pub(crate) fn disk(&self) -> Outcome<PathBuf> {
        let path = self.root.join(format!("{}.disk.img", self.id));
        std::fs::File::create(&path)?.set_len(64 << 20)?;
        let status = std::process::Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&path).status()?;
        if status.success() { Ok(path) } else { Err(format!("mkfs.ext4: {status}").into()) }
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.data_dir().join("scratch.img")
    }

    pub(crate) fn rootfs(&self) -> Vec<DiskImage> {
        vec![self.image.clone().into()]
    }

    /// Stops the pod and looks for what it left.
    pub(crate) async fn finish(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let pod = self.pod.lock().unwrap().take();
        if let Some(pod) = pod {
            pod.stop(Duration::from_secs(20)).await;
            let end = pod.ended().await;
            if !end.is_orderly() {
                complaints.push(format!("the VM did not end in good order: {end}"));
            }
        }
        for left in [self.state_dir().join("vsock.sock"), self.data_dir().join("scratch.img"), self.cgroup()] {
            if left.exists() {
                complaints.push(format!("{} is left", left.display()));
            }
        }
        complaints
    }

    /// The VM's end is not to be judged.
    pub(crate) fn forgive(&self) {
        self.pod.lock().unwrap().take();
    }

    fn cgroup(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/cgroup/husk/real-pod-{}", self.id))
    }

    pub(crate) fn logs(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.state_dir().join(name)).unwrap_or_default();
        format!("--- VMM\n{}--- console\n{}---", read("vmm.log"), read("console.log"))
    }

    pub(crate) fn remove(&self) -> Outcome {
        Ok(teardown("real-pod", &self.id, &self.state_dir(), &self.data_dir())?)
    }
}

/// The members of a spec over those of an ordinary container.
pub(crate) fn spec(members: Value) -> Spec {
    let capabilities = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]);
    let mut json = json!({
        "ociVersion": "1.1.0",
        "root": {"path": "rootfs"},
        "hostname": "real-pod",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["sleep", "1000"], "cwd": "/", "noNewPrivileges": true,
            "env": ["PATH=/bin:/sbin:/usr/bin", "HOME=/root"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities}
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
            {"destination": "/dev/shm", "type": "husk.shm", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/etc/hosts", "type": "husk.pod-file", "source": "hosts"},
            {"destination": "/etc/hostname", "type": "husk.pod-file", "source": "hostname"},
            {"destination": "/etc/resolv.conf", "type": "husk.pod-file", "source": "resolv.conf"}
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"}
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    });
    merge(&mut json, members);
    serde_json::from_value(json).unwrap()
}

/// Objects member by member, lists appended, the rest replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) if into.first().is_some_and(Value::is_object) => into.extend(from),
        (into, from) => *into = from,
    }
}

pub(crate) fn shell(script: &str) -> Value {
    json!({"process": {"args": ["sh", "-c", script]}})
}

pub(crate) fn process(script: &str) -> Process {
    spec(shell(script)).process().clone().unwrap()
}

pub(crate) const OUTPUT: StdioWanted = StdioWanted { stdin: false, stdout: true, stderr: true, terminal: false };
pub(crate) const NONE: StdioWanted = StdioWanted { stdin: false, stdout: false, stderr: false, terminal: false };

/// What a process wrote, and its end.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: ExitStatus,
}

/// Runs a container to its end and removes it.
pub(crate) async fn run(bench: &Bench, pod: &Arc<Pod>, id: &str, members: Value) -> Outcome<Ran> {
    let (_, streams) = pod.create_container(id, &spec(members), &bench.rootfs(), OUTPUT).await?;
    pod.start_container(id).await?;
    let (stdout, stderr) = read_all(streams).await?;
    let exit = pod.wait(id, None).await?;
    pod.remove_container(id).await?;
    Ok(Ran { stdout, stderr, exit })
}

/// Starts a container that stays.
pub(crate) async fn keep(bench: &Bench, pod: &Arc<Pod>, id: &str, members: Value) -> Outcome {
    pod.create_container(id, &spec(members), &bench.rootfs(), NONE).await?;
    Ok(pod.start_container(id).await?)
}

pub(crate) async fn exec(pod: &Arc<Pod>, id: &str, exec: &str, script: &str) -> Outcome<Ran> {
    let (_, streams) = pod.exec(id, exec, &process(script), OUTPUT).await?;
    let (stdout, stderr) = read_all(streams).await?;
    let exit = pod.wait(id, Some(exec)).await?;
    pod.remove_exec(id, exec)?;
    Ok(Ran { stdout, stderr, exit })
}

pub(crate) async fn read_all(streams: ProcessStreams) -> Outcome<(String, String)> {
    let read = |stream: Option<husk_pod::Stream>| async move {
        let mut text = String::new();
        if let Some(mut stream) = stream {
            stream.read_to_string(&mut text).await?;
        }
        Ok::<_, std::io::Error>(text)
    };
    let (stdout, stderr) = tokio::try_join!(read(streams.stdout), read(streams.stderr))?;
    Ok((stdout, stderr))
}

/// Writes all of it and closes.
pub(crate) async fn feed(mut stdin: husk_pod::Stream, bytes: Vec<u8>) -> Outcome {
    stdin.write_all(&bytes).await?;
    Ok(stdin.shutdown().await?)
}
