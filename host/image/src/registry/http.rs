//! HTTP with one host, and with where it sends us.
//!
//! Redirects are followed here rather than by reqwest, because of what must not be carried along: a token, a password or
//! a header of the host's is for that host, and what began encrypted stays so.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, Url, redirect};
use serde::Deserialize;

use super::failure::{Failure, harmless};
use super::tls;
use crate::hosts::Host;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A registry that sends nothing for so long is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// All of a small answer: one that comes byte by byte is given up.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(180);
const MAX_REDIRECTS: usize = 10;
/// Longest explanation of an error that is read, and how long that may take.
const MAX_EXPLANATION: u64 = 16 << 10;
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(2);
const USER_AGENT: &str = concat!("husk/", env!("CARGO_PKG_VERSION"));

pub(super) struct Http {
    client: reqwest::Client,
    base: Url,
    headers: HeaderMap,
}

/// One request.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) url: Url,
    /// `Authorization` among them stays with the first host.
    pub(super) headers: HeaderMap,
    /// Fields of a form to post; else this gets.
    pub(super) form: Option<Vec<(&'static str, String)>>,
    /// Whether all of the answer is expected soon.
    pub(super) small: bool,
}

/// The answer, and whether the host that was asked gave it.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) own: bool,
}

impl Http {
    pub(super) fn new(host: &Host) -> Result<Self, String> {
        let failed = |error: reqwest::Error| Failure::transport(error).cause;
        let scheme = if host.plain_http { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}{}", host.authority, host.path))
            .map_err(|error| format!("its address is no URL: {error}"))?;
        let mut client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(host)?)
            .connect_timeout(host.connect_timeout.unwrap_or(CONNECT_TIMEOUT))
            .read_timeout(READ_TIMEOUT)
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        if let Some(proxy) = &host.proxy {
            client = client.proxy(reqwest::Proxy::all(proxy.reveal()).map_err(failed)?);
        }
        Ok(Self { client: client.build().map_err(failed)?, base, headers: host.headers.clone() })
    }

    /// A URL below the API's beginning. Each part is one, whatever is in it.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Whether passwords and refresh tokens may go to this token server: over an encrypted connection, or to where the
    /// registry itself is spoken to without one.
    pub(super) fn may_know(&self, realm: &Url) -> bool {
        realm.scheme() == "https" || (self.base.scheme() == "http" && realm.host_str() == self.base.host_str())
    }

    /// Whether nothing at all is asked there: an answer that anyone could forge.
    pub(super) fn would_degrade(&self, realm: &Url) -> bool {
        self.base.scheme() == "https" && realm.scheme() != "https"
    }

    /// Asks, and follows redirects. Any status is an answer.
    pub(super) async fn send(&self, request: &Request) -> Result<Answer, Failure> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let own = url.origin() == request.url.origin();
            let mut headers = if url.origin() == self.base.origin() { self.headers.clone() } else { HeaderMap::new() };
            for (name, value) in &request.headers {
                if own || name != AUTHORIZATION {
                    headers.insert(name, value.clone());
                }
            }
            let method = if request.form.is_some() { Method::POST } else { Method::GET };
            let mut next = self.client.request(method, url.clone()).headers(headers);
            if let Some(form) = &request.form {
                next = next.form(form);
            }
            if request.small {
                next = next.timeout(DOCUMENT_TIMEOUT);
            }
            let failed = |error| {
                let failure = Failure::transport(error);
                Failure { unreachable: own && failure.unreachable, ..failure }
            };
            let response = next.send().await.map_err(failed)?;
            let leads_on = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            // A form has secrets in it, which are for the one it was written to.
            if !leads_on || request.form.is_some() {
                return Ok(Answer { response, own });
            }
            url = follow(&url, &response)?;
            let _unread = explanation_bytes(response).await;
        }
        Err(Failure::lasting(format!("it redirects more than {MAX_REDIRECTS} times")))
    }
}

/// Where a redirect leads.
fn follow(from: &Url, response: &Response) -> Result<Url, Failure> {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let url = location.and_then(|location| from.join(location).ok());
    match url {
        Some(url) if from.scheme() == "https" && url.scheme() == "http" => {
            Err(Failure::lasting("it redirects from https to plain http, which is not followed"))
        }
        Some(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(Failure::lasting("it redirects to no place that can be asked")),
    }
}

/// A body of at most `limit` bytes, and one more when there are more.
pub(super) async fn body(mut response: Response, limit: u64) -> Result<Vec<u8>, reqwest::Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await? {
        let wanted = limit.saturating_sub(bytes.len()).min(piece.len());
        bytes.extend(piece.iter().take(wanted));
        if bytes.len() >= limit {
            break;
        }
    }
    Ok(bytes)
}

/// What an answer that is no success means.
pub(super) async fn failed(answer: Answer) -> Failure {
    let Answer { response, own } = answer;
    let status = response.status();
    let place = response.url().host_str().unwrap_or_default().to_owned();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut cause = format!("HTTP {status}");
    if let Some(said) = explanation(response).await {
        cause = format!("{cause}: {said}");
    }
    let failure = Failure::status(status.as_u16(), after.map(Duration::from_secs), cause);
    if own {
        return failure;
    }
    // The host knows the image, and us: it is the other one that does not.
    Failure { absent: false, cause: format!("it redirects to {place}: {}", failure.cause), ..failure }
}

/// The first of the errors in the form of the distribution specification.
async fn explanation(response: Response) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Explained>,
    }
    #[derive(Deserialize)]
    struct Explained {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Errors = serde_json::from_slice(&explanation_bytes(response).await?).ok()?;
    let first = errors.errors.into_iter().next()?;
    let text = if first.message.is_empty() { first.code } else { first.message };
    (!text.is_empty()).then(|| harmless(&text).chars().take(200).collect())
}

/// The body of an answer that is not what was asked for. Reading it leaves the connection fit for the next request.
pub(super) async fn explanation_bytes(response: Response) -> Option<Vec<u8>> {
    tokio::time::timeout(EXPLANATION_TIMEOUT, body(response, MAX_EXPLANATION)).await.ok()?.ok()
}
