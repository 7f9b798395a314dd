//! Husk, driven through its shim: one pod for all containers, and one of its own for a case that says what the pod is.

use std::fs;
use std::path::{Path, PathBuf};

use husk_client::{CreateTask, Dirs, RootfsImage, Shim, ShimLauncher, Stdio, TaskError};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Case, Outcome, Root, spec};
use crate::fixture::{self, Husk};

/// That of `husk` itself, whose directories may stay when a pod has gone.
const NAMESPACE: &str = "husk";
const POD: &str = "pod";

/// A running pod, and how another one is made.
#[derive(Debug)]
pub struct HuskPod {
    runtime: Runtime,
    launcher: ShimLauncher,
    shim: Shim,
    image: PathBuf,
    place: PathBuf,
    // Last: it looks whether something was left.
    _husk: Husk,
}

impl HuskPod {
    /// Boots the pod.
    ///
    /// # Panics
    ///
    /// When it does not boot.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        let husk = Husk::new();
        let launcher = ShimLauncher {
            binary: fixture::prefix().join("bin/containerd-shim-husk-v2"),
            namespace: NAMESPACE.into(),
            dirs: Dirs { run: husk.run_dir().into(), root: husk.root().into() },
            env: Vec::new(),
            debug: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let place = root.place("husk");
        let annotations = json!({"io.kubernetes.cri.container-type": "sandbox"});
        let config = json!({"ociVersion": "1.0.2", "hostname": "parity", "annotations": annotations});
        let shim = runtime.block_on(start_pod(&launcher, POD, &bundle(&place, POD, &config)));
        Self { runtime, launcher, shim, image: root.image().to_owned(), place, _husk: husk }
    }

    /// Runs a case in the pod, or as one of its own.
    ///
    /// # Panics
    ///
    /// When the shim does not answer.
    #[must_use]
    pub fn run(&self, case: &Case) -> Outcome {
        let mut config = spec::config(case);
        if !case.alone {
            let kind = json!({"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": POD});
            spec::merge(&mut config, &json!({"annotations": kind}));
        }
        let bundle = bundle(&self.place, &case.name, &config);
        self.runtime.block_on(async {
            if !case.alone {
                return self.container(&self.shim, case, &config, &bundle).await;
            }
            let shim = self.launcher.launch(&case.name, &bundle).await.expect("a shim");
            let outcome = self.container(&shim, case, &config, &bundle).await;
            shim.shutdown().await.expect("the shim ends");
            outcome
        })
    }

    async fn container(&self, shim: &Shim, case: &Case, config: &Value, bundle: &Path) -> Outcome {
        let (id, log) = (case.name.as_str(), bundle.join("output"));
        let stdio = if case.exec.is_some() { Stdio::default() } else { to_file(&log) };
        let image = RootfsImage { path: self.image.clone(), devices: Vec::new() };
        let task = CreateTask { id: id.into(), bundle: bundle.into(), rootfs: vec![image], stdio };
        if let Err(error) = shim.create(task).await {
            return not_started(&error);
        }
        let outcome = match (shim.start(id).await, &case.exec) {
            (Err(error), _) => not_started(&error),
            (Ok(_), None) => ended(shim, id, None, &log).await,
            (Ok(_), Some(further)) => {
                exec(shim, id, &spec::process(config, &further.process, &further.script), &log).await
            }
        };
        drop(shim.kill(id, None, 9, true).await);
        drop(shim.wait(id, None).await);
        shim.delete(id, None).await.expect("a container that has ended is deleted");
        outcome
    }
}

impl Drop for HuskPod {
    fn drop(&mut self) {
        let shim = &self.shim;
        self.runtime.block_on(async {
            drop(shim.kill(POD, None, 15, false).await);
            drop(shim.wait(POD, None).await);
            drop(shim.delete(POD, None).await);
            drop(shim.shutdown().await);
        });
    }
}

async fn start_pod(launcher: &ShimLauncher, id: &str, bundle: &Path) -> Shim {
    let shim = launcher.launch(id, bundle).await.expect("a shim");
    let task = CreateTask { id: id.into(), bundle: bundle.into(), ..CreateTask::default() };
    shim.create(task).await.expect("a pod");
    shim.start(id).await.expect("a pod that runs");
    shim
}

async fn exec(shim: &Shim, id: &str, process: &Value, log: &Path) -> Outcome {
    const EXEC: &str = "exec";
    let process = serde_json::from_value(process.clone()).expect("a process");
    if let Err(error) = shim.exec(id, EXEC, &process, to_file(log)).await {
        return not_started(&error);
    }
    let outcome = match shim.start_exec(id, EXEC).await {
        Ok(_) => ended(shim, id, Some(EXEC), log).await,
        Err(error) => not_started(&error),
    };
    drop(shim.delete(id, Some(EXEC)).await);
    outcome
}

async fn ended(shim: &Shim, id: &str, exec: Option<&str>, log: &Path) -> Outcome {
    let code = shim.wait(id, exec).await.expect("an end").code;
    Outcome { output: fs::read_to_string(log).unwrap_or_default(), code: Some(code) }
}

fn not_started(error: &TaskError) -> Outcome {
    Outcome { output: error.to_string(), code: None }
}

fn to_file(path: &Path) -> Stdio {
    let file = Some(format!("file://{}", path.display()));
    Stdio { stdout: file.clone(), stderr: file, ..Stdio::default() }
}

fn bundle(place: &Path, name: &str, config: &Value) -> PathBuf {
    let bundle = place.join(name);
    fs::create_dir_all(&bundle).expect("a directory of ours");
    fs::write(bundle.join("config.json"), config.to_string()).expect("a file of ours");
    bundle
}
