//! A server of tokens that `docker-registry` takes: JWTs signed by a certificate of the test's authority.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::registry::USER;
use super::server::{Reply, Request, Server};
use super::tls::{Authority, Signed};

pub const SERVICE: &str = "registry of the test";
pub const REFRESH: &str = "refresh-token";

/// It gives to [`USER`] and to who has [`REFRESH`] what they ask for, and to others tokens that open nothing.
pub fn start(authority: &Authority) -> Server {
    let signer = authority.sign("tokens", &["tokens"]);
    Server::start(move |request| answer(request, &signer))
}

/// The section of a registry that trusts the tokens of `server`.
pub fn section(authority: &Authority, server: &Server) -> String {
    format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: {SERVICE}\n    issuer: test\n    rootcertbundle: {}\n",
        server.address,
        authority.certificate().display()
    )
}

fn answer(request: &Request, signer: &Signed) -> Reply {
    assert_eq!(request.field("service").as_deref(), Some(SERVICE));
    let denied = || Reply::new("401 Unauthorized", &[], br#"{"details": "se:cret"}"#);
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", USER.0, USER.1)));
    let known = match (request.method.as_str(), request.header("authorization")) {
        ("POST", None) => {
            let given =
                ["grant_type", "refresh_token", "client_id"].map(|name| request.field(name).unwrap_or_default());
            if given != ["refresh_token", REFRESH, "husk"] {
                return denied();
            }
            true
        }
        ("GET", Some(given)) if given == basic => true,
        ("GET", None) => false,
        _ => return denied(),
    };
    let scope = request.field("scope").unwrap();
    let parts: Vec<&str> = scope.split(':').collect();
    let access = json!({"type": parts[0], "name": parts[1], "actions": parts[2].split(',').collect::<Vec<_>>()});
    let token = sign(signer, &if known { json!([access]) } else { json!([]) });
    let name = if request.method == "POST" { "access_token" } else { "token" };
    Reply::ok(json!({name: token, "expires_in": 300}).to_string().as_bytes())
}

fn sign(signer: &Signed, access: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&signer.der)]});
    let claims = json!({
        "iss": "test", "sub": "me", "aud": SERVICE, "jti": "1", "access": access,
        "exp": now + 300, "nbf": now - 60, "iat": now - 60,
    });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &signer.key_der, &random).unwrap();
    let signed = format!("{header}.{claims}");
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
