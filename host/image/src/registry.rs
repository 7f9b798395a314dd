//! Fetching from registries over the OCI distribution API. `oci-client` knows the protocol and its
//! authentication; here are the choice of hosts, the bounds, and trying again.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as OciReference, RegistryOperation};
use thiserror::Error;

use crate::Limits;
use crate::credentials::{Credentials, CredentialsError};
use crate::digest::Hasher;
use crate::error::{BlobProblem, ContentError};
use crate::hosts::{self, Host, HostsError};
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::store::PullOptions;
use crate::verify::{self, Blob, Document, Layer, MANIFEST_TYPES, Manifest};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A registry that sends nothing for so long is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a host is tried when it fails in a way that may pass.
const ATTEMPTS: u32 = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(300);
const USER_AGENT: &str = concat!("husk/", env!("CARGO_PKG_VERSION"));

/// A registry that did not give what was asked for.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The configuration of hosts.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// Who asks.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A client cannot be set up.
    #[error("a client for {host} cannot be set up: {cause}; see the certificates named in its hosts.toml")]
    Client {
        /// The host.
        host: String,
        /// Why not.
        cause: String,
    },
    /// No host has the image or may be asked for it.
    #[error(
        "image {image} was not found ({tried}): see that the name and tag are right; for a private image log in first (`husk login`)"
    )]
    NotFound {
        /// The image as the user names it.
        image: String,
        /// Which host said what.
        tried: String,
    },
    /// No host answered as it should.
    #[error("image {image} cannot be fetched ({tried}): see that the network and the registry work, and try again")]
    Unavailable {
        /// The image as the user names it.
        image: String,
        /// Which host said what.
        tried: String,
    },
    /// What came is refused.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// One host's failure.
struct Failure {
    host: String,
    cause: String,
    /// The host answered: the image is not there, or not for us.
    absent: bool,
    /// Trying again may help.
    passing: bool,
}

/// How one request ended.
enum Ended {
    Failed(Failure),
    Refused(ContentError),
}

/// What a registry said to credentials.
pub(crate) enum Answer {
    Taken,
    Refused(String),
    Unavailable(String),
}

pub(crate) struct Endpoint {
    host: Host,
    client: Client,
    http: reqwest::Client,
    auth: RegistryAuth,
    reference: OciReference,
}

/// The hosts that may have one image.
pub(crate) struct Registry {
    image: String,
    reference: Reference,
    endpoints: Vec<Endpoint>,
    limits: Limits,
}

impl Registry {
    pub(crate) async fn new(reference: &Reference, options: &PullOptions) -> Result<Self, RegistryError> {
        // The first provider of a process stays; a second one is no fault.
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        let mut endpoints = Vec::new();
        for host in hosts::hosts(&options.registry_config, reference.registry())? {
            let credentials = options.keychain.of(&host.authority, reference.repository()).await?;
            endpoints.push(Endpoint::new(host, &credentials, reference)?);
        }
        Ok(Self { image: reference.familiar(), reference: reference.clone(), endpoints, limits: options.limits })
    }

    /// The manifest for this machine: of an index, the one it names.
    pub(crate) async fn manifest(&self) -> Result<Manifest, RegistryError> {
        let mut wanted = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let mut expected = self.reference.digest();
        // An index names manifests; one that names another index is not an image's.
        for _ in 0..2 {
            let what = wanted.as_str();
            let bytes = self.ask(|host| host.resolve, |endpoint| endpoint.manifest(what, &self.limits)).await?;
            match verify::document(&self.image, bytes, expected, &self.limits)? {
                Document::Manifest(manifest) => return Ok(manifest),
                Document::Index(blob) => {
                    wanted = blob.digest.to_string();
                    expected = Some(blob.digest);
                }
            }
        }
        let problem = crate::DocumentProblem::MediaType("index within an index".to_owned());
        Err(verify::refuse(&self.image, "manifest")(problem).into())
    }

    /// The config. Its digest is checked where it is put together with the manifest.
    pub(crate) async fn config(&self, blob: Blob) -> Result<Vec<u8>, RegistryError> {
        self.ask(
            |host| host.pull,
            |endpoint| async move {
                let mut bytes = Vec::new();
                endpoint
                    .blob(blob, &mut |piece| {
                        bytes.extend(piece);
                        Ok(())
                    })
                    .await
                    .map_err(Ended::Failed)?;
                Ok(bytes)
            },
        )
        .await
    }

    pub(crate) async fn blob(
        &self,
        blob: Blob,
        sink: &tokio::sync::mpsc::Sender<bytes::Bytes>,
    ) -> Result<(), RegistryError> {
        use std::io::{Read as _, Seek as _};
        let layer = Layer { digest: blob.digest, blob: true, size: blob.size, diff_id: blob.digest };
        let mut file = self.layer(&layer, Path::new("/tmp"), &crate::Silent).await?;
        let mut all = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut all)).unwrap_or_default();
        for piece in all.chunks(16384) {
            if sink.send(bytes::Bytes::copy_from_slice(piece)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// A layer, verified, in a nameless file on the file system of `dir`.
    pub(crate) async fn layer(
        &self,
        layer: &Layer,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<File, RegistryError> {
        let fetched = self.ask(|host| host.pull, |endpoint| self.layer_from(endpoint, layer, dir, progress));
        fetched.await
    }

    async fn layer_from(
        &self,
        endpoint: &Endpoint,
        layer: &Layer,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<File, Ended> {
        let refused = |problem| {
            Ended::Refused(ContentError::Layer {
                image: self.image.clone(),
                layer: layer.digest,
                problem: Box::new(problem),
            })
        };
        let host =
            |cause| Ended::Refused(ContentError::Host { image: self.image.clone(), what: "keeping a layer", cause });
        let mut file = tempfile::tempfile_in(dir).map_err(host)?;
        let mut hasher = Hasher::default();
        let name = layer.digest.to_string();
        let (mut done, mut trouble) = (0, None);
        progress.event(Event::Layer { digest: &name, done, total: layer.size });
        let fetched = endpoint
            .blob(Blob { digest: layer.digest, size: layer.size }, &mut |piece| {
                done += piece.len() as u64;
                hasher.update(piece);
                progress.event(Event::Layer { digest: &name, done, total: layer.size });
                file.write_all(piece).map_err(|error| trouble = Some(error))
            })
            .await;
        if let Some(error) = trouble {
            return Err(host(error));
        }
        if done > layer.size {
            return Err(refused(BlobProblem::Size { expected: layer.size, actual: done }));
        }
        fetched.map_err(Ended::Failed)?;
        if done != layer.size {
            return Err(refused(BlobProblem::Size { expected: layer.size, actual: done }));
        }
        let actual = hasher.finish();
        if actual == layer.digest { Ok(file) } else { Err(refused(BlobProblem::Digest { actual })) }
    }

    /// Asks one host after the other, each a few times if its trouble may pass.
    async fn ask<'a, T, F: Future<Output = Result<T, Ended>>>(
        &'a self,
        may: impl Fn(&Host) -> bool,
        request: impl Fn(&'a Endpoint) -> F,
    ) -> Result<T, RegistryError> {
        let mut failures: Vec<Failure> = Vec::new();
        for endpoint in self.endpoints.iter().filter(|endpoint| may(&endpoint.host)) {
            let mut backoff = FIRST_BACKOFF;
            for attempt in 1..=ATTEMPTS {
                match request(endpoint).await {
                    Ok(answer) => return Ok(answer),
                    Err(Ended::Refused(error)) => return Err(error.into()),
                    Err(Ended::Failed(failure)) if failure.passing && attempt < ATTEMPTS => {
                        tracing::debug!(host = failure.host, cause = failure.cause, "trying again");
                        tokio::time::sleep(backoff).await;
                        backoff *= 3;
                    }
                    Err(Ended::Failed(failure)) => {
                        failures.push(failure);
                        break;
                    }
                }
            }
        }
        let absent = !failures.is_empty() && failures.iter().all(|failure| failure.absent);
        let tried: Vec<String> =
            failures.into_iter().map(|failure| format!("{}: {}", failure.host, failure.cause)).collect();
        let tried = if tried.is_empty() { "no host may be asked for it".to_owned() } else { tried.join("; ") };
        let image = self.image.clone();
        Err(if absent { RegistryError::NotFound { image, tried } } else { RegistryError::Unavailable { image, tried } })
    }
}

impl Endpoint {
    pub(crate) fn new(host: Host, credentials: &Credentials, reference: &Reference) -> Result<Self, RegistryError> {
        let failed = |cause: &dyn std::fmt::Display| RegistryError::Client {
            host: host.authority.clone(),
            cause: cause.to_string(),
        };
        let certificate = |data: &Vec<u8>| Certificate { encoding: CertificateEncoding::Pem, data: data.clone() };
        let config = ClientConfig {
            protocol: if host.plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
            accept_invalid_certificates: host.skip_verify,
            extra_root_certificates: host.ca.iter().map(certificate).collect(),
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| failed(&error))?;
        let mut http = reqwest::Client::builder()
            .danger_accept_invalid_certs(host.skip_verify)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(USER_AGENT);
        for pem in &host.ca {
            http = http.add_root_certificate(reqwest::Certificate::from_pem(pem).map_err(|error| failed(&error))?);
        }
        let http = http.build().map_err(|error| failed(&error))?;
        let mut reference = reference.oci().clone();
        // A mirror is told which registry it stands in for.
        if host.authority != reference.resolve_registry() {
            reference.set_mirror_registry(host.authority.clone());
        }
        Ok(Self { host, client, http, auth: credentials.for_client(), reference })
    }

    fn failed(&self, cause: String, absent: bool, passing: bool) -> Failure {
        Failure { host: self.host.authority.clone(), cause, absent, passing }
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.host.plain_http { "http" } else { "https" };
        format!("{scheme}://{}/v2/{path}", self.host.authority)
    }

    /// A request with the host's own token, or name and password.
    async fn signed(&self, request: reqwest::RequestBuilder) -> Result<reqwest::RequestBuilder, Failure> {
        let token = self.client.auth(&self.reference, &self.auth, RegistryOperation::Pull).await;
        Ok(match (token.map_err(|error| self.client_failure(&error))?, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            // The client has found out that names and passwords are what is wanted.
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, _) => request,
        })
    }

    /// Shows the host who asks.
    pub(crate) async fn log_in(&self) -> Answer {
        let request = match self.signed(self.http.get(self.url(""))).await {
            Ok(request) => request,
            Err(failure) if failure.absent => return Answer::Refused(failure.cause),
            Err(failure) => return Answer::Unavailable(failure.cause),
        };
        match request.send().await.map(|response| response.status()) {
            Ok(status) if status.is_success() => Answer::Taken,
            Ok(status) if matches!(status.as_u16(), 401 | 403) => Answer::Refused(format!("HTTP {status}")),
            Ok(status) => Answer::Unavailable(format!("HTTP {status}")),
            Err(error) => Answer::Unavailable(chain(&error)),
        }
    }

    /// A manifest's or index's bytes. Not through `oci-client`, which would read a document of any
    /// length into memory.
    async fn manifest(&self, what: &str, limits: &Limits) -> Result<Vec<u8>, Ended> {
        let url = self.url(&format!("{}/manifests/{what}", self.reference.repository()));
        let request = self.http.get(url).header("Accept", MANIFEST_TYPES.join(", "));
        let mut request = self.signed(request).await.map_err(Ended::Failed)?;
        if let Some(namespace) = self.reference.namespace() {
            request = request.query(&[("ns", namespace)]);
        }
        let passing = |error: reqwest::Error| Ended::Failed(self.failed(chain(&error), false, true));
        let mut response = request.send().await.map_err(passing)?;
        let status = response.status();
        if !status.is_success() {
            let absent = matches!(status.as_u16(), 401 | 403 | 404);
            return Err(Ended::Failed(self.failed(format!("HTTP {status}"), absent, is_passing(status.as_u16()))));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(passing)? {
            bytes.extend(&piece);
            // One byte too many is enough for the check that follows to refuse it.
            if bytes.len() as u64 > limits.document_bytes {
                break;
            }
        }
        Ok(bytes)
    }

    /// A blob, in pieces. Ends early when the piece is not wanted or the blob grows beyond its
    /// size: the caller, who counts, tells why.
    async fn blob(&self, blob: Blob, piece: &mut (dyn FnMut(&[u8]) -> Result<(), ()> + Send)) -> Result<(), Failure> {
        self.client.store_auth_if_needed(self.reference.resolve_registry(), &self.auth).await;
        let digest = blob.digest.to_string();
        let response = self.client.pull_blob_stream(&self.reference, digest.as_str()).await;
        let mut stream = response.map_err(|error| self.client_failure(&error))?.stream;
        let mut done = 0_u64;
        while let Some(next) = stream.next().await {
            let bytes = match next {
                Ok(bytes) => bytes,
                // All bytes came, and they are not the right ones: the caller says so.
                Err(_) if done == blob.size => return Ok(()),
                Err(error) => return Err(self.failed(chain(&error), false, true)),
            };
            done += bytes.len() as u64;
            if piece(&bytes).is_err() || done > blob.size {
                return Ok(());
            }
        }
        Ok(())
    }

    fn client_failure(&self, error: &OciDistributionError) -> Failure {
        let (absent, passing) = match error {
            OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => (false, true),
            OciDistributionError::ServerError { code, .. } => (matches!(code, 401 | 403 | 404), is_passing(*code)),
            OciDistributionError::RegistryError { .. }
            | OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::ImageManifestNotFoundError(_) => (true, false),
            _ => (false, false),
        };
        self.failed(chain(error), absent, passing)
    }
}

/// Too many requests, or the server's own trouble.
fn is_passing(status: u16) -> bool {
    status == 429 || status >= 500
}

/// An error with its causes: reqwest's own text says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.chars().take(400).collect()
}
