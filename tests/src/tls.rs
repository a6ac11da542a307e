//! A certificate authority of the tests' own, and a certificate of a server on 127.0.0.1.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

/// The variable by which fixtures are told to speak TLS: the folder with what they need for it.
pub const VARIABLE: &str = "FIXTURE_TLS";

/// A folder with the authority's certificate (`ca.pem`), and a server's certificate (`cert.pem`) with its key (`key.pem`).
pub struct Credentials {
    folder: TempDir,
}

impl Credentials {
    /// Makes them anew.
    pub fn new() -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "authority of the tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        server.distinguished_name.push(DnType::CommonName, "server of the tests");
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let server = server.signed_by(&key, &authority)?;
        let folder = TempDir::new()?;
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        std::fs::write(folder.path().join("cert.pem"), server.pem())?;
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem())?;
        Ok(Self { folder })
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
