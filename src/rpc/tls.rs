//! The server's certificate and key.
//!
//! In: the two files of the configuration. Out: tonic's TLS settings, or an error that names them.
//! The key is never printed.
//! Must not know: connections, tokens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::ServerTlsConfig;

use super::RpcError;
use crate::config::ServerConfig;

/// A certificate chain with its private key.
pub(super) struct Identity {
    certificate_file: PathBuf,
    key_file: PathBuf,
    pem: tonic::transport::Identity,
}

impl Identity {
    /// Reads the two files; `None` where none are configured.
    ///
    /// # Errors
    /// [`RpcError::Unreadable`], or [`RpcError::BadIdentity`] when they do not make an identity.
    pub(super) fn load(config: &ServerConfig) -> Result<Option<Self>, RpcError> {
        let (Some(certificate_file), Some(key_file)) = (&config.tls_certificate_file, &config.tls_key_file) else { return Ok(None) };
        let read = |key, path: &Path| std::fs::read(path).map_err(|source| RpcError::Unreadable { key, path: path.into(), source });
        let certificate = read("server.tls_certificate_file", certificate_file)?;
        let key = read("server.tls_key_file", key_file)?;
        let pem = tonic::transport::Identity::from_pem(certificate, key);
        let identity = Self { certificate_file: certificate_file.clone(), key_file: key_file.clone(), pem };
        // Tried before anything listens: a wrong pair must not wait for the first client.
        match tonic::transport::Server::builder().tls_config(identity.config(Duration::ZERO)) {
            Ok(_) => Ok(Some(identity)),
            Err(error) => Err(identity.refused(&error)),
        }
    }

    /// TLS with this identity; a handshake that takes longer than `handshake` ends.
    pub(super) fn config(&self, handshake: Duration) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.pem.clone()).timeout(handshake)
    }

    /// The error of a pair that cannot be used.
    pub(super) fn refused(&self, error: &dyn std::error::Error) -> RpcError {
        let mut reason = error.to_string();
        if let Some(source) = error.source() {
            reason = source.to_string();
        }
        RpcError::BadIdentity { certificate: self.certificate_file.clone(), key: self.key_file.clone(), reason }
    }
}
