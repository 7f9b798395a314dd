//! Image names as Docker's users write them.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference as OciReference;
use thiserror::Error;

use crate::digest::Digest;

/// An image's name: registry, repository, and a tag or a digest. `nginx` means
/// `docker.io/library/nginx:latest`. With a digest the tag says nothing more and is dropped.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference(OciReference);

/// Text that names no image.
#[derive(Debug, Error)]
#[error("\"{text}\" is not an image name: {cause}; write it as [REGISTRY/]NAME[:TAG|@sha256:DIGEST]")]
pub struct ReferenceError {
    text: String,
    cause: String,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |cause: String| ReferenceError { text: text.chars().take(300).collect(), cause };
        let parsed = OciReference::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let (registry, repository) = (parsed.registry().to_owned(), parsed.repository().to_owned());
        Ok(Self(match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) => {
                let digest: Digest = digest.parse().map_err(|error: crate::DigestError| refuse(error.to_string()))?;
                OciReference::with_digest(registry, repository, digest.to_string())
            }
            (None, tag) => OciReference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned()),
        }))
    }
}

impl Reference {
    /// `docker.io/library/nginx:latest`
    #[must_use]
    pub fn canonical(&self) -> String {
        self.0.whole()
    }

    /// `nginx:latest`: what of the canonical name users do not write is left out.
    #[must_use]
    pub fn familiar(&self) -> String {
        familiar(&self.canonical()).to_owned()
    }

    /// `docker.io`
    #[must_use]
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// `library/nginx`
    #[must_use]
    pub fn repository(&self) -> &str {
        self.0.repository()
    }

    /// The tag, unless the name has a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    /// The manifest's digest, when the name fixes it.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.0.digest().and_then(|digest| digest.parse().ok())
    }
}

/// A canonical name as users write it.
#[must_use]
pub fn familiar(canonical: &str) -> &str {
    let name = canonical.strip_prefix("docker.io/").unwrap_or(canonical);
    if name.len() == canonical.len() { name } else { name.strip_prefix("library/").unwrap_or(name) }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, canonical, familiar) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
            ("curlimages/curl", "docker.io/curlimages/curl:latest", "curlimages/curl:latest"),
            ("docker.io/kennethreitz/httpbin", "docker.io/kennethreitz/httpbin:latest", "kennethreitz/httpbin:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("ghcr.io/library/x", "ghcr.io/library/x:latest", "ghcr.io/library/x:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.canonical().as_str(), reference.to_string().as_str()), (canonical, familiar));
        }
        let reference: Reference = format!("nginx:1.27@{digest}").parse().unwrap();
        assert_eq!(reference.canonical(), format!("docker.io/library/nginx@{digest}"));
        assert_eq!(reference.digest().unwrap().to_string(), digest);
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_form_of_one() {
        for text in ["", "UPPER", "a b", "a:b:c", "-a", "../etc", "a@sha256:12", "a@sha512:zz", "http://a/b"] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains("[REGISTRY/]NAME"), "{error}");
        }
    }
}
