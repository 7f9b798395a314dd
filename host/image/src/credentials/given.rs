//! Credentials that come with a request, in the shape of CRI's `AuthConfig`.

use super::{Credentials, CredentialsError, Keychain, Secret, decode};
use crate::reference::Reference;

/// `runtime.v1.AuthConfig` of CRI. Fields that are not set are empty.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The user's name.
    pub username: String,
    /// The password that goes with it.
    pub password: Secret,
    /// Both, as `name:password` in base64.
    pub auth: Secret,
    /// The registry all this is for; when empty, the image's.
    pub server_address: String,
    /// A refresh token.
    pub identity_token: Secret,
    /// A token that goes into each request as it is.
    pub registry_token: Secret,
}

impl Default for AuthConfig {
    fn default() -> Self {
        let empty = || Secret(String::new());
        Self {
            username: String::new(),
            password: empty(),
            auth: empty(),
            server_address: String::new(),
            identity_token: empty(),
            registry_token: empty(),
        }
    }
}

impl Keychain {
    /// What came with the request to pull `image`. It is told to the registry it is for and to no other host, so that
    /// one whose `server_address` is another registry's is not used at all.
    ///
    /// # Errors
    /// When `auth` is no name and password in base64.
    pub fn given(config: &AuthConfig, image: &Reference) -> Result<Self, CredentialsError> {
        let registry = match config.server_address.as_str() {
            "" => image.registry(),
            address => address,
        };
        Ok(Self::Given { registry: registry.to_owned(), credentials: credentials(config, registry)? })
    }
}

/// The most particular form counts, as in Docker's file: with a token, names are often there for show.
fn credentials(config: &AuthConfig, registry: &str) -> Result<Credentials, CredentialsError> {
    if !config.registry_token.0.is_empty() {
        return Ok(Credentials::Bearer(config.registry_token.clone()));
    }
    if !config.identity_token.0.is_empty() {
        return Ok(Credentials::Identity(config.identity_token.clone()));
    }
    if !config.username.is_empty() {
        return Ok(Credentials::Password { user: config.username.clone(), password: config.password.clone() });
    }
    if config.auth.0.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let problem = "is not a name and a password in base64";
    let (user, password) = decode(config.auth.reveal())
        .ok_or_else(|| CredentialsError::Given { registry: registry.to_owned(), problem })?;
    Ok(Credentials::Password { user, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    async fn told(config: &AuthConfig, host: &str) -> Credentials {
        let image = "registry.example:5000/team/app".parse().unwrap();
        Keychain::given(config, &image).unwrap().of(host, "team/app").await.unwrap()
    }

    #[tokio::test]
    async fn every_form_of_credentials_is_understood() {
        let password = Credentials::Password { user: "me".to_owned(), password: secret("p:w") };
        let named = AuthConfig { username: "me".to_owned(), password: secret("p:w"), ..AuthConfig::default() };
        let encoded = AuthConfig { auth: secret("bWU6cDp3"), ..AuthConfig::default() };
        let identity = AuthConfig { identity_token: secret("r"), ..named.clone() };
        let bearer = AuthConfig { registry_token: secret("t"), ..identity.clone() };
        for (config, expected) in [
            (AuthConfig::default(), Credentials::Anonymous),
            (named, password.clone()),
            (encoded, password),
            (identity, Credentials::Identity(secret("r"))),
            (bearer, Credentials::Bearer(secret("t"))),
        ] {
            assert_eq!(told(&config, "registry.example:5000").await, expected);
            assert_eq!(told(&config, "mirror.example").await, Credentials::Anonymous);
        }
    }

    #[tokio::test]
    async fn an_address_of_another_registry_keeps_the_credentials_from_this_one() {
        for (address, host, known) in [
            ("https://registry.example:5000/v2/", "registry.example:5000", true),
            ("registry.example:5000", "registry.example:5000", true),
            ("other.example", "registry.example:5000", false),
            ("registry.example", "registry.example:5000", false),
        ] {
            let server_address = address.to_owned();
            let config = AuthConfig { server_address, registry_token: secret("t"), ..AuthConfig::default() };
            assert_eq!(told(&config, host).await != Credentials::Anonymous, known, "{address}");
        }
    }

    #[test]
    fn broken_credentials_are_refused_and_none_are_shown() {
        let image = "registry.example/app".parse().unwrap();
        for auth in ["!hunter2", "aHVudGVyMg=="] {
            let config = AuthConfig {
                auth: secret(auth),
                username: String::new(),
                password: secret("hunter2"),
                ..<_>::default()
            };
            let error = Keychain::given(&config, &image).unwrap_err();
            let text = format!("{error} {error:?} {config:?}");
            assert!(text.contains("registry.example") && !text.contains("hunter2") && !text.contains(auth), "{text}");
        }
    }
}
