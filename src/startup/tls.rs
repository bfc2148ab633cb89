//! The certificate that HTTPS is served with.

use std::path::Path;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsSettings;

/// Why HTTPS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file.
    #[error("IMAGEGATE_TLS_CERT={file} cannot be used: {reason}")]
    Certificate {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// The key's file.
    #[error("IMAGEGATE_TLS_KEY={file} cannot be used: {reason}")]
    Key {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}

/// TLS 1.2 and 1.3 with the certificate of the settings.
pub fn server_config(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let named = |path: &Path| path.display().to_string();
    let bad_certificate = |reason: String| TlsError::Certificate { file: named(&settings.certificate), reason };
    let bad_key = |reason: String| TlsError::Key { file: named(&settings.key), reason };
    let chain = CertificateDer::pem_file_iter(&settings.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|fault| bad_certificate(fault.to_string()))?;
    if chain.is_empty() {
        return Err(bad_certificate("it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|fault| bad_key(fault.to_string()))?;
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|fault| bad_key(format!("{fault}; does it belong to the certificate?")))
}
