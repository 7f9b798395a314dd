//! Credential helpers: programs `docker-credential-NAME`, asked by Docker's protocol (`get`, the registry on standard
//! input, JSON on standard output).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Credentials, CredentialsError, Secret};

/// A person may have to unlock something.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest answer.
const MAX_BYTES: u64 = 1 << 20;
/// What helpers say of a registry that they do not know, on standard output.
const NOT_FOUND: &str = "credentials not found";
/// The user's name when the secret is a refresh token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

pub(super) async fn get(name: &str, registry: &str, path: &Path) -> Result<Credentials, CredentialsError> {
    let program = format!("docker-credential-{name}");
    let refuse = |cause: String| CredentialsError::Helper {
        program: program.clone(),
        registry: registry.to_owned(),
        path: path.to_owned(),
        cause,
    };
    if name.contains('/') {
        return Err(refuse("has no usable name".to_owned()));
    }
    // Docker Hub is known to them by Docker's key.
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let asked = tokio::time::timeout(DEADLINE, ask(&program, server)).await;
    let (output, success) = match asked {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => return Err(refuse(format!("does not run: {error}"))),
        Err(_) => return Err(refuse(format!("did not answer within {} s", DEADLINE.as_secs()))),
    };
    if !success {
        let said = String::from_utf8_lossy(&output);
        if said.to_lowercase().contains(NOT_FOUND) {
            return Ok(Credentials::Anonymous);
        }
        let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(refuse(format!("failed: {said}")));
    }
    credentials(&output).ok_or_else(|| refuse("answered in another format".to_owned()))
}

fn credentials(output: &[u8]) -> Option<Credentials> {
    let answer: Answer = serde_json::from_slice(output).ok()?;
    Some(match answer.username.as_str() {
        "" => Credentials::Anonymous,
        TOKEN_USER => Credentials::Identity(Secret(answer.secret)),
        _ => Credentials::Password { user: answer.username, password: Secret(answer.secret) },
    })
}

/// What it printed, and whether it was content.
async fn ask(program: &str, server: &str) -> std::io::Result<(Vec<u8>, bool)> {
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read says so by its answer.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_BYTES).read_to_end(&mut output).await?;
    }
    Ok((output, child.wait().await?.success()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Keychain;
    use super::*;

    /// A helper that is a shell script, found by its path in place of its name.
    async fn answer(script: &str) -> Result<(Vec<u8>, bool), std::io::Error> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-test");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        ask(program.to_str().unwrap(), "r.example").await
    }

    #[tokio::test]
    async fn the_registry_is_asked_for_on_standard_input() {
        let (output, success) = answer("[ $1 = get ] && read server; echo \"for $server\"").await.unwrap();
        assert_eq!((String::from_utf8_lossy(&output).as_ref(), success), ("for r.example\n", true));
        let (output, success) = answer("echo 'credentials not found in native keychain'; exit 1").await.unwrap();
        assert!(!success && String::from_utf8_lossy(&output).contains(NOT_FOUND));
    }

    #[test]
    fn the_name_of_a_user_tells_a_token_from_a_password() {
        let secret = || Secret("s".to_owned());
        let of = |user: &str| {
            credentials(format!(r#"{{"ServerURL": "r", "Username": "{user}", "Secret": "s"}}"#).as_bytes())
        };
        assert_eq!(of(TOKEN_USER), Some(Credentials::Identity(secret())));
        assert_eq!(of("me"), Some(Credentials::Password { user: "me".to_owned(), password: secret() }));
        assert_eq!(of(""), Some(Credentials::Anonymous));
        assert_eq!(credentials(b"[]"), None);
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, r#"{"credHelpers": {"r.example": "no-such", "s.example": "../evil"}}"#).unwrap();
        let keychain = Keychain::File(path);
        let error = keychain.of("r.example", "a").await.unwrap_err().to_string();
        assert!(error.contains("docker-credential-no-such does not run") && error.contains("config.json"), "{error}");
        assert!(keychain.of("s.example", "a").await.unwrap_err().to_string().contains("no usable name"));
    }
}
