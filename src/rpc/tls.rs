//! The server's certificate and key, replaced while it runs, and the handshake.
//!
//! In: the two files of the configuration, accepted connections. Out: streams of bytes in clear, or an error that names the
//! files. A handshake that takes too long, or beyond the server's end, ends its connection. The key is never printed.
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
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, crypto};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_util::either::Either;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::RpcError;
use super::connection::{Caller, Connection};
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
        // Whoever resumes a session is shown no certificate, a renewed one neither.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
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
    let chain = chain.map_err(|error| refused(format!("the certificate file {}", fault(&error))))?;
    if chain.is_empty() {
        return Err(refused("the certificate file holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| refused(format!("the key file {}", fault(&error))))?;
    CertifiedKey::from_der(chain, key, &crypto::ring::default_provider()).map(Arc::new).map_err(|error| refused(error.to_string()))
}

/// What is wrong with a PEM file. The library's own words hold what it could not read, which may be the key.
fn fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "holds nothing of its kind between lines of -----BEGIN ...----- and -----END ...-----",
        pem::Error::MissingSectionEnd { .. } => "has a section without its line of -----END ...-----; each of these lines stands alone",
        pem::Error::IllegalSectionStart { .. } => "has a line of -----BEGIN ...----- that is not whole; each of these lines stands alone",
        pem::Error::Base64Decode(_) => "has a section that is no base64",
        _ => "cannot be read as PEM",
    }
}

/// A connection as the HTTP/2 server sees it: in clear, or decrypted. The handshake is made at the first read or write, in the
/// connection's own task, so that nobody's handshake keeps others from being accepted.
pub(super) struct Wire {
    info: Caller,
    state: State,
}

/// In clear, or decrypted.
type Stream = Either<Connection, TlsStream<Connection>>;

enum State {
    Handshake {
        accept: Accept<Connection>,
        until: Pin<Box<Sleep>>,
        /// The server's end, which waits for no handshake.
        stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    },
    Open(Stream),
    /// The handshake came to nothing.
    Failed,
}

impl Wire {
    /// `connection` in clear.
    pub(super) fn clear(connection: Connection) -> Self {
        Self { info: connection.connect_info(), state: State::Open(Stream::Left(connection)) }
    }

    /// `connection` over TLS, unless its handshake takes longer than `handshake` or until `stop`.
    pub(super) fn secured(connection: Connection, acceptor: &TlsAcceptor, (handshake, stop): (Duration, &CancellationToken)) -> Self {
        let (info, accept) = (connection.connect_info(), acceptor.accept(connection));
        let (until, stopped) = (Box::pin(sleep(handshake)), Box::pin(stop.clone().cancelled_owned()));
        Self { info, state: State::Handshake { accept, until, stopped } }
    }

    /// The stream, once there is one.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Stream>>> {
        if let State::Handshake { accept, until, stopped } = &mut self.state {
            let ended = if let Poll::Ready(stream) = Pin::new(accept).poll(cx) {
                stream
            } else if until.as_mut().poll(cx).is_ready() {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))
            } else {
                ready!(stopped.as_mut().poll(cx));
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server ends"))
            };
            // Whoever asks again after an error is told one, too.
            self.state = State::Failed;
            self.state = State::Open(Stream::Right(ended?));
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            State::Handshake { .. } | State::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
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
    type ConnectInfo = Caller;

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
    use crate::rpc::connection::{ConnectionLimits, Incoming};
    use crate::rpc::places::Places;

    /// A connection whose client has begun a handshake and says no more; the client.
    async fn begun() -> (Connection, TlsAcceptor, TcpStream) {
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
        let limits = ConnectionLimits { hello: Duration::from_secs(50), silence: Duration::from_secs(100) };
        let mut incoming = Incoming::new(listener, limits, (Places::new(1), Arc::default()));
        let mut client = TcpStream::connect(address).await.expect("connected");
        let connection = incoming.next().await.expect("never ends").expect("accepted");
        // The head of a record that never comes.
        client.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.expect("written");
        client.write_all(&[1; 64]).await.expect("written");
        (connection, acceptor, client)
    }

    #[tokio::test]
    async fn a_handshake_that_does_not_end_is_ended() {
        let (connection, acceptor, _client) = begun().await;
        tokio::time::pause();
        let mut wire = Wire::secured(connection, &acceptor, (Duration::from_secs(5), &CancellationToken::new()));
        let before = tokio::time::Instant::now();
        // As the HTTP/2 server does, which speaks first.
        let error = wire.write(&[0; 64]).await.expect_err("no handshake");
        assert!(error.kind() == io::ErrorKind::TimedOut && error.to_string().contains("handshake"), "{error}");
        assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
        assert_eq!(wire.read(&mut [0; 64]).await.expect_err("it failed").kind(), io::ErrorKind::NotConnected);
        assert!(wire.shutdown().await.is_err(), "and does not panic");
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_handshake() {
        let (connection, acceptor, _client) = begun().await;
        let stop = CancellationToken::new();
        let mut wire = Wire::secured(connection, &acceptor, (Duration::from_secs(60), &stop));
        let reading = tokio::spawn(async move { wire.read(&mut [0; 64]).await.map_err(|error| error.kind()) });
        // It waits for the client by now.
        tokio::task::yield_now().await;
        stop.cancel();
        assert_eq!(reading.await.expect("no panic"), Err(io::ErrorKind::ConnectionAborted));
    }

    #[test]
    fn a_key_that_lost_its_lines_is_refused_without_a_word_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (directory.path().join("certificate.pem"), directory.path().join("key.pem"));
        let pem = made.signing_key.serialize_pem();
        let secret = pem.lines().nth(1).expect("base64").to_owned();
        let bytes = secret.bytes().take(8).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        std::fs::write(&certificate, made.cert.pem()).expect("written");
        for damaged in [pem.replace('\n', ""), pem.replacen('\n', "", 1), pem.replacen("-----\n", "--\n", 1), format!("{secret}{pem}")] {
            for files in [(&certificate, &key), (&key, &key)] {
                std::fs::write(&key, &damaged).expect("written");
                let error = read_pair(files.0, files.1).expect_err("no pair");
                let told = format!("{error} {error:?}");
                assert!(told.contains("key.pem") && !told.contains(&secret[..8]) && !told.contains(&bytes), "{told}");
            }
        }
    }
}
