//! TLS with one host: whom it is believed to be, and which certificate it is shown.
//!
//! reqwest itself knows only one client certificate. `hosts.toml` may name several, of which the right one is chosen by
//! the authorities that the host says it trusts.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::hosts::Host;

/// Against the authorities of this machine and of the host's own configuration.
pub(super) fn config(host: &Host) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |error: Error| error.to_string();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?.dangerous();
    let builder = if host.skip_verify {
        builder.with_custom_certificate_verifier(Arc::new(Anyone(Arc::clone(&provider))))
    } else {
        let verifier = Verifier::new_with_extra_roots(authorities(&host.ca)?, Arc::clone(&provider)).map_err(failed)?;
        builder.with_custom_certificate_verifier(Arc::new(verifier))
    };
    let own = host.clients.iter().map(|pem| certified(pem.reveal().as_bytes(), &provider));
    let own =
        own.collect::<Option<_>>().ok_or("its client certificate or key is not usable PEM, or they do not match")?;
    Ok(builder.with_client_cert_resolver(Arc::new(Own(own))))
}

fn authorities(files: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut all = Vec::new();
    for pem in files {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| "a file of authorities is not usable PEM".to_owned())?;
        if certificates.is_empty() {
            return Err("a file of authorities has no certificate in it".to_owned());
        }
        all.extend(certificates);
    }
    Ok(all)
}

/// Nothing is said of what is wrong with a key.
fn certified(pem: &[u8], provider: &CryptoProvider) -> Option<Arc<CertifiedKey>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
    // Also checks that the key is the certificate's.
    CertifiedKey::from_der(chain, key, provider).ok().map(Arc::new)
}

/// The certificates a host may be shown.
#[derive(Debug)]
struct Own(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Own {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = || self.0.iter().filter(|own| own.key.choose_scheme(schemes).is_some());
        // An authority's name is in every certificate that it issued, in the very same encoding.
        let issued = |own: &&Arc<CertifiedKey>| {
            own.cert.iter().any(|certificate| {
                authorities
                    .iter()
                    .any(|name| !name.is_empty() && certificate.windows(name.len()).any(|part| part == *name))
            })
        };
        // Hosts do not always name all whom they trust.
        usable().find(issued).or_else(|| usable().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Takes any certificate: `skip_verify`.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
