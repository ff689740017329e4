//! The daemon's door to its clients: gRPC over HTTP/2, with limits, TLS and tokens.
//!
//! In: requests of `proto/doorward/v1`. Out: answers, streams, statuses with reasons; health and
//! reflection beside them. Wire types stop here.
//! Over a limit: connections are closed, streams wait in HTTP/2, subscribers are refused, long
//! calls end with DEADLINE_EXCEEDED; each has its reason.
//! Must not know: the insides of any stage.

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::cameras::Cameras;
use crate::clock::{Clock, Timestamp};
use crate::config::ServerConfig;
use crate::enrol::Enrolment;
use crate::event::LoggedEvent;
use crate::event_log::EventLog;
use crate::gallery::Gallery;
use crate::infer::EngineFacts;
use crate::pb::camera_service_server::CameraServiceServer;
use crate::pb::event_service_server::EventServiceServer;
use crate::pb::gallery_service_server::GalleryServiceServer;
use crate::pb::recognition_service_server::RecognitionServiceServer;
use crate::pb::shadow_service_server::ShadowServiceServer;
use crate::pb::system_service_server::SystemServiceServer;
use crate::recognise::Recogniser;
use crate::store::Store;
pub use auth::TOKEN_CHARS_MIN;
pub use connection::ConnectionCounts;
use server::Bound;
pub use server::{RpcError, ServerHandle, check_files};
pub use shadow::KnownShadow;
use status::Refusal;

mod auth;
mod cameras;
mod check;
mod connection;
mod convert;
mod correct;
mod encoded;
mod events;
mod feed;
mod filter;
mod gallery;
mod gallery_file;
mod gate;
mod import;
mod outgoing;
mod page;
mod places;
mod recognition;
mod reencode;
mod server;
mod shadow;
mod status;
mod system;
mod tls;

/// Subscribers at once; one more is refused, since each has a task of its own.
const SUBSCRIBERS_MAX: usize = 1_024;
/// Streams of operators at once: watched cameras, files of the gallery, encoding anew. Apart from those, since an operator must see
/// what is the matter when there are too many subscribers.
const OPERATORS_MAX: usize = 256;

/// What the services stand on.
#[derive(Clone)]
pub struct RpcParts {
    /// When the daemon was started.
    pub start_time: Timestamp,
    /// Changes who is known.
    pub enrolment: Enrolment,
    /// Answers questions about pictures.
    pub recogniser: Recogniser,
    /// Changes what is watched.
    pub cameras: Cameras,
    /// What happens.
    pub events: EventLog,
    /// Keeps the snapshots.
    pub store: Store,
    /// Who is called what, joined when events are delivered.
    pub gallery: Gallery,
    /// What inference runs on.
    pub engine_facts: EngineFacts,
    /// What runs in the shadow, if anything does.
    pub shadow: Option<KnownShadow>,
    /// The daemon's clock.
    pub clock: Arc<dyn Clock>,
}

/// An event as it is delivered, for whoever shows events without a server.
pub fn delivered(logged: &LoggedEvent, gallery: &Gallery) -> crate::pb::Event {
    let subject = logged.event.subject.and_then(|uid| gallery.subject(uid));
    convert::event::event(logged, subject.as_ref(), gallery)
}

/// What all services share.
struct Shared {
    parts: RpcParts,
    subscribers: Arc<Semaphore>,
    operators: Arc<Semaphore>,
    encoded: Arc<encoded::EncodedEvents>,
    /// Held by the one check of the gallery that is under way.
    check_turn: Mutex<()>,
    imports: Arc<Semaphore>,
    message_bytes_max: usize,
    stopping: CancellationToken,
}

impl Shared {
    /// A place among the subscribers, free again when it is dropped.
    fn subscriber_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        place(&self.subscribers, || format!("there are {SUBSCRIBERS_MAX} subscribers already; end one and try again"))
    }

    /// The same among the streams of operators.
    fn operator_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let those = "that watch cameras, carry a file of the gallery or encode it anew";
        place(&self.operators, || format!("there are {OPERATORS_MAX} streams already {those}; end one and try again"))
    }
}

fn place(places: &Arc<Semaphore>, refusal: impl Fn() -> String) -> Result<OwnedSemaphorePermit, Status> {
    let refused = |_| Refusal::new(Code::ResourceExhausted, "TOO_MANY_SUBSCRIBERS", refusal()).into();
    places.clone().try_acquire_owned().map_err(refused)
}

/// A bound server that does not answer yet.
pub struct Server(Bound);

impl Server {
    /// Reads certificate, key and tokens. Clients may connect to `listener` and wait until
    /// [`serve`](Self::serve). Until [`ServerHandle::start`], health says `NOT_SERVING` and every
    /// call of the services is refused as `UNAVAILABLE` (`STARTING`).
    ///
    /// # Errors
    /// [`RpcError`], naming the file.
    pub async fn open(config: &ServerConfig, listener: TcpListener) -> Result<Self, RpcError> {
        Bound::open(config, listener).await.map(Self)
    }

    /// Steers the server while it serves.
    pub fn handle(&self) -> ServerHandle {
        self.0.handle()
    }

    /// Serves until `shutdown`, then takes no more connections, ends every stream with
    /// `UNAVAILABLE` and returns when the calls under way have been answered. The caller sets the
    /// deadline and drops the future when it has passed.
    ///
    /// # Errors
    /// [`RpcError::Failed`].
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), RpcError> {
        self.0.serve(shutdown).await
    }
}

impl ServerHandle {
    /// Lets calls in to the services, which stand on `parts`, and says by health that they are served. To be called once.
    pub async fn start(&self, parts: RpcParts) {
        let shared = Shared {
            parts,
            subscribers: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
            operators: Arc::new(Semaphore::new(OPERATORS_MAX)),
            encoded: Arc::new(encoded::EncodedEvents::new()),
            imports: Arc::new(Semaphore::new(import::IMPORTS_MAX)),
            check_turn: Mutex::default(),
            message_bytes_max: self.message_bytes_max(),
            stopping: self.stopping().clone(),
        };
        self.start_with(routes(&Arc::new(shared), self.message_bytes_max())).await;
    }
}

fn routes(shared: &Arc<Shared>, message_bytes_max: usize) -> Routes {
    let shared = || shared.clone();
    Routes::new(GalleryServiceServer::new(gallery::GalleryApi(shared())).max_decoding_message_size(message_bytes_max))
        .add_service(RecognitionServiceServer::new(recognition::RecognitionApi(shared())).max_decoding_message_size(message_bytes_max))
        .add_service(EventServiceServer::new(events::EventsApi(shared())).max_decoding_message_size(message_bytes_max))
        .add_service(CameraServiceServer::new(cameras::CamerasApi(shared())).max_decoding_message_size(message_bytes_max))
        .add_service(ShadowServiceServer::new(shadow::ShadowApi(shared())).max_decoding_message_size(message_bytes_max))
        .add_service(SystemServiceServer::new(system::SystemApi(shared())).max_decoding_message_size(message_bytes_max))
}
