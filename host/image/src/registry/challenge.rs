//! What a registry answers to those it does not know: the `WWW-Authenticate` headers of HTTP 401.
//!
//! `Bearer` is Docker's token authentication: a token of the server at `realm`, for the `service`, good for a `scope`.
//! `Basic` wants a name and a password with each request.

use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How to introduce oneself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Bearer(Bearer),
    Basic,
}

/// Where to ask for a token, and for what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

/// The challenge to answer: tokens rather than passwords. A header that cannot be read does not spoil the others.
pub(super) fn parse(headers: &HeaderMap) -> Result<Challenge, &'static str> {
    let mut found = Err("it does not say how to authenticate");
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(challenges) =
            header.to_str().map_err(drop).and_then(|text| http_auth::parse_challenges(text).map_err(drop))
        else {
            continue;
        };
        for challenge in challenges {
            let parameter = |name: &str| {
                let mut named = challenge.params.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
                named.next().map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                // A token server that cannot be asked is no reason to send the password somewhere else.
                found = found.or(Ok(Challenge::Basic));
            } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let Some(realm) = parameter("realm").as_deref().and_then(realm) else {
                    return Err("the realm of its tokens is no http or https URL");
                };
                let (service, scope) = (parameter("service"), parameter("scope"));
                return Ok(Challenge::Bearer(Bearer { realm, service, scope }));
            }
        }
    }
    found
}

fn realm(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Result<Challenge, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        parse(&headers)
    }

    #[test]
    fn the_token_server_is_found_among_all_headers() {
        let bearer =
            "bEaReR realm=\"https://auth.example/token?a=b\",service=\"r\\\"x\" , scope=\"repository:a/b:pull,push\"";
        for values in [vec![bearer], vec!["Basic realm=\"x\"", bearer], vec!["Negotiate", "=,broken", bearer]] {
            let Challenge::Bearer(found) = of(&values).unwrap() else { panic!("{values:?}") };
            assert_eq!(found.realm.as_str(), "https://auth.example/token?a=b");
            assert_eq!(found.service.as_deref(), Some("r\"x"));
            assert_eq!(found.scope.as_deref(), Some("repository:a/b:pull,push"));
        }
        assert_eq!(of(&["Negotiate, Basic realm=\"x\""]), Ok(Challenge::Basic));
    }

    #[test]
    fn a_realm_that_is_no_place_on_the_web_is_refused() {
        for realm in
            ["", "auth.example", "file:///etc/passwd", "ftp://a/", "https://me:pw@a/", "data:text,x", "http://"]
        {
            assert!(of(&[&format!("Bearer realm=\"{realm}\""), "Basic realm=\"x\""]).is_err(), "{realm}");
        }
        assert!(of(&["Bearer service=\"x\""]).is_err());
        assert!(of(&[]).is_err() && of(&["Digest realm=\"x\""]).is_err());
    }

    proptest! {
        #[test]
        fn no_header_is_a_reason_to_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(WWW_AUTHENTICATE, value);
            }
            let _ = parse(&headers);
        }

        #[test]
        fn no_challenge_is_a_reason_to_panic(text in "(Bearer|Basic|[A-Z])?[ ,=]{0,3}((realm|scope|x)[= ]{0,2}\"?[a-z:/\\\\\",]{0,20}\"?[, ]{0,2}){0,5}") {
            let _ = of(&[&text]);
        }
    }
}
