//! Listens and serves: limits, TLS, tokens, health and reflection around whatever is served.
//!
//! In: the server's configuration; the services' routes, which may come later than the first call. Out: a served socket and a
//! handle on it.
//! Over a limit: connections are closed and counted, streams wait in HTTP/2, long calls end with
//! DEADLINE_EXCEEDED.
//! Must not know: what the services do.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower_layer::layer_fn;

use super::auth::Tokens;
use super::connection::{ConnectionCounts, ConnectionLimits, Incoming};
use super::gate::Gate;
use super::places::Places;
use super::tls::{Identity, Wire};
use crate::config::ServerConfig;
use crate::pb::{
    camera_service_server, event_service_server, gallery_service_server, recognition_service_server, shadow_service_server,
    system_service_server,
};

/// How long a keepalive ping may go unanswered before the connection is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// What one call may send ahead of being read, in bytes: a photo should not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What one connection may send ahead of being read, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The most that the headers of one call may take, in bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// How long calls and connections may take to end once the server is to stop: within what the daemon has for its whole end, after its
/// cameras.
const ENDING_MAX: Duration = Duration::from_secs(4);
/// The services whose health is reported, beside "" for all of them.
const SERVICES: [&str; 6] = [
    gallery_service_server::SERVICE_NAME,
    recognition_service_server::SERVICE_NAME,
    event_service_server::SERVICE_NAME,
    camera_service_server::SERVICE_NAME,
    shadow_service_server::SERVICE_NAME,
    system_service_server::SERVICE_NAME,
];

/// The server could not begin, or not read its files again.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The listening socket cannot be used.
    #[error("the listening socket cannot be used: {0}")]
    Socket(#[source] std::io::Error),
    /// A configured file is not there or cannot be read.
    #[error("cannot read {path} ({key}): {source}")]
    Unreadable {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others than the owner may read the tokens.
    #[error("{path} holds tokens and others can read or change it (mode {mode:04o}); run: chmod 640 {path}")]
    TokensOpen {
        /// The token file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line of the token file is no token.
    #[error("{path}, line {line}: the token {reason}; make one with: openssl rand -hex 32")]
    BadToken {
        /// The token file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, without the token.
        reason: &'static str,
    },
    /// The token file lets nobody in.
    #[error("{path} holds no token; make one with: openssl rand -hex 32")]
    NoToken {
        /// The token file.
        path: PathBuf,
    },
    /// Certificate and key are not usable together.
    #[error("{certificate} and {key} are no certificate chain (PEM) with its private key: {reason}")]
    BadIdentity {
        /// `server.tls_certificate_file`.
        certificate: PathBuf,
        /// `server.tls_key_file`.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Serving failed.
    #[error("the gRPC server failed: {0}")]
    Failed(String),
}

/// Reads certificate, key and tokens as the server will, and keeps nothing: what is wrong with them
/// is told before anything else is opened.
///
/// # Errors
/// [`RpcError`], which names the file.
pub fn check_files(config: &ServerConfig) -> Result<(), RpcError> {
    config.token_file.as_deref().map(Tokens::load).transpose()?;
    Identity::load(config)?;
    Ok(())
}

/// A socket that is listened on, with everything that serving needs but the services.
pub(super) struct Bound {
    config: ServerConfig,
    listener: TcpListener,
    handle: ServerHandle,
}

/// Steers a running server. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    health: HealthReporter,
    tokens: Option<Arc<Tokens>>,
    identity: Option<Arc<Identity>>,
    /// Set once the daemon has started.
    services: Arc<OnceLock<Routes>>,
    /// Cancelled when the server ends: streams end by it.
    stopping: CancellationToken,
    connections: Arc<ConnectionCounts>,
    places: Arc<Places>,
    message_bytes_max: usize,
}

impl Bound {
    /// Reads certificate, key and tokens; health says `NOT_SERVING` from here on.
    pub(super) async fn open(config: &ServerConfig, listener: TcpListener) -> Result<Self, RpcError> {
        let tokens = config.token_file.as_deref().map(Tokens::load).transpose()?.map(Arc::new);
        let identity = Identity::load(config)?.map(Arc::new);
        let address = listener.local_addr().map_err(RpcError::Socket)?;
        let handle = ServerHandle {
            address,
            health: HealthReporter::new(),
            tokens,
            identity,
            services: Arc::default(),
            stopping: CancellationToken::new(),
            connections: Arc::default(),
            places: Places::new(usize::try_from(config.connections_max).unwrap_or(usize::MAX)),
            message_bytes_max: config.message_bytes_max,
        };
        handle.set_ready(false).await;
        Ok(Self { config: config.clone(), listener, handle })
    }

    pub(super) fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves health and reflection, and the services once [`ServerHandle::start_with`] has brought them, until `stop`; then answers
    /// what is under way.
    pub(super) async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), RpcError> {
        let Self { config, listener, handle } = self;
        let interval = Duration::from_millis(config.keepalive_interval_ms);
        let hello = Duration::from_millis(config.handshake_timeout_ms);
        // A live client answers a ping within this; the handshake's time is the slack.
        let limits = ConnectionLimits { hello, silence: interval + KEEPALIVE_TIMEOUT + hello };
        let builder = tonic::transport::Server::builder()
            .max_concurrent_streams(config.streams_per_connection_max)
            .http2_keepalive_interval(Some(interval))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let (tokens, services) = (handle.tokens.clone(), Arc::clone(&handle.services));
        let deadline = Duration::from_millis(config.request_timeout_ms);
        let gate = layer_fn(move |always| Gate { always, services: Arc::clone(&services), tokens: tokens.clone(), deadline });
        let health = HealthServer::new(HealthService::from_health_reporter(handle.health.clone()));
        let always = with_reflection(Routes::new(health))?;
        let (stopping, ended) = (handle.stopping.clone(), handle.stopping.clone());
        let acceptor = handle.identity.as_deref().map(Identity::acceptor).transpose()?;
        let incoming = Incoming::new(listener, limits, (handle.places.clone(), handle.connections.clone())).map(move |connection| {
            connection.map(|connection| match &acceptor {
                Some(acceptor) => Wire::secured(connection, acceptor, (hello, &stopping)),
                None => Wire::clear(connection),
            })
        });
        let stop = async {
            stop.await;
            handle.stop().await;
        };
        let router = builder.layer(gate).add_routes(always);
        tokio::select! {
            outcome = router.serve_with_incoming_shutdown(incoming, stop) => outcome.map_err(|error| RpcError::Failed(error.to_string())),
            () = async { ended.cancelled().await; tokio::time::sleep(ENDING_MAX).await } => {
                tracing::warn!("connections did not end within {ENDING_MAX:?} and are cut: their clients do not read, or a long call is under way");
                Ok(())
            }
        }
    }
}

/// Adds reflection in both versions that clients speak, each with every descriptor set, that of
/// error details included.
fn with_reflection(routes: Routes) -> Result<Routes, RpcError> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(crate::pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
    };
    let failed = |error: tonic_reflection::server::Error| RpcError::Failed(error.to_string());
    Ok(routes.add_service(builder().build_v1().map_err(failed)?).add_service(builder().build_v1alpha().map_err(failed)?))
}

impl ServerHandle {
    /// The address that is listened on, with the port that the system chose where 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The longest message that a client may send, in bytes.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// Cancelled when the server is to end.
    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Lets calls in to `services` from now on, and says `SERVING`. They come once: later ones change nothing.
    pub(super) async fn start_with(&self, services: Routes) {
        self.services.get_or_init(|| services);
        self.set_ready(true).await;
    }

    /// Says by health that the daemon is about to end. Calls are answered until the server ends, even so.
    pub async fn announce_end(&self) {
        self.set_ready(false).await;
    }

    /// Of every service, and "".
    async fn set_ready(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES.into_iter().chain([""]) {
            self.health.set_service_status(service, status).await;
        }
    }

    /// Says by health whether events can be told: of the event service, and of the whole.
    pub async fn set_events_told(&self, told: bool) {
        if self.services.get().is_none() {
            return;
        }
        let status = if told { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in [event_service_server::SERVICE_NAME, ""] {
            self.health.set_service_status(service, status).await;
        }
    }

    /// Ends the streams, says `NOT_SERVING`, then ends those who watch health, which would hold the end up for ever.
    async fn stop(&self) {
        self.stopping.cancel();
        self.set_ready(false).await;
        let mut health = self.health.clone();
        for service in SERVICES.into_iter().chain([""]) {
            health.clear_service_status(service).await;
        }
    }

    /// Reads the token file again; answers whether one is configured. Calls under way go on.
    ///
    /// # Errors
    /// [`RpcError`]; the old tokens stay in force.
    pub fn reload_tokens(&self) -> Result<bool, RpcError> {
        let Some(tokens) = &self.tokens else { return Ok(false) };
        tokens.reload()?;
        self.places.reconsider();
        Ok(true)
    }

    /// Reads certificate and key again, for the connections to come; answers whether they are configured.
    ///
    /// # Errors
    /// [`RpcError`]; the old pair stays in force.
    pub fn reload_certificate(&self) -> Result<bool, RpcError> {
        self.identity.as_ref().map_or(Ok(false), |identity| identity.reload().map(|()| true))
    }

    /// Connections that were closed by a limit.
    pub fn connections(&self) -> &ConnectionCounts {
        &self.connections
    }
}

#[cfg(test)]
mod tests;
