//! Process namespaces in the modes of CRI, and clocks: specs as containerd writes them, in a pod of `husk`.

use std::fs;

use husk_client::{CreateTask, Dirs, RootfsImage, Shim, Stdio, TaskError};
use husk_tests::fixture::Husk;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A pod with a container `web` that runs `sleep 1234`, and its shim.
struct Pod {
    runtime: Runtime,
    shim: Shim,
    /// Of bundles.
    place: TempDir,
    // Looks when it goes whether something was left.
    husk: Husk,
    /// `web`'s.
    spec: Value,
    image: String,
    task: u32,
}

impl Pod {
    fn new() -> Self {
        let husk = Husk::new();
        let id = husk.ok(&["run", "-d", "--name", "web", "busybox", "sleep", "1234"]);
        let pod = fs::read_dir(husk.run_dir().join("pods")).unwrap().next().unwrap().unwrap().path();
        let record: Value = serde_json::from_slice(&fs::read(pod.join("pod.json")).unwrap()).unwrap();
        let bundle = pod.join("bundles").join(&id).join("config.json");
        let spec = serde_json::from_slice(&fs::read(bundle).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dirs = Dirs { run: husk.run_dir().into(), root: husk.root().into() };
        let shim = runtime.block_on(Shim::connect(&dirs, "husk", record["id"].as_str().unwrap())).unwrap();
        let task = runtime.block_on(shim.state(&id, None)).unwrap().pid;
        let image = record["containers"][0]["rootfs"].as_str().unwrap().to_owned();
        let place = tempfile::tempdir_in("/run").unwrap();
        Self { runtime, shim, place, husk, spec, image, task }
    }

    /// The pod's own task.
    fn sandbox(&self) -> u32 {
        self.runtime.block_on(self.shim.state(self.shim.pod(), None)).unwrap().pid
    }

    /// Starts a container like `web`, with another process namespace and other parts of `linux`.
    fn start(&self, id: &str, pids: Option<Value>, linux: &Value, script: &str) -> Result<u32, TaskError> {
        let bundle = self.place.path().join(id);
        fs::create_dir_all(&bundle).unwrap();
        let mut spec = self.spec.clone();
        spec["process"]["args"] = json!(["sh", "-c", script]);
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        namespaces.extend(pids);
        namespaces.extend(linux["namespaces"].as_array().cloned().unwrap_or_default());
        if let Some(offsets) = linux.get("timeOffsets") {
            spec["linux"]["timeOffsets"] = offsets.clone();
        }
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        let file = Some(format!("file://{}", bundle.join("output").display()));
        let stdio = Stdio { stdout: file.clone(), stderr: file, ..Stdio::default() };
        let image = RootfsImage { path: self.image.clone().into(), devices: Vec::new() };
        let task = CreateTask { id: id.into(), bundle, rootfs: vec![image], stdio };
        self.runtime.block_on(async {
            self.shim.create(task).await?;
            self.shim.start(id).await
        })
    }

    /// What it wrote, when it has ended.
    fn output(&self, id: &str) -> String {
        self.runtime.block_on(async {
            self.shim.wait(id, None).await.unwrap();
            self.shim.delete(id, None).await.unwrap();
        });
        fs::read_to_string(self.place.path().join(id).join("output")).unwrap()
    }

    fn run(&self, id: &str, pids: Option<Value>, script: &str) -> String {
        self.start(id, pids, &json!({}), script).unwrap();
        self.output(id)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.husk.ok(&["rm", "-f", "web"]);
    }
}

fn joined(task: u32) -> Option<Value> {
    Some(json!({"type": "pid", "path": format!("/proc/{task}/ns/pid")}))
}

#[test]
fn processes_are_numbered_as_the_mode_says() {
    const LIST: &str = "echo $$; ps -o args";
    let pod = Pod::new();
    // CONTAINER
    let own = pod.run("own", Some(json!({"type": "pid"})), LIST);
    assert!(own.starts_with("1\n") && !own.contains("sleep"), "{own}");
    // TARGET
    let target = pod.run("target", joined(pod.task), LIST);
    assert!(!target.starts_with("1\n") && target.contains("sleep 1234"), "{target}");
    // NODE
    let node = pod.run("node", None, LIST);
    assert!(node.contains("/init") && node.contains("sleep 1234"), "{node}");
    // POD: those that ask for it share one, which `web` is not in.
    pod.start("first", joined(pod.sandbox()), &json!({}), "sleep 5678 & sleep 3").unwrap();
    let second = pod.run("second", joined(pod.sandbox()), LIST);
    assert!(second.contains("sleep 5678") && !second.contains("sleep 1234"), "{second}");
    pod.output("first");

    for path in ["/proc/999999/ns/pid", "/proc/self/ns/pid", "/var/run/pidns/x"] {
        let pids = Some(json!({"type": "pid", "path": path}));
        let error = pod.start("stranger", pids, &json!({}), LIST).unwrap_err().to_string();
        assert!(error.contains("linux.namespaces[pid]") && error.contains(path), "{error}");
    }
    // With the target its namespace ends.
    pod.start("looker", joined(pod.task), &json!({}), "sleep 1000").unwrap();
    pod.husk.ok(&["kill", "web"]);
    assert_eq!(pod.output("looker"), "");
}

#[test]
fn clocks_of_its_own_begin_elsewhere() {
    let pod = Pod::new();
    let pids = || Some(json!({"type": "pid"}));
    let linux = |offsets: Value| json!({"namespaces": [{"type": "time"}], "timeOffsets": offsets});
    let days = linux(json!({"monotonic": {"secs": 864_000}, "boottime": {"secs": 8_640_000, "nanosecs": 5}}));
    let script = "cut -d . -f 1 /proc/uptime; cat /proc/self/timens_offsets; readlink /proc/self/ns/time";
    pod.start("later", pids(), &days, script).unwrap();
    let later = pod.output("later");
    let lines: Vec<_> = later.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!((8_640_000..8_650_000).contains(&lines[0].parse::<u64>().unwrap()), "{later}");
    assert_eq!(lines[1..3], ["monotonic 864000 0", "boottime 8640000 5"]);
    // The guest's own is another one, and goes on as it did.
    assert_ne!(pod.husk.sh("web", "readlink /proc/self/ns/time"), lines[3]);
    assert!(pod.husk.sh("web", "cut -d . -f 1 /proc/uptime").parse::<u64>().unwrap() < 100_000);

    // A further process has its container's.
    pod.start("long", pids(), &days, "sleep 1000").unwrap();
    let mut process = pod.spec["process"].clone();
    process["args"] = json!(["cut", "-d", ".", "-f", "1", "/proc/uptime"]);
    let process = serde_json::from_value(process).unwrap();
    let log = pod.place.path().join("uptime");
    let stdio = Stdio { stdout: Some(format!("file://{}", log.display())), ..Stdio::default() };
    pod.runtime.block_on(async {
        pod.shim.exec("long", "further", &process, stdio).await.unwrap();
        pod.shim.start_exec("long", "further").await.unwrap();
        assert_eq!(pod.shim.wait("long", Some("further")).await.unwrap().code, 0);
        pod.shim.delete("long", Some("further")).await.unwrap();
        pod.shim.kill("long", None, 9, true).await.unwrap();
    });
    assert!(fs::read_to_string(log).unwrap().trim().parse::<u64>().unwrap() >= 8_640_000);
    pod.output("long");

    // No clock may show a negative time.
    let past = linux(json!({"boottime": {"secs": -1_000_000}}));
    let error = pod.start("never", pids(), &past, "true").unwrap_err().to_string();
    assert!(error.contains("boottime -1000000"), "{error}");
}
