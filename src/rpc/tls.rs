//! The server's certificate and key, replaced while it runs, and the handshake.
//!
//! In: the two files of the configuration, accepted connections. Out: streams of bytes in clear, or an error that names the
//! files. A handshake that takes too long ends its connection. The key is never printed.
//! Must not know: HTTP/2, tokens.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, crypto};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_util::either::Either;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::RpcError;
use super::connection::Connection;
use crate::config::ServerConfig;

/// What both sides agree to speak: HTTP/2 (RFC 7301, RFC 9113).
const PROTOCOL: &[u8] = b"h2";

/// A certificate chain with its private key, and the files that they come from.
pub(super) struct Identity {
    certificate_file: PathBuf,
    key_file: PathBuf,
    in_force: Arc<InForce>,
}

/// What the next handshake shows.
#[derive(Debug)]
struct InForce(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for InForce {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificate_file", &self.certificate_file).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the two files; `None` where none are configured.
    ///
    /// # Errors
    /// [`RpcError::Unreadable`], or [`RpcError::BadIdentity`] when they do not make an identity.
    pub(super) fn load(config: &ServerConfig) -> Result<Option<Self>, RpcError> {
        let (Some(certificate_file), Some(key_file)) = (&config.tls_certificate_file, &config.tls_key_file) else { return Ok(None) };
        let in_force = Arc::new(InForce(ArcSwap::new(read_pair(certificate_file, key_file)?)));
        Ok(Some(Self { certificate_file: certificate_file.clone(), key_file: key_file.clone(), in_force }))
    }

    /// Reads the two files again, for the handshakes to come; connections that stand go on.
    ///
    /// # Errors
    /// As [`load`](Self::load); the old pair stays in force.
    pub(super) fn reload(&self) -> Result<(), RpcError> {
        self.in_force.0.store(read_pair(&self.certificate_file, &self.key_file)?);
        Ok(())
    }

    /// What answers handshakes by this identity.
    ///
    /// # Errors
    /// [`RpcError::Failed`] when the library has no protocol version for it.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, RpcError> {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| RpcError::Failed(error.to_string()))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&self.in_force) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Reads a certificate chain and its key, and tries whether they belong together: a wrong pair must not wait for a client.
fn read_pair(certificate_file: &Path, key_file: &Path) -> Result<Arc<CertifiedKey>, RpcError> {
    let read = |key, path: &Path| std::fs::read(path).map_err(|source| RpcError::Unreadable { key, path: path.into(), source });
    let refused = |reason: String| RpcError::BadIdentity { certificate: certificate_file.into(), key: key_file.into(), reason };
    let chain = read("server.tls_certificate_file", certificate_file)?;
    let key = read("server.tls_key_file", key_file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.map_err(|error| refused(format!("the certificate file: {error}")))?;
    if chain.is_empty() {
        return Err(refused("the certificate file holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| refused(format!("the key file: {error}")))?;
    CertifiedKey::from_der(chain, key, &crypto::ring::default_provider()).map(Arc::new).map_err(|error| refused(error.to_string()))
}

/// A connection as the HTTP/2 server reads it: in clear, or decrypted. The handshake is made by whoever reads first, in the
/// connection's own task, so that nobody's handshake keeps others from being accepted.
pub(super) struct Wire {
    info: TcpConnectInfo,
    state: State,
}

/// In clear, or decrypted.
type Stream = Either<Connection, TlsStream<Connection>>;

enum State {
    Handshake { accept: Accept<Connection>, until: Pin<Box<Sleep>> },
    Open(Stream),
}

impl Wire {
    /// `connection` in clear.
    pub(super) fn clear(connection: Connection) -> Self {
        Self { info: connection.connect_info(), state: State::Open(Stream::Left(connection)) }
    }

    /// `connection` over TLS, unless its handshake takes longer than `handshake`.
    pub(super) fn secured(connection: Connection, acceptor: &TlsAcceptor, handshake: Duration) -> Self {
        let info = connection.connect_info();
        Self { info, state: State::Handshake { accept: acceptor.accept(connection), until: Box::pin(sleep(handshake)) } }
    }

    /// The stream, once there is one.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Stream>>> {
        if let State::Handshake { accept, until } = &mut self.state {
            let stream = match Pin::new(accept).poll(cx) {
                Poll::Ready(stream) => stream?,
                Poll::Pending => {
                    ready!(until.as_mut().poll(cx));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")));
                }
            };
            self.state = State::Open(Stream::Right(stream));
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            // It was opened above.
            State::Handshake { .. } => Poll::Pending,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        // Both kinds of stream are.
        true
    }
}

impl Connected for Wire {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.info.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_stream::StreamExt;

    use super::*;
    use crate::rpc::connection::{ConnectionCounts, ConnectionLimits, Incoming};

    #[tokio::test]
    async fn a_handshake_that_does_not_end_is_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let file = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("written");
            Some(directory.path().join(name))
        };
        let config = ServerConfig {
            tls_certificate_file: file("certificate.pem", &made.cert.pem()),
            tls_key_file: file("key.pem", &made.signing_key.serialize_pem()),
            ..ServerConfig::default()
        };
        let acceptor = Identity::load(&config).expect("a pair").expect("configured").acceptor().expect("it answers");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let limits = ConnectionLimits { connections_max: 1, hello: Duration::from_secs(50), silence: Duration::from_secs(100) };
        let mut incoming = Incoming::new(listener, limits, Arc::new(ConnectionCounts::default()));
        let mut client = TcpStream::connect(address).await.expect("connected");
        let connection = incoming.next().await.expect("never ends").expect("accepted");
        // The head of a record that never comes.
        client.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.expect("written");
        client.write_all(&[1; 64]).await.expect("written");
        tokio::time::pause();
        let mut wire = Wire::secured(connection, &acceptor, Duration::from_secs(5));
        let before = tokio::time::Instant::now();
        let error = wire.read(&mut [0; 64]).await.expect_err("no handshake");
        assert!(error.kind() == io::ErrorKind::TimedOut && error.to_string().contains("handshake"), "{error}");
        assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
    }
}
