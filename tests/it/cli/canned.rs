//! A daemon with canned answers on loopback, to see what the command line makes of them.
//!
//! In: calls. Out: the same answers every time; what came in is kept for the test to look at.
//! Drops: nothing. Must not know: any stage.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use doorward::pb;
use doorward::pb::camera_service_server::{CameraService, CameraServiceServer};
use doorward::pb::event_service_server::{EventService, EventServiceServer};
use doorward::pb::gallery_service_server::{GalleryService, GalleryServiceServer};
use doorward::pb::recognition_service_server::{RecognitionService, RecognitionServiceServer};
use prost::Message;
use prost_types::Timestamp;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What the canned picture's bytes are: nobody here looks into them.
pub const JPEG: &[u8] = b"\xff\xd8canned\xff\xd9";
pub const SNAPSHOT_ID: &str = "0193b6f2-8c1e-7d7a-a3ce-1f2e3d4c5b6a";

/// What came in.
#[derive(Debug, Default)]
pub struct Seen {
    pub tokens: Vec<Option<String>>,
    pub credentials: Vec<(String, String)>,
    pub request_ids: Vec<String>,
    pub update_masks: Vec<Vec<String>>,
    pub imported: Vec<String>,
}

#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Seen>>);

/// A running server.
pub struct Canned {
    pub url: String,
    pub seen: Arc<Mutex<Seen>>,
    // Stops the server when the test ends.
    _runtime: tokio::runtime::Runtime,
}

impl Canned {
    pub fn start() -> Self {
        Self::start_with("http://127.0.0.1", tonic::transport::Server::builder())
    }

    /// A server that speaks TLS only, as `localhost`, and its certificate in PEM.
    pub fn start_guarded() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let identity = tonic::transport::Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
        let tls = tonic::transport::ServerTlsConfig::new().identity(identity);
        let server = tonic::transport::Server::builder().tls_config(tls).expect("a good certificate");
        (Self::start_with("https://localhost", server), made.cert.pem())
    }

    fn start_with(host: &str, mut server: tonic::transport::Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
        let answers = Answers::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))).expect("loopback");
        let url = format!("{host}:{}", listener.local_addr().expect("it is bound").port());
        let server = server
            .add_service(GalleryServiceServer::new(answers.clone()))
            .add_service(CameraServiceServer::new(answers.clone()))
            .add_service(EventServiceServer::new(answers.clone()))
            .add_service(RecognitionServiceServer::new(answers.clone()));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { url, seen: answers.0, _runtime: runtime }
    }
}

/// Methods that no test calls.
macro_rules! unanswered {
    ($($method:ident: $request:ident => $response:ty),+ $(,)?) => {$(
        fn $method<'s, 'f>(&'s self, _: Request<pb::$request>) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented("no test asks this")) })
        }
    )+};
}

type Answer<T> = Result<Response<T>, Status>;
type Statuses = Pin<Box<dyn Stream<Item = Result<pb::WatchCamerasResponse, Status>> + Send>>;
type Versions = Pin<Box<dyn Stream<Item = Result<pb::WatchGalleryResponse, Status>> + Send>>;
type Doubts = Pin<Box<dyn Stream<Item = Result<pb::CheckGalleryResponse, Status>> + Send>>;
type Reencodings = Pin<Box<dyn Stream<Item = Result<pb::ReencodeGalleryResponse, Status>> + Send>>;
type Imports = Pin<Box<dyn Stream<Item = Result<pb::ImportGalleryResponse, Status>> + Send>>;
type Imported = Pin<Box<dyn Stream<Item = Result<pb::ImportSubjectsResponse, Status>> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Result<pb::EncodedSubscribeResponse, Status>> + Send>>;

impl Answers {
    fn see<T>(&self, request: &Request<T>) -> std::sync::MutexGuard<'_, Seen> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut seen = self.0.lock().expect("no test panics while it looks");
        seen.tokens.push(token);
        seen
    }
}

fn refused(code: Code, reason: &str, message: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Status::with_error_details(
        code,
        message,
        ErrorDetails::with_error_info(reason, "doorward.v1", metadata.collect::<std::collections::HashMap<_, _>>()),
    )
}

fn subject(id: &str) -> pb::Subject {
    pb::Subject { id: id.into(), display_name: format!("{id} \u{1b}[31m"), sample_count: 1, ..pb::Subject::default() }
}

#[tonic::async_trait]
impl GalleryService for Answers {
    unanswered! {
        get_subject: GetSubjectRequest => pb::GetSubjectResponse,
        delete_subject: DeleteSubjectRequest => pb::DeleteSubjectResponse,
        list_samples: ListSamplesRequest => pb::ListSamplesResponse,
        delete_sample: DeleteSampleRequest => pb::DeleteSampleResponse,
        get_gallery: GetGalleryRequest => pb::GetGalleryResponse,
        list_gallery_versions: ListGalleryVersionsRequest => pb::ListGalleryVersionsResponse,
        compare_gallery_versions: CompareGalleryVersionsRequest => pb::CompareGalleryVersionsResponse,
        rollback_gallery: RollbackGalleryRequest => pb::RollbackGalleryResponse,
        watch_gallery: WatchGalleryRequest => Versions,
        check_gallery: CheckGalleryRequest => Doubts,
        reencode_gallery: ReencodeGalleryRequest => Reencodings,
    }

    type WatchGalleryStream = Versions;
    type CheckGalleryStream = Doubts;
    type ImportGalleryStream = Imports;
    type ReencodeGalleryStream = Reencodings;

    type ImportSubjectsStream = Imported;

    /// No test asks this.
    async fn import_gallery(&self, _: Request<tonic::Streaming<pb::ImportGalleryRequest>>) -> Answer<Imports> {
        Err(Status::unimplemented("no test asks this"))
    }

    /// Photos that begin with a `g` are good, and an `o` was there before. A `!` ends the daemon.
    async fn import_subjects(&self, request: Request<tonic::Streaming<pb::ImportSubjectsRequest>>) -> Answer<Imported> {
        drop(self.see(&request));
        let seen = self.0.clone();
        let results = request.into_inner().map(move |photo| {
            let photo = photo?;
            let (item_key, subject_id) = (photo.item_key, photo.subject.unwrap_or_default().id);
            seen.lock().expect("no test panics while it looks").imported.push(item_key.clone());
            let result = pb::ImportResult { item_key, subject_id, gallery_version: 9, ..Default::default() };
            let result = match photo.image.first() {
                Some(b'g') => pb::ImportResult { status: pb::ImportStatus::Added.into(), ..result },
                Some(b'o') => pb::ImportResult { status: pb::ImportStatus::Unchanged.into(), ..result },
                Some(b'!') => return Err(refused(Code::Unavailable, "STOPPING", "the daemon is stopping", &[])),
                _ => {
                    let status = pb::ImportStatus::Refused.into();
                    pb::ImportResult {
                        status,
                        reason: "NO_FACE".into(),
                        message: "no \"face\" was found".into(),
                        gallery_version: 0,
                        ..result
                    }
                }
            };
            Ok(pb::ImportSubjectsResponse { results: vec![result], image_bytes_max: None })
        });
        let first = Ok(pb::ImportSubjectsResponse { results: Vec::new(), image_bytes_max: Some(1000) });
        Ok(Response::new(Box::pin(tokio_stream::iter([first]).chain(results))))
    }

    /// Nobody's face is ever good enough.
    async fn create_subject(&self, request: Request<pb::CreateSubjectRequest>) -> Answer<pb::CreateSubjectResponse> {
        self.see(&request).request_ids.push(request.get_ref().request_id.clone());
        let measured = [("fault", "blurred"), ("sharpness", "12.5"), ("size_pixels", "48")];
        Err(refused(Code::InvalidArgument, "FACE_UNUSABLE", "the face cannot be used: blurred", &measured))
    }

    /// Two people, a page each.
    async fn list_subjects(&self, request: Request<pb::ListSubjectsRequest>) -> Answer<pb::ListSubjectsResponse> {
        let (id, next) = if request.get_ref().page_token.is_empty() { ("anna", "more") } else { ("bob", "") };
        drop(self.see(&request));
        Ok(Response::new(pb::ListSubjectsResponse { subjects: vec![subject(id)], next_page_token: next.into() }))
    }

    async fn update_subject(&self, request: Request<pb::UpdateSubjectRequest>) -> Answer<pb::UpdateSubjectResponse> {
        let mask = request.get_ref().update_mask.clone().unwrap_or_default().paths;
        self.see(&request).update_masks.push(mask);
        Ok(Response::new(pb::UpdateSubjectResponse { subject: request.into_inner().subject }))
    }

    /// Photos that begin with a `g` are good.
    async fn reload_gallery(&self, _: Request<pb::ReloadGalleryRequest>) -> Answer<pb::ReloadGalleryResponse> {
        let file = pb::RefusedFile { path: "anna/2.jpg".into(), reason: "NO_FACE".into(), ..Default::default() };
        Ok(Response::new(pb::ReloadGalleryResponse { subjects_added: 1, refused_files: vec![file], ..Default::default() }))
    }

    async fn create_sample(&self, request: Request<pb::CreateSampleRequest>) -> Answer<pb::CreateSampleResponse> {
        let mut seen = self.see(&request);
        seen.request_ids.push(request.get_ref().request_id.clone());
        match request.get_ref().sample.as_ref().and_then(|sample| sample.source.as_ref()) {
            Some(pb::sample_source::Source::Image(image)) if image.starts_with(b"g") => {
                let sample = pb::Sample { id: "sample-1".into(), ..pb::Sample::default() };
                Ok(Response::new(pb::CreateSampleResponse { sample: Some(sample), gallery_version: 7 }))
            }
            _ => Err(refused(Code::InvalidArgument, "NO_FACE", "no face was found", &[])),
        }
    }
}

fn camera(id: &str) -> pb::Camera {
    pb::Camera { id: id.into(), url: "rtsp://192.0.2.7/s".into(), role: pb::CameraRole::Entry.into(), ..pb::Camera::default() }
}

#[tonic::async_trait]
impl CameraService for Answers {
    type WatchCamerasStream = Statuses;

    unanswered! {
        get_camera: GetCameraRequest => pb::GetCameraResponse,
        update_camera: UpdateCameraRequest => pb::UpdateCameraResponse,
        delete_camera: DeleteCameraRequest => pb::DeleteCameraResponse,
        get_frame: GetFrameRequest => pb::GetFrameResponse,
        set_camera_credential: SetCameraCredentialRequest => pb::SetCameraCredentialResponse,
    }

    async fn create_camera(&self, request: Request<pb::CreateCameraRequest>) -> Answer<pb::CreateCameraResponse> {
        let mut seen = self.see(&request);
        let request = request.into_inner();
        seen.credentials.extend(request.credential.map(|credential| (credential.username, credential.password)));
        Ok(Response::new(pb::CreateCameraResponse { camera: request.camera }))
    }

    async fn list_cameras(&self, _: Request<pb::ListCamerasRequest>) -> Answer<pb::ListCamerasResponse> {
        Ok(Response::new(pb::ListCamerasResponse { cameras: vec![camera("front-door"), camera("yard")], ..Default::default() }))
    }

    /// One message, then silence, as a daemon whose cameras do not change.
    async fn watch_cameras(&self, _: Request<pb::WatchCamerasRequest>) -> Answer<Statuses> {
        let connection = pb::CameraConnection::Offline.into();
        let status = pb::CameraStatus { camera_id: "yard".into(), connection, reason: "UNAUTHORISED".into(), ..Default::default() };
        let first = Ok(pb::WatchCamerasResponse { statuses: vec![status], server_time: None });
        Ok(Response::new(Box::pin(tokio_stream::iter([first]).chain(tokio_stream::pending()))))
    }
}

#[tonic::async_trait]
impl EventService for Answers {
    type SubscribeStream = Events;

    /// One person at the door, then the daemon stops.
    async fn subscribe(&self, request: Request<pb::SubscribeRequest>) -> Answer<Events> {
        drop(self.see(&request));
        let time = |nanos| Some(Timestamp { seconds: 1_795_460_401, nanos });
        let event = pb::Event {
            sequence: 41,
            r#type: pb::EventType::Identified.into(),
            camera_id: "front-door".into(),
            capture_time: time(0),
            decision_time: time(180_000_000),
            subject: Some(pb::EventSubject { id: "anna".into(), display_name: "Anna K.".into(), ..Default::default() }),
            decision: Some(pb::Decision { similarity: Some(0.713), threshold: 0.363, gallery_subject_count: 2, ..Default::default() }),
            snapshot_id: SNAPSHOT_ID.into(),
            ..pb::Event::default()
        };
        let response = pb::EncodedSubscribeResponse {
            events: vec![event.encode_to_vec().into()],
            server_time: time(200_000_000),
            ..Default::default()
        };
        let end = refused(Code::Unavailable, "STOPPING", "the daemon is stopping; connect again when it is back", &[]);
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(response), Err(end)]))))
    }

    unanswered! {
        list_events: ListEventsRequest => pb::ListEventsResponse,
        get_event: GetEventRequest => pb::GetEventResponse,
        correct_event: CorrectEventRequest => pb::CorrectEventResponse,
    }

    async fn get_snapshot(&self, _: Request<pb::GetSnapshotRequest>) -> Answer<pb::GetSnapshotResponse> {
        let (crop_jpeg, frame_jpeg) = (JPEG.to_vec(), JPEG.to_vec());
        Ok(Response::new(pb::GetSnapshotResponse { crop_jpeg, frame_jpeg, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl RecognitionService for Answers {
    unanswered! {
        identify: IdentifyRequest => pb::IdentifyResponse,
        search: SearchRequest => pb::SearchResponse,
    }

    /// One face in a picture of 64×48 pixels.
    async fn detect_faces(&self, _: Request<pb::DetectFacesRequest>) -> Answer<pb::DetectFacesResponse> {
        let area = pb::PixelBox { x: 10.0, y: 20.0, width: 20.0, height: 20.0 };
        let face = pb::Face { r#box: Some(area), detection_score: 0.93, ..Default::default() };
        Ok(Response::new(pb::DetectFacesResponse { faces: vec![face], image_width: 64, image_height: 48 }))
    }

    /// Only anna is who she is said to be, and photos that begin with `b` show nobody.
    async fn verify(&self, request: Request<pb::VerifyRequest>) -> Answer<pb::VerifyResponse> {
        if request.get_ref().image.starts_with(b"b") {
            return Err(refused(Code::InvalidArgument, "NO_FACE", "no face was found", &[]));
        }
        let is_anna = request.into_inner().claim == Some(pb::verify_request::Claim::SubjectId("anna".into()));
        let similarity = if is_anna { 0.8 } else { 0.1 };
        Ok(Response::new(pb::VerifyResponse {
            r#match: is_anna,
            similarity,
            score: similarity,
            head: "cosine".into(),
            threshold: 0.363,
            ..Default::default()
        }))
    }
}
