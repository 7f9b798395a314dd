//! ImageService: Kubernetes' view of the images of this host.
//!
//! The store does the work; here are CRI's rules: `view` shows an image as CRI does, `failure` says which code kubelet
//! wants for what. Nothing is remembered here, so whatever `husk` does to the same store is seen at once.

mod failure;
mod view;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::Stream;
use husk_image::credentials::{self, Keychain};
use husk_image::{LookupError, PullOptions, Reference, Silent, Store};
use tonic::{Request, Response, Status};

use crate::api::image_service_server::{ImageService, ImageServiceServer};
use crate::api::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, Image, ImageFilter, ImageFsInfoRequest, ImageFsInfoResponse,
    ImageSpec, ImageStatusRequest, ImageStatusResponse, ListImagesRequest, ListImagesResponse, PullImageRequest,
    PullImageResponse, RemoveImageRequest, RemoveImageResponse, StreamImagesRequest, StreamImagesResponse, UInt64Value,
};
use crate::config::Config;
use crate::daemon::MAX_MESSAGE;

/// Images in one message of a stream.
const STREAMED: usize = 100;

/// The service over one store.
#[derive(Debug)]
pub struct ImageServer {
    store: Store,
    registry_config: PathBuf,
    handlers: Vec<String>,
}

/// Ready to be added to a server.
#[must_use]
pub fn service(store: Store, config: &Config) -> ImageServiceServer<ImageServer> {
    ImageServiceServer::new(ImageServer::new(store, config))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

impl ImageServer {
    /// Pulls from the registries that `config` describes, for the handlers that it has.
    #[must_use]
    pub fn new(store: Store, config: &Config) -> Self {
        Self {
            store,
            registry_config: config.registry_config_dir.clone(),
            handlers: config.handler_names().into_iter().map(str::to_owned).collect(),
        }
    }

    /// Asks the store, which reads and locks files, on a thread that may wait.
    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Store) -> T + Send + 'static) -> Result<T, Status> {
        let store = self.store.clone();
        let answer = tokio::task::spawn_blocking(move || question(&store)).await;
        answer.map_err(|_| Status::aborted("the image store was not asked to the end: huskd is ending; try again"))
    }

    async fn images(&self, filter: Option<ImageFilter>) -> Result<Vec<Image>, Status> {
        let wanted = name(filter.and_then(|filter| filter.image).as_ref()).to_owned();
        let found = self.ask(move |store| match wanted.as_str() {
            "" => Ok(store.list()?),
            name => Ok(known(store.summary(name))?.into_iter().collect()),
        });
        let found = found.await?.map_err(|error: LookupError| failure::lookup(&error))?;
        Ok(found.into_iter().map(view::image).collect())
    }

    /// How to pull for this request. Credentials come from it alone: those of the host's users are not for pods.
    fn options(&self, auth: Option<AuthConfig>, reference: &Reference) -> Result<PullOptions, Status> {
        let keychain = match auth {
            None => Keychain::Empty,
            Some(auth) => {
                let given = credentials::AuthConfig {
                    username: auth.username,
                    password: auth.password.into(),
                    auth: auth.auth.into(),
                    server_address: auth.server_address,
                    identity_token: auth.identity_token.into(),
                    registry_token: auth.registry_token.into(),
                };
                // What it says of the credentials has none of them in it.
                Keychain::given(&given, reference).map_err(|error| Status::invalid_argument(error.to_string()))?
            }
        };
        Ok(PullOptions { registry_config: self.registry_config.clone(), keychain, ..PullOptions::default() })
    }
}

/// What an image is called in a request; `image_ref` is the id that it had when a pod got it.
fn name(spec: Option<&ImageSpec>) -> &str {
    spec.map_or("", |spec| if spec.image.is_empty() { &spec.image_ref } else { &spec.image })
}

/// For CRI, that an image is not there is no error. Nor is one there that has lost a file:
/// it shall be pulled again, which mends it.
fn known<T>(found: Result<T, LookupError>) -> Result<Option<T>, LookupError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(LookupError::Unknown(_) | LookupError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[async_trait::async_trait]
impl ImageService for ImageServer {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        let images = self.images(request.into_inner().filter).await?;
        Ok(Response::new(ListImagesResponse { images }))
    }

    type StreamImagesStream = Pin<Box<dyn Stream<Item = Result<StreamImagesResponse, Status>> + Send>>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.images(request.into_inner().filter).await?;
        let chunks: Vec<_> =
            images.chunks(STREAMED).map(|images| Ok(StreamImagesResponse { images: images.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let ImageStatusRequest { image, verbose } = request.into_inner();
        let wanted = name(image.as_ref()).to_owned();
        let found = self.ask(move |store| {
            let Some(summary) = known(store.summary(&wanted))? else { return Ok(None) };
            let info = verbose.then(|| known(store.get(&summary.id.to_string()))).transpose()?.flatten();
            Ok(Some((summary, info)))
        });
        let found = found.await?.map_err(|error| failure::lookup(&error))?;
        let Some((summary, image)) = found else { return Ok(Response::new(ImageStatusResponse::default())) };
        let info = image.map(|image| view::info(&image)).transpose()?.unwrap_or_default();
        Ok(Response::new(ImageStatusResponse { image: Some(view::image(summary)), info }))
    }

    /// When the client gives up, this future is dropped and the pull ends. What several clients want at a time is fetched
    /// once, and goes on for those who still want it.
    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        let PullImageRequest { image: spec, auth, sandbox_config: _ } = request.into_inner();
        let handler = spec.as_ref().map_or("", |spec| &spec.runtime_handler);
        if !self.handlers.iter().any(|known| known == handler) {
            return Err(Status::invalid_argument(format!(
                "there is no handler {handler:?}: see [handlers] in huskd's configuration"
            )));
        }
        let reference: Reference = name(spec.as_ref()).parse().map_err(|error| failure::reference(&error))?;
        let options = self.options(auth, &reference)?;
        let image =
            self.store.pull(&reference, &options, Arc::new(Silent)).await.map_err(|error| failure::pull(&error))?;
        tracing::info!(image = %reference, id = %image.id, "pulled");
        Ok(Response::new(PullImageResponse { image_ref: image.id.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let wanted = name(request.into_inner().image.as_ref()).to_owned();
        if wanted.is_empty() {
            return Err(Status::invalid_argument("no image is named"));
        }
        let removed = self.ask(move |store| known(store.retire(&wanted))).await?;
        if let Some(removed) = removed.map_err(|error| failure::lookup(&error))? {
            let id = removed.deleted.map(|id| id.to_string());
            tracing::info!(names = ?removed.untagged, in_use = id.is_none(), id, "removed");
        }
        Ok(Response::new(RemoveImageResponse {}))
    }

    /// Writable layers of containers have no file system of their own in kubelet's sense, so both lists are the same.
    async fn image_fs_info(
        &self,
        _request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let usage = self.ask(Store::usage).await?.map_err(|error| failure::store(&error))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let usage = FilesystemUsage {
            timestamp: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
            fs_id: Some(FilesystemIdentifier { mountpoint: self.store.root().to_string_lossy().into_owned() }),
            used_bytes: Some(UInt64Value { value: usage.bytes }),
            inodes_used: Some(UInt64Value { value: usage.inodes }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}
