//! An authority of the test's own, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

pub struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Signed {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub der: Vec<u8>,
    pub key_der: Vec<u8>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// For the names and addresses.
    pub fn sign(&self, name: &str, subjects: &[&str]) -> Signed {
        let subjects: Vec<String> = subjects.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(subjects).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key_pair = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key_pair, &self.issuer).unwrap();
        let (certificate, key) =
            (self.dir.path().join(format!("{name}.cert")), self.dir.path().join(format!("{name}.key")));
        std::fs::write(&certificate, signed.pem()).unwrap();
        std::fs::write(&key, key_pair.serialize_pem()).unwrap();
        Signed { certificate, key, der: signed.der().to_vec(), key_der: key_pair.serialize_der() }
    }

    /// Lines for a registry's section `http`.
    pub fn for_registry(&self, clients_too: bool) -> String {
        let own = self.sign("server", &["127.0.0.1", "localhost"]);
        let clients = format!("    clientcas:\n      - {}\n", self.certificate().display());
        let clients = if clients_too { clients } else { String::new() };
        format!("  tls:\n    certificate: {}\n    key: {}\n{clients}", own.certificate.display(), own.key.display())
    }
}
