//! Tokens: what stands in a URL for a call that was asked for.
//!
//! A CRI client asks for a call over the CRI's socket, which its permissions guard, and then makes it over TCP, where
//! any process of the host can come: who knows the token is who asked.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// How long a token is good for.
const LIFETIME: Duration = Duration::from_secs(60);
/// How many tokens may be unused at a time.
const MAX_TOKENS: usize = 1000;
/// A token's length in bytes, before it is made text.
const LENGTH: usize = 16;

/// Why there is no URL for a call.
#[derive(Debug, thiserror::Error)]
pub enum Exhausted {
    /// So many calls were asked for and not made; each is forgotten after a minute. gRPC's `RESOURCE_EXHAUSTED`.
    #[error("1000 calls of exec, attach and port-forward were asked for and not made yet: try again in a minute")]
    Tokens,
    /// The kernel gave no random bytes.
    #[error("no token can be made: {0}")]
    Randomness(#[from] io::Error),
}

/// Calls that were asked for and not made yet.
///
/// They are kept under their tokens' digests. Looking one up takes a time that depends on how much of two digests is
/// equal, which says nothing of how much of two tokens is.
#[derive(Debug)]
pub(crate) struct Tokens<T> {
    calls: Mutex<HashMap<[u8; 32], (Instant, T)>>,
}

impl<T> Tokens<T> {
    pub(crate) fn new() -> Self {
        Self { calls: Mutex::default() }
    }

    /// Keeps a call; returns its token, 22 characters of base64url.
    pub(crate) fn insert(&self, call: T) -> Result<String, Exhausted> {
        let token = URL_SAFE_NO_PAD.encode(random()?);
        let now = Instant::now();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() >= MAX_TOKENS {
            calls.retain(|_, (made, _)| now.duration_since(*made) < LIFETIME);
        }
        if calls.len() >= MAX_TOKENS {
            return Err(Exhausted::Tokens);
        }
        calls.insert(digest(&token), (now, call));
        Ok(token)
    }

    /// The call of a token, once and within its minute.
    pub(crate) fn take(&self, token: &str) -> Option<T> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, call) = calls.remove(&digest(token))?;
        (made.elapsed() < LIFETIME).then_some(call)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn random() -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    // Up to 256 bytes come whole once the kernel has been seeded, for which this call waits.
    let count = rustix::io::retry_on_intr(|| {
        rustix::rand::getrandom(bytes.as_mut_slice(), rustix::rand::GetRandomFlags::empty())
    })?;
    if count == LENGTH { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once() {
        let tokens = Tokens::new();
        let token = tokens.insert("call").unwrap();
        assert_eq!(token.len(), 22);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_eq!(tokens.take("AAAAAAAAAAAAAAAAAAAAAA"), None);
        assert_eq!(tokens.take(&token), Some("call"));
        assert_eq!(tokens.take(&token), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_for_a_minute() {
        let tokens = Tokens::new();
        let (early, late) = (tokens.insert(1).unwrap(), tokens.insert(2).unwrap());
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(tokens.take(&early), Some(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(tokens.take(&late), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_tokens_are_all_until_they_expire() {
        let tokens = Tokens::new();
        for call in 0..MAX_TOKENS {
            tokens.insert(call).unwrap();
        }
        assert!(matches!(tokens.insert(0), Err(Exhausted::Tokens)));
        tokio::time::advance(LIFETIME).await;
        tokens.insert(0).unwrap();
        assert_eq!(tokens.calls.lock().unwrap().len(), 1);
    }
}
