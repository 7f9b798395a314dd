//! The shim's binary as containerd and the client run it, without any VM.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use husk_client::{ConnectError, CreateTask, Dirs, Shim, ShimLauncher, TaskError};
use protobuf::Message;

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-husk-v2");
const POD: &str = "web";

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn launcher(&self) -> ShimLauncher {
        let dirs = Dirs { run: self.path().join("run"), root: self.path().join("root") };
        // No assets: a Create fails before anything is made.
        let env = vec![("HUSK_VMM".into(), self.path().join("no-vmm").into())];
        ShimLauncher { binary: SHIM.into(), namespace: "default".into(), dirs, env, debug: false }
    }

    fn bundle(&self, name: &str, annotations: &serde_json::Value) -> PathBuf {
        let bundle = self.path().join(name);
        fs::create_dir_all(&bundle).unwrap();
        let config = serde_json::json!({ "ociVersion": "1.2.0", "annotations": annotations });
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    fn sandbox(&self) -> PathBuf {
        self.bundle(POD, &serde_json::json!({ "io.kubernetes.cri.container-type": "sandbox" }))
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(SHIM)
            .args(["-namespace", "default"])
            .args(args)
            .env("HUSK_RUN", self.path().join("run"))
            .env("HUSK_ROOT", self.path().join("root"))
            .env_remove("TTRPC_ADDRESS")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }

    /// Whether no file of the pod's shim is left.
    async fn is_empty(&self) -> bool {
        let state = self.launcher().dirs.shim_state("default", POD).unwrap();
        for _ in 0..1000 {
            if !state.exists() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

async fn shut_down(shim: Shim, place: &Place) {
    shim.shutdown().await.unwrap();
    assert!(place.is_empty().await);
}

#[tokio::test]
async fn a_shim_without_tasks_ends_when_asked_and_leaves_nothing() {
    let place = Place::new();
    let launcher = place.launcher();
    let shim = launcher.launch(POD, &place.sandbox()).await.unwrap();
    assert_eq!(shim.inspect().await.unwrap().id, POD);
    assert!(matches!(shim.start(POD).await, Err(TaskError::NotFound(_))));
    shut_down(shim, &place).await;
    let gone = Shim::connect(&launcher.dirs, "default", POD).await;
    assert!(matches!(gone, Err(ConnectError::NotRunning { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_second_start_and_a_container_of_the_pod_find_the_same_shim() {
    let place = Place::new();
    let launcher = place.launcher();
    let first = launcher.launch(POD, &place.sandbox()).await.unwrap();
    let second = launcher.launch(POD, &place.sandbox()).await.unwrap();
    let annotations = serde_json::json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": POD,
    });
    let third = launcher.launch("app", &place.bundle("app", &annotations)).await.unwrap();
    let started = first.inspect().await.unwrap().started_at;
    assert_eq!(second.inspect().await.unwrap().started_at, started);
    assert_eq!(third.inspect().await.unwrap().started_at, started);
    shut_down(first, &place).await;
}

#[tokio::test]
async fn a_container_whose_pod_has_no_shim_is_refused() {
    let place = Place::new();
    let annotations = serde_json::json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": POD,
    });
    let error = place.launcher().launch("app", &place.bundle("app", &annotations)).await.unwrap_err();
    assert!(error.to_string().contains("the shim of its pod web does not listen"), "{error}");
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_made_says_why_and_may_be_tried_again() {
    let place = Place::new();
    let shim = place.launcher().launch(POD, &place.sandbox()).await.unwrap();
    for _ in 0..2 {
        let task = CreateTask { id: POD.into(), bundle: place.sandbox(), ..CreateTask::default() };
        let error = shim.create(task).await.unwrap_err().to_string();
        assert!(error.contains("no-vmm") && error.contains("HUSK_VMM"), "{error}");
    }
    assert!(matches!(shim.state(POD, None).await, Err(TaskError::NotFound(_))));
    shut_down(shim, &place).await;
}

#[tokio::test]
async fn a_container_needs_its_sandbox_first() {
    let place = Place::new();
    let shim = place.launcher().launch(POD, &place.sandbox()).await.unwrap();
    let annotations = serde_json::json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": POD,
    });
    let bundle = place.bundle("app", &annotations);
    let error = shim.create(CreateTask { id: "app".into(), bundle, ..CreateTask::default() }).await.unwrap_err();
    assert!(matches!(&error, TaskError::FailedPrecondition(text) if text.contains("sandbox")), "{error}");
    shut_down(shim, &place).await;
}

#[tokio::test]
async fn a_bundle_of_another_pod_is_refused() {
    let place = Place::new();
    let shim = place.launcher().launch(POD, &place.sandbox()).await.unwrap();
    let task = CreateTask { id: "other".into(), bundle: place.sandbox(), ..CreateTask::default() };
    assert!(matches!(shim.create(task).await, Err(TaskError::InvalidArgument(_))));
    shut_down(shim, &place).await;
}

#[test]
fn delete_cleans_what_never_was() {
    let place = Place::new();
    for _ in 0..2 {
        let output = place.run(&["-id", POD, "delete"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(DeleteResponse::parse_from_bytes(&output.stdout).unwrap().exit_status, 137);
    }
}

#[test]
fn an_id_that_is_a_path_is_refused() {
    let place = Place::new();
    let output = place.run(&["-id", "../web", "delete"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("pod id"), "{output:?}");
}

#[test]
fn questions_are_answered_without_a_pod() {
    let place = Place::new();
    let version = place.run(&["-v"]);
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    let info = place.run(&["-info"]);
    assert_eq!(RuntimeInfo::parse_from_bytes(&info.stdout).unwrap().name, "io.containerd.husk.v2");
}
