//! A certificate authority of the tests, for stand-ins and gateways that speak TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A test authority and a certificate of it for 127.0.0.1 and localhost, all as PEM.
pub struct Authority {
    /// What clients must trust.
    pub pem: String,
    certificate: String,
    key: String,
}

/// A new authority with a new certificate.
pub fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "the tests' authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    Authority { pem: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
}

impl Authority {
    /// The settings of a server with the certificate.
    pub fn server_config(&self) -> rustls::ServerConfig {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        config.with_single_cert(vec![certificate], key).unwrap()
    }

    /// The authority, the certificate and its key as files of a folder.
    pub fn files(&self, folder: &Path) -> [PathBuf; 3] {
        let files = [("authority.pem", &self.pem), ("certificate.pem", &self.certificate), ("key.pem", &self.key)];
        files.map(|(name, text)| {
            let file = folder.join(name);
            std::fs::write(&file, text).unwrap();
            file
        })
    }
}
