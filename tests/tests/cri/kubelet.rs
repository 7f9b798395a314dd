//! kubelet's client of CRI (k8s.io/cri-client `pkg/remote_runtime.go` and `pkg/remote_image.go`): a unix socket,
//! messages of up to 16 MiB, and answers that are errors although they say OK.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use husk_cri::api::image_service_client::ImageServiceClient;
use husk_cri::api::runtime_service_client::RuntimeServiceClient;
use husk_cri::api::*;
use husk_tests::fixture::deadline;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const MAX_MESSAGE: usize = 16 << 20;

/// Seconds of a real machine after which an answer is missed, beside what the request itself may take.
const PATIENCE: u32 = 15;

pub(crate) type Answer<T> = Result<T, Status>;

/// The client. A value that is cloned is the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Kubelet {
    tokio: Arc<Runtime>,
    channel: Channel,
}

impl Kubelet {
    /// Connects when the first request is made, as gRPC clients do.
    pub(crate) fn connect(socket: &Path) -> Self {
        let tokio = Runtime::new().unwrap();
        let socket = PathBuf::from(socket);
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let _entered = tokio.enter();
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self { channel, tokio: Arc::new(tokio) }
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    fn images_client(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    fn wait<T>(&self, call: impl Future<Output = Answer<tonic::Response<T>>>) -> Answer<T> {
        let until = tokio::time::Instant::from_std(deadline(PATIENCE));
        let answer = self.tokio.block_on(async { tokio::time::timeout_at(until, call).await });
        Ok(answer.expect("an answer of huskd within its deadline")?.into_inner())
    }

    pub(crate) fn version(&self) -> Answer<VersionResponse> {
        let said = self.wait(self.runtime().version(VersionRequest::default()))?;
        for field in [&said.version, &said.runtime_name, &said.runtime_version, &said.runtime_api_version] {
            assert!(!field.is_empty(), "kubelet refuses {said:?}");
        }
        Ok(said)
    }

    pub(crate) fn status(&self) -> StatusResponse {
        let said = self.wait(self.runtime().status(StatusRequest { verbose: false })).unwrap();
        let conditions = said.status.as_ref().map_or(0, |status| status.conditions.len());
        assert!(conditions >= 2, "kubelet refuses {said:?}");
        said
    }

    pub(crate) fn runtime_config(&self) -> RuntimeConfigResponse {
        self.wait(self.runtime().runtime_config(RuntimeConfigRequest {})).unwrap()
    }

    pub(crate) fn run_pod(&self, config: &PodSandboxConfig) -> Answer<String> {
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let id = self.wait(self.runtime().run_pod_sandbox(request))?.pod_sandbox_id;
        assert!(!id.is_empty(), "kubelet refuses a pod without id");
        Ok(id)
    }

    pub(crate) fn stop_pod(&self, id: &str) -> Answer<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.wait(self.runtime().stop_pod_sandbox(request)).map(drop)
    }

    pub(crate) fn remove_pod(&self, id: &str) -> Answer<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.wait(self.runtime().remove_pod_sandbox(request)).map(drop)
    }

    pub(crate) fn pod_status(&self, id: &str) -> Answer<PodSandboxStatus> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let status = self.wait(self.runtime().pod_sandbox_status(request))?.status.unwrap_or_default();
        let metadata = status.metadata.clone().unwrap_or_default();
        let told = [&status.id, &metadata.name, &metadata.namespace, &metadata.uid].iter().all(|text| !text.is_empty());
        assert!(told && status.created_at != 0, "kubelet refuses {status:?}");
        Ok(status)
    }

    /// What the pod's VM is, as told to people.
    pub(crate) fn pod_info(&self, id: &str) -> Value {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let said = self.wait(self.runtime().pod_sandbox_status(request)).unwrap();
        serde_json::from_str(&said.info["info"]).unwrap()
    }

    /// Unfiltered, as relists ask.
    pub(crate) fn pods(&self) -> Vec<PodSandbox> {
        self.wait(self.runtime().list_pod_sandbox(ListPodSandboxRequest::default())).unwrap().items
    }

    pub(crate) fn update_pod(&self, id: &str, resources: LinuxContainerResources) -> Answer<()> {
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            resources: Some(resources),
            overhead: None,
        };
        self.wait(self.runtime().update_pod_sandbox_resources(request)).map(drop)
    }

    pub(crate) fn create(&self, pod: &str, config: &ContainerConfig, of_pod: &PodSandboxConfig) -> Answer<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(of_pod.clone()),
        };
        let id = self.wait(self.runtime().create_container(request))?.container_id;
        assert!(!id.is_empty(), "kubelet refuses a container without id");
        Ok(id)
    }

    pub(crate) fn start(&self, id: &str) -> Answer<()> {
        let request = StartContainerRequest { container_id: id.to_owned() };
        self.wait(self.runtime().start_container(request)).map(drop)
    }

    /// `grace` in seconds.
    pub(crate) fn stop(&self, id: &str, grace: i64) -> Answer<()> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        self.wait(self.runtime().stop_container(request)).map(drop)
    }

    pub(crate) fn remove(&self, id: &str) -> Answer<()> {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        self.wait(self.runtime().remove_container(request)).map(drop)
    }

    pub(crate) fn container(&self, id: &str) -> Answer<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let status = self.wait(self.runtime().container_status(request))?.status.unwrap_or_default();
        let name = status.metadata.clone().unwrap_or_default().name;
        let image = status.image.clone().unwrap_or_default().image;
        let told = [&status.id, &name, &image, &status.image_ref].iter().all(|text| !text.is_empty());
        assert!(told && status.created_at != 0, "kubelet refuses {status:?}");
        Ok(status)
    }

    /// Unfiltered, as relists ask.
    pub(crate) fn containers(&self) -> Vec<Container> {
        self.wait(self.runtime().list_containers(ListContainersRequest::default())).unwrap().containers
    }

    pub(crate) fn update(&self, id: &str, resources: LinuxContainerResources) -> Answer<()> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..UpdateContainerResourcesRequest::default()
        };
        self.wait(self.runtime().update_container_resources(request)).map(drop)
    }

    pub(crate) fn reopen_log(&self, id: &str) -> Answer<()> {
        let request = ReopenContainerLogRequest { container_id: id.to_owned() };
        self.wait(self.runtime().reopen_container_log(request)).map(drop)
    }

    /// `timeout` in seconds; 0 is none.
    pub(crate) fn exec(&self, id: &str, command: &[&str], timeout: i64) -> Answer<ExecSyncResponse> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        self.wait(self.runtime().exec_sync(ExecSyncRequest { container_id: id.to_owned(), cmd, timeout }))
    }

    /// What a shell script writes that has to succeed, without the newline.
    pub(crate) fn sh(&self, id: &str, script: &str) -> String {
        let said = self.exec(id, &["sh", "-c", script], 0).unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert_eq!(said.exit_code, 0, "{script}: {stdout}{stderr}");
        stdout.trim_end().to_owned()
    }

    /// Events from now on; the stream ends with the connection.
    pub(crate) fn events(&self) -> Receiver<ContainerEventResponse> {
        let (tell, told) = mpsc::channel();
        let mut stream = self.wait(self.runtime().get_container_events(GetEventsRequest {})).unwrap();
        self.tokio.spawn(async move {
            while let Ok(Some(event)) = stream.message().await {
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        told
    }

    pub(crate) fn pull(&self, image: &str) -> Answer<String> {
        let request = PullImageRequest { image: Some(spec(image)), ..PullImageRequest::default() };
        let image_ref = self.wait(self.images_client().pull_image(request))?.image_ref;
        assert!(!image_ref.is_empty(), "kubelet refuses an image without reference");
        Ok(image_ref)
    }

    pub(crate) fn image(&self, image: &str) -> Option<Image> {
        let request = ImageStatusRequest { image: Some(spec(image)), verbose: false };
        let image = self.wait(self.images_client().image_status(request)).unwrap().image;
        if let Some(image) = &image {
            assert!(!image.id.is_empty() && image.size > 0, "kubelet refuses {image:?}");
        }
        image
    }

    pub(crate) fn images(&self) -> Vec<Image> {
        self.wait(self.images_client().list_images(ListImagesRequest::default())).unwrap().images
    }

    pub(crate) fn remove_image(&self, image: &str) -> Answer<()> {
        self.wait(self.images_client().remove_image(RemoveImageRequest { image: Some(spec(image)) })).map(drop)
    }

    pub(crate) fn image_fs(&self) -> FilesystemUsage {
        let said = self.wait(self.images_client().image_fs_info(ImageFsInfoRequest {})).unwrap();
        let usage = said.image_filesystems.first().cloned().expect("kubelet's eviction manager needs a file system");
        let mountpoint = usage.fs_id.clone().unwrap_or_default().mountpoint;
        assert!(usage.timestamp > 0 && Path::new(&mountpoint).is_dir(), "kubelet refuses {usage:?}");
        usage
    }
}

/// Asserts the code by which kubelet knows that something is not there.
pub(crate) fn is_not_found<T: std::fmt::Debug>(answer: Answer<T>) {
    assert_eq!(answer.unwrap_err().code(), Code::NotFound);
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..ImageSpec::default() }
}
