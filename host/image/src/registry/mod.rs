//! Fetching from registries over the OCI distribution API.
//!
//! Here are the choice of hosts, the bounds, and trying again: what is wanted is asked of one host after the other, in the
//! order of `hosts.toml`. `endpoint` asks one host, `http` sends its requests and follows where they lead (over `tls`), `challenge`
//! reads what a host wants to know, `auth` has the answer, `failure` says what is worth another attempt. What comes is
//! only counted here; the callers know which digest it must have.

mod auth;
mod challenge;
mod endpoint;
mod failure;
mod http;
mod tls;

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures::future::{self, Either};
use thiserror::Error;
use tokio::sync::mpsc;

use self::endpoint::{Endpoint, Transfer};
use self::failure::{Backoff, Ended, Failure};
use crate::Limits;
use crate::credentials::{Credentials, CredentialsError};
use crate::digest::Digest;
use crate::error::ContentError;
use crate::hosts::{self, Host, HostsError};
use crate::reference::Reference;
use crate::store::PullOptions;
use crate::verify::{self, Blob, Document, Manifest};

/// How often a host may break off one blob, however far each connection came.
const MAX_CONNECTIONS: u32 = 200;

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
    #[error("a client for {host} cannot be set up: {cause}; see its hosts.toml and the certificates there")]
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
    /// The image is there, and a part of it is not.
    #[error(
        "image {image}: its registry does not have its blob {blob} ({tried}): it is incomplete there, push it again"
    )]
    Incomplete {
        /// The image as the user names it.
        image: String,
        /// The layer, config or manifest.
        blob: Digest,
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

/// What a registry said to credentials.
pub(crate) enum Answer {
    Taken,
    Refused(String),
    Unavailable(String),
}

/// Shows a host who asks.
pub(crate) async fn log_in(
    host: Host,
    credentials: &Credentials,
    reference: &Reference,
) -> Result<Answer, RegistryError> {
    Ok(match endpoint(host, credentials.clone(), reference)?.greet().await {
        Ok(()) => Answer::Taken,
        Err(failure) if failure.absent => Answer::Refused(failure.cause),
        Err(failure) => Answer::Unavailable(failure.cause),
    })
}

fn endpoint(host: Host, credentials: Credentials, reference: &Reference) -> Result<Endpoint, RegistryError> {
    let authority = host.authority.clone();
    Endpoint::new(host, credentials, reference).map_err(|cause| RegistryError::Client { host: authority, cause })
}

type Failures<'a> = Vec<(&'a Endpoint, Failure)>;

/// The hosts that may have one image.
pub(crate) struct Registry {
    image: String,
    reference: Reference,
    endpoints: Vec<Endpoint>,
    limits: Limits,
}

impl Registry {
    pub(crate) async fn new(reference: &Reference, options: &PullOptions) -> Result<Self, RegistryError> {
        let mut endpoints = Vec::new();
        for host in hosts::hosts(&options.registry_config, reference.registry())? {
            let credentials = options.keychain.of(&host.authority, reference.repository()).await?;
            endpoints.push(endpoint(host, credentials, reference)?);
        }
        Ok(Self { image: reference.familiar(), reference: reference.clone(), endpoints, limits: options.limits })
    }

    /// The manifest for this machine: of an index, whose digest comes along, the one it names.
    pub(crate) async fn manifest(&self) -> Result<(Manifest, Option<Digest>), RegistryError> {
        let mut index = None;
        let mut expected = self.reference.digest();
        let mut wanted = match expected {
            Some(digest) => digest.to_string(),
            None => self.reference.tag().unwrap_or("latest").to_owned(),
        };
        // An index names manifests; one that names another index is not an image's.
        for _ in 0..2 {
            let what = wanted.as_str();
            // Whoever has the bytes of a digest may give them; what a name means is a matter of trust.
            let may = |host: &Host| if expected.is_some() { host.pull } else { host.resolve };
            let bytes = self.ask(may, None, |endpoint| endpoint.manifest(what, self.limits.document_bytes)).await?;
            match verify::document(&self.image, bytes, expected, &self.limits)? {
                Document::Manifest(manifest) => return Ok((manifest, index)),
                Document::Index { digest, manifest } => {
                    index = Some(digest);
                    wanted = manifest.digest.to_string();
                    expected = Some(manifest.digest);
                }
            }
        }
        let problem = crate::DocumentProblem::MediaType("index within an index".to_owned());
        Err(verify::refuse(&self.image, "manifest")(problem).into())
    }

    /// The config. Its digest is checked where it is put together with the manifest.
    pub(crate) async fn config(&self, blob: Blob) -> Result<Vec<u8>, RegistryError> {
        let limit = self.limits.document_bytes;
        self.ask(|host| host.pull, Some(blob.digest), |endpoint| endpoint.small_blob(blob, limit)).await
    }

    /// The bytes of a blob in order, each of them once, and never more than it has. A connection that breaks is taken up
    /// where it broke. When nobody takes the bytes any more this ends without an error. What they hash to is for the
    /// receiver to check.
    pub(crate) async fn blob(&self, blob: Blob, sink: &mpsc::Sender<Bytes>) -> Result<(), RegistryError> {
        match future::select(pin!(self.transfer(blob, sink)), pin!(sink.closed())).await {
            Either::Left((ended, _)) => ended,
            Either::Right(((), _)) => Ok(()),
        }
    }

    async fn transfer(&self, blob: Blob, sink: &mpsc::Sender<Bytes>) -> Result<(), RegistryError> {
        let mut transfer = Transfer { image: &self.image, blob, sink, done: 0 };
        let (endpoints, mut failures) = self.choose(|host| host.pull);
        for (endpoint, is_last) in endpoints {
            let mut backoff = Backoff::new(is_last);
            let mut connections: u32 = 0;
            loop {
                let before = transfer.done;
                let failure = match endpoint.blob(&mut transfer).await {
                    Ok(()) => return Ok(()),
                    Err(Ended::Refused(error)) => return Err(error.into()),
                    Err(Ended::Failed(failure)) => failure,
                };
                connections = connections.saturating_add(1);
                if transfer.done > before {
                    backoff = Backoff::new(is_last);
                }
                if connections >= MAX_CONNECTIONS || !wait(endpoint, &failure, &mut backoff).await {
                    failures.push((endpoint, failure));
                    break;
                }
            }
        }
        Err(self.all_failed(failures, Some(blob.digest)))
    }

    /// Asks one host after the other, each a few times if its trouble may pass. `part` is what an image names that is
    /// there.
    async fn ask<'a, T, F: Future<Output = Result<T, Failure>>>(
        &'a self,
        may: impl Fn(&Host) -> bool,
        part: Option<Digest>,
        request: impl Fn(&'a Endpoint) -> F,
    ) -> Result<T, RegistryError> {
        let (endpoints, mut failures) = self.choose(may);
        for (endpoint, is_last) in endpoints {
            let mut backoff = Backoff::new(is_last);
            loop {
                let failure = match request(endpoint).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                };
                if !wait(endpoint, &failure, &mut backoff).await {
                    failures.push((endpoint, failure));
                    break;
                }
            }
        }
        Err(self.all_failed(failures, part))
    }

    /// The hosts to ask, the last one marked, and those that there is no use in asking.
    fn choose(&self, may: impl Fn(&Host) -> bool) -> (Vec<(&Endpoint, bool)>, Failures<'_>) {
        let allowed = || self.endpoints.iter().filter(|endpoint| may(&endpoint.host));
        let (mut chosen, mut gone) = (Vec::new(), Vec::new());
        let none_left = allowed().all(|endpoint| endpoint.gone().is_some());
        for endpoint in allowed() {
            match endpoint.gone() {
                Some(cause) if !none_left => gone.push((endpoint, Failure::lasting(cause))),
                _ => chosen.push((endpoint, false)),
            }
        }
        if let Some((_, is_last)) = chosen.last_mut() {
            *is_last = true;
        }
        (chosen, gone)
    }

    fn all_failed(&self, failures: Failures<'_>, part: Option<Digest>) -> RegistryError {
        let absent = !failures.is_empty() && failures.iter().all(|(_, failure)| failure.absent);
        let tried: Vec<String> = failures
            .into_iter()
            .map(|(endpoint, failure)| format!("{}: {}", endpoint.host.authority, failure.cause))
            .collect();
        let tried = if tried.is_empty() { "no host may be asked for it".to_owned() } else { tried.join("; ") };
        let image = self.image.clone();
        match part {
            Some(blob) if absent => RegistryError::Incomplete { image, blob, tried },
            _ if absent => RegistryError::NotFound { image, tried },
            _ => RegistryError::Unavailable { image, tried },
        }
    }
}

/// Lets a failure pass, if it may.
async fn wait(endpoint: &Endpoint, failure: &Failure, backoff: &mut Backoff) -> bool {
    let Some(wait) = backoff.next(failure) else {
        endpoint.remember(failure);
        return false;
    };
    tracing::debug!(host = endpoint.host.authority, cause = failure.cause, ?wait, "trying again");
    tokio::time::sleep(wait).await;
    true
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::BlobProblem;
    use crate::credentials::Keychain;

    /// A registry that has nothing but zeros, and never ends.
    fn zeros() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _request = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[0; 1 << 16]).is_ok() {}
        });
        address.to_string()
    }

    async fn registry() -> Registry {
        let reference = format!("{}/app", zeros()).parse().unwrap();
        let options =
            PullOptions { registry_config: "/nonexistent".into(), keychain: Keychain::Empty, ..PullOptions::default() };
        Registry::new(&reference, &options).await.unwrap()
    }

    #[tokio::test]
    async fn that_nobody_takes_the_rest_of_a_blob_is_no_error() {
        let registry = registry().await;
        let (sink, mut pieces) = mpsc::channel(1);
        let blob = Blob { digest: Digest::of(b""), size: u64::MAX };
        let fetched = registry.blob(blob, &sink);
        let taken = async move { pieces.recv().await.unwrap() };
        let (fetched, piece) = future::join(fetched, taken).await;
        fetched.unwrap();
        assert!(!piece.is_empty());
    }

    #[tokio::test]
    async fn no_more_bytes_are_handed_on_than_a_blob_has() {
        let registry = registry().await;
        let (sink, mut pieces) = mpsc::channel(1);
        let size = 1_000_001;
        let fetched = async move { registry.blob(Blob { digest: Digest::of(b""), size }, &sink).await };
        let taken = async move {
            let mut taken = 0;
            while let Some(piece) = pieces.recv().await {
                taken += piece.len() as u64;
            }
            taken
        };
        let (fetched, taken) = future::join(fetched, taken).await;
        assert!(taken <= size, "{taken}");
        let Err(RegistryError::Content(ContentError::Layer { problem, .. })) = fetched else { panic!("{fetched:?}") };
        assert!(matches!(*problem, BlobProblem::Size { expected, actual } if expected == size && actual > size));
    }
}
