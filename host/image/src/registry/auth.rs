//! Who asks: names, passwords, and the tokens that are had for them.
//!
//! A host is first asked without any of it. What it answers says how to introduce oneself, and what came of that is kept
//! for the requests that follow, until it runs out or is no longer taken. Docker's specification of token
//! authentication says how a token is fetched: with a name and a password by GET, with a refresh token by a form of
//! OAuth2. Nothing here can be printed.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::{Bearer, Challenge};
use super::failure::Failure;
use super::http::{self, Http, Request};
use crate::credentials::{Credentials, Secret};

/// Longest answer of a token server.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a token is good when nothing else is said, by Docker's specification.
const DEFAULT_LIFE: u64 = 60;
/// However long a token is good, it is asked for anew after this.
const MAX_LIFE: u64 = 3600;
const CLIENT_ID: &str = "husk";

pub(super) struct Auth {
    credentials: Credentials,
    repository: String,
    ticket: Mutex<Option<Ticket>>,
}

/// The header that a host took.
struct Ticket {
    header: HeaderValue,
    until: Option<Instant>,
}

impl Ticket {
    fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Auth {
    pub(super) fn new(credentials: Credentials, repository: &str) -> Self {
        Self { credentials, repository: repository.to_owned(), ticket: Mutex::new(None) }
    }

    /// What to send before the host asked for anything.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, Failure> {
        if let Credentials::Bearer(token) = &self.credentials {
            return bearer(token).map(Some).ok_or_else(|| Failure::denied("the token that was given is none"));
        }
        let ticket = self.ticket.lock().await;
        Ok(ticket.as_ref().filter(|ticket| ticket.is_good()).map(|ticket| ticket.header.clone()))
    }

    /// What to send after the host did not take `sent`.
    pub(super) async fn renewed(
        &self,
        sent: Option<&HeaderValue>,
        challenge: Challenge,
        http: &Http,
    ) -> Result<HeaderValue, Failure> {
        // Kept over the request: those that come meanwhile want the same token.
        let mut ticket = self.ticket.lock().await;
        if let Some(known) = ticket.as_ref().filter(|known| known.is_good() && Some(&known.header) != sent) {
            return Ok(known.header.clone());
        }
        *ticket = None;
        let new = match (challenge, &self.credentials) {
            (_, Credentials::Bearer(_)) => return Err(Failure::denied("HTTP 401: it does not take the token")),
            (Challenge::Bearer(bearer), _) => self.token(&bearer, http).await?,
            (Challenge::Basic, Credentials::Password { user, password }) if sent.is_none() => {
                Ticket { header: basic(user, password)?, until: None }
            }
            (Challenge::Basic, Credentials::Password { .. }) => {
                return Err(Failure::denied("HTTP 401: it does not take the name and password"));
            }
            (Challenge::Basic, Credentials::Anonymous) => {
                return Err(Failure::denied("HTTP 401: it asks for a name and a password"));
            }
            (Challenge::Basic, Credentials::Identity(_)) => {
                let cause = "HTTP 401: it asks for a name and a password, and only an identity token is known";
                return Err(Failure::denied(cause));
            }
        };
        Ok(ticket.insert(new).header.clone())
    }

    /// A new token.
    async fn token(&self, challenge: &Bearer, http: &Http) -> Result<Ticket, Failure> {
        let server = challenge.realm.host_str().unwrap_or_default();
        let unsafe_realm = |why: &str| Failure::lasting(format!("its token server is {server} over plain http, {why}"));
        if http.would_degrade(&challenge.realm) {
            return Err(unsafe_realm("which is not asked on behalf of a registry with https"));
        }
        if self.credentials != Credentials::Anonymous && !http.may_know(&challenge.realm) {
            return Err(unsafe_realm("which is told no password: name its https address as the realm"));
        }
        let request = self.request(challenge)?;
        let at = |failure: Failure| {
            let cause = format!("token server {server}: {}", failure.cause);
            Failure { cause, unreachable: false, ..failure }
        };
        let answer = http.send(&request).await.map_err(at)?;
        if !answer.response.status().is_success() {
            return Err(at(http::failed(answer).await));
        }
        let bytes = http::body(answer.response, MAX_ANSWER).await.map_err(|error| at(Failure::transport(error)))?;
        // Whatever is wrong with it: its text may be the token's.
        ticket(&bytes).ok_or_else(|| at(Failure::lasting("its answer has no usable token in it")))
    }

    fn request(&self, challenge: &Bearer) -> Result<Request, Failure> {
        let scope = scope(challenge.scope.as_deref(), &self.repository);
        let service = challenge.service.clone().map(|service| ("service", service));
        let mut url = challenge.realm.clone();
        let mut headers = HeaderMap::new();
        if let Credentials::Identity(token) = &self.credentials {
            let mut form = vec![
                ("grant_type", "refresh_token".to_owned()),
                ("refresh_token", token.reveal().to_owned()),
                ("client_id", CLIENT_ID.to_owned()),
                ("scope", scope),
            ];
            form.extend(service);
            return Ok(Request { url, headers, form: Some(form), small: true });
        }
        url.query_pairs_mut().extend_pairs(service).append_pair("scope", &scope);
        if let Credentials::Password { user, password } = &self.credentials {
            headers.insert(AUTHORIZATION, basic(user, password)?);
        }
        Ok(Request { url, headers, form: None, small: true })
    }
}

/// What the token is to be good for: reading the repository, which a mirror may keep below another name.
fn scope(asked: Option<&str>, repository: &str) -> String {
    let named = asked.into_iter().flat_map(|scope| scope.split(' ')).find_map(|scope| {
        let (name, _actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        let prefix = name.strip_suffix(repository)?;
        (prefix.is_empty() || prefix.ends_with('/')).then_some(name)
    });
    format!("repository:{}:pull", named.unwrap_or(repository))
}

fn ticket(answer: &[u8]) -> Option<Ticket> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<serde_json::Value>,
    }
    if u64::try_from(answer.len()).ok()? > MAX_ANSWER {
        return None;
    }
    let answer: Token = serde_json::from_slice(answer).ok()?;
    let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty())?;
    let life = answer.expires_in.and_then(|life| life.as_u64()).unwrap_or(DEFAULT_LIFE).min(MAX_LIFE);
    let until = Instant::now().checked_add(Duration::from_secs(life));
    Some(Ticket { header: bearer(&Secret::from(token))?, until })
}

/// Nothing but visible ASCII is a token.
fn bearer(token: &Secret) -> Option<HeaderValue> {
    let token = token.reveal();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn basic(user: &str, password: &Secret) -> Result<HeaderValue, Failure> {
    let text = STANDARD.encode(format!("{user}:{}", password.reveal()));
    let mut header = HeaderValue::from_str(&format!("Basic {text}"))
        .map_err(|_| Failure::denied("the name and password cannot be sent"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_asked_for_reading_one_repository() {
        for (asked, expected) in [
            (None, "repository:a/b:pull"),
            (Some("repository:a/b:pull,push"), "repository:a/b:pull"),
            (Some("registry:catalog:* repository:cache/a/b:*"), "repository:cache/a/b:pull"),
            (Some("repository:other:pull"), "repository:a/b:pull"),
            (Some("repository:xa/b:pull"), "repository:a/b:pull"),
            (Some("repository(plugin):a/b:pull"), "repository:a/b:pull"),
        ] {
            assert_eq!(scope(asked, "a/b"), expected, "{asked:?}");
        }
    }

    #[test]
    fn both_names_of_a_token_are_known_and_what_is_no_token_is_refused() {
        let header = |answer: &str| ticket(answer.as_bytes()).map(|ticket| ticket.header);
        assert_eq!(header(r#"{"token": "a"}"#).unwrap(), "Bearer a");
        assert_eq!(header(r#"{"token": "", "access_token": "b", "expires_in": null}"#).unwrap(), "Bearer b");
        for broken in ["", "[]", "{}", r#"{"token": 1}"#, r#"{"token": ""}"#, r#"{"token": "a b"}"#] {
            assert!(header(broken).is_none(), "{broken}");
        }
        for hostile in ["a\\r\\nx: y", "a\\u0000", "a\\u00e9", "\\n", "a\\t"] {
            assert!(header(&format!("{{\"token\": \"{hostile}\"}}")).is_none(), "{hostile}");
        }
        let long = format!("{{\"token\": \"{}\"}}", "a".repeat(1 << 20));
        assert!(header(&long).is_none());
    }

    #[test]
    fn a_token_that_is_good_for_no_time_is_not_kept() {
        assert!(!ticket(br#"{"token": "a", "expires_in": 0}"#).unwrap().is_good());
        assert!(ticket(br#"{"token": "a", "expires_in": 18446744073709551615}"#).unwrap().is_good());
        assert!(ticket(br#"{"token": "a", "expires_in": -1}"#).unwrap().is_good());
    }

    #[test]
    fn headers_with_secrets_do_not_show_them() {
        let secret = Secret::from("hunter2".to_owned());
        let shown = format!("{:?} {:?}", bearer(&secret).unwrap(), basic("me", &secret).ok().unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains(&STANDARD.encode("me:hunter2")), "{shown}");
    }

    proptest! {
        #[test]
        fn no_answer_of_a_token_server_is_a_reason_to_panic(token in any::<String>(), noise in any::<Vec<u8>>()) {
            let _ = ticket(&noise);
            let answer = serde_json::json!({"token": token, "expires_in": noise.len()}).to_string();
            if let Some(ticket) = ticket(answer.as_bytes()) {
                prop_assert!(ticket.header.to_str().is_ok());
            }
        }
    }
}
