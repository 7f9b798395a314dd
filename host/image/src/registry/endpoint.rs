//! One host that may have one image: the requests of the distribution specification.

use std::sync::OnceLock;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::mpsc;

use super::auth::Auth;
use super::challenge;
use super::failure::{Ended, Failure};
use super::http::{self, Http, Request};
use crate::credentials::{Credentials, registry_name};
use crate::error::{BlobProblem, ContentError};
use crate::hosts::Host;
use crate::reference::Reference;
use crate::verify::{Blob, MANIFEST_TYPES};

pub(super) struct Endpoint {
    pub(super) host: Host,
    http: Http,
    auth: Auth,
    repository: String,
    /// The registry that a mirror stands in for.
    namespace: Option<String>,
    /// Why there is no connection to the host. It is not tried again where there are others.
    gone: OnceLock<String>,
}

/// A blob on its way, which may take several connections and hosts.
pub(super) struct Transfer<'a> {
    pub(super) image: &'a str,
    pub(super) blob: Blob,
    pub(super) sink: &'a mpsc::Sender<Bytes>,
    /// Bytes handed on so far.
    pub(super) done: u64,
}

impl Endpoint {
    pub(super) fn new(host: Host, credentials: Credentials, reference: &Reference) -> Result<Self, String> {
        let namespace = (registry_name(&host.authority) != registry_name(reference.registry()))
            .then(|| reference.registry().to_owned());
        Ok(Self {
            http: Http::new(&host)?,
            auth: Auth::new(credentials, reference.repository()),
            host,
            repository: reference.repository().to_owned(),
            namespace,
            gone: OnceLock::new(),
        })
    }

    /// Why the host could not be reached before.
    pub(super) fn gone(&self) -> Option<&str> {
        self.gone.get().map(String::as_str)
    }

    /// Remembers a failure that will not be another one the next time.
    pub(super) fn remember(&self, failure: &Failure) {
        if failure.unreachable {
            let _known = self.gone.set(failure.cause.clone());
        }
    }

    /// `BASE/REPOSITORY/KIND/WHAT`
    fn url(&self, kind: &str, what: &str) -> Url {
        let mut url = self.http.url(self.repository.split('/').chain([kind, what]));
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// A successful answer; who asks is told when the host wants to know it.
    async fn get(&self, url: Url, headers: HeaderMap, small: bool) -> Result<Response, Failure> {
        let mut request = Request { url, headers, form: None, small };
        let mut sent = self.auth.header().await?;
        let mut asked_before = false;
        loop {
            if let Some(header) = &sent {
                request.headers.insert(AUTHORIZATION, header.clone());
            }
            let answer = self.http.send(&request).await?;
            let status = answer.response.status();
            if status.is_success() {
                return Ok(answer.response);
            }
            // What another host asks for, to which we were sent, is not ours to give.
            if status != StatusCode::UNAUTHORIZED || !answer.own || asked_before {
                return Err(http::failed(answer).await);
            }
            asked_before = true;
            let challenge = challenge::parse(answer.response.headers())
                .map_err(|problem| Failure::denied(format!("HTTP {status}: {problem}")))?;
            let _unread = http::explanation_bytes(answer.response).await;
            sent = Some(self.auth.renewed(sent.as_ref(), challenge, &self.http).await?);
        }
    }

    /// Shows the host who asks.
    pub(super) async fn greet(&self) -> Result<(), Failure> {
        self.get(self.http.url([""]), HeaderMap::new(), true).await.map(drop)
    }

    /// The bytes of a manifest or an index, at most one more than `limit`.
    pub(super) async fn manifest(&self, what: &str, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut headers = HeaderMap::new();
        let types = HeaderValue::from_str(&MANIFEST_TYPES.join(", "));
        headers.insert(ACCEPT, types.map_err(|_| Failure::lasting("no media type can be asked for"))?);
        self.document(self.url("manifests", what), headers, limit).await
    }

    /// The bytes of a small blob, at most one more than `limit`.
    pub(super) async fn small_blob(&self, blob: Blob, limit: u64) -> Result<Vec<u8>, Failure> {
        self.document(self.url("blobs", &blob.digest.to_string()), HeaderMap::new(), limit).await
    }

    async fn document(&self, url: Url, headers: HeaderMap, limit: u64) -> Result<Vec<u8>, Failure> {
        let response = self.get(url, headers, true).await?;
        http::body(response, limit).await.map_err(Failure::transport)
    }

    /// Hands on what of a blob is still missing. When it fails, `transfer` says how far it came.
    pub(super) async fn blob(&self, transfer: &mut Transfer<'_>) -> Result<(), Ended> {
        let url = self.url("blobs", &transfer.blob.digest.to_string());
        let mut headers = HeaderMap::new();
        if transfer.done > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", transfer.done));
            headers.insert(RANGE, range.map_err(|_| Failure::lasting("no range can be asked for"))?);
        }
        let mut response = self.get(url, headers, false).await?;
        let mut skip = begins_at(&response, transfer.done)?;
        loop {
            let mut piece = match response.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                // All bytes came: the receiver says whether they are the right ones.
                Err(_) if transfer.done == transfer.blob.size => break,
                Err(error) => return Err(Failure::transport(error).into()),
            };
            if skip > 0 {
                let known = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                let _known = piece.split_to(known);
                skip = skip.saturating_sub(known as u64);
            }
            if piece.is_empty() {
                continue;
            }
            let done = transfer.done.saturating_add(piece.len() as u64);
            if done > transfer.blob.size {
                return Err(transfer.wrong_size(done));
            }
            if transfer.sink.send(piece).await.is_err() {
                return Ok(());
            }
            transfer.done = done;
        }
        if transfer.done == transfer.blob.size { Ok(()) } else { Err(transfer.wrong_size(transfer.done)) }
    }
}

impl Transfer<'_> {
    fn wrong_size(&self, actual: u64) -> Ended {
        Ended::Refused(ContentError::Layer {
            image: self.image.to_owned(),
            layer: self.blob.digest,
            problem: Box::new(BlobProblem::Size { expected: self.blob.size, actual }),
        })
    }
}

/// How many bytes of an answer to a request from `start` on are known already.
fn begins_at(response: &Response, start: u64) -> Result<u64, Failure> {
    match response.status() {
        // Not every registry knows ranges.
        StatusCode::OK => Ok(start),
        StatusCode::PARTIAL_CONTENT if start > 0 => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            if range.and_then(first_byte) == Some(start) {
                Ok(0)
            } else {
                Err(Failure::lasting("it answers with another part of the blob than was asked for"))
            }
        }
        status => Err(Failure::lasting(format!("it answers HTTP {status} to a request for a blob"))),
    }
}

/// `bytes FIRST-LAST/LENGTH`
fn first_byte(range: &str) -> Option<u64> {
    let (unit, range) = range.trim().split_once(' ')?;
    let (first, _rest) = range.trim_start().split_once('-')?;
    if unit.eq_ignore_ascii_case("bytes") { first.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_range_of_bytes_has_a_first_byte() {
        for (range, first) in [
            ("bytes 5-9/10", Some(5)),
            ("Bytes 5-9/*", Some(5)),
            ("bytes */10", None),
            ("bytes 5", None),
            ("lines 5-9/10", None),
            ("bytes -9/10", None),
        ] {
            assert_eq!(first_byte(range), first, "{range}");
        }
    }

    proptest! {
        #[test]
        fn no_range_is_a_reason_to_panic(range in any::<String>()) {
            let _ = first_byte(&range);
        }
    }
}
