//! A real server on loopback, with health and reflection and one service made for the test.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1alpha::{ListServiceResponse, ServerReflectionRequest};
use tonic_types::StatusExt;

use super::*;
use crate::pb::recognition_service_client::RecognitionServiceClient;
use crate::pb::recognition_service_server::{RecognitionService, RecognitionServiceServer};

const TOKEN: &str = "0123456789abcdef-server";
const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// Answers detection with the picture's size in bytes; everything else panics.
struct Sized;

#[tonic::async_trait]
impl RecognitionService for Sized {
    async fn detect_faces(
        &self,
        request: Request<crate::pb::DetectFacesRequest>,
    ) -> Result<Response<crate::pb::DetectFacesResponse>, Status> {
        let image_width = u32::try_from(request.get_ref().image.len()).unwrap_or(u32::MAX);
        Ok(Response::new(crate::pb::DetectFacesResponse { image_width, ..crate::pb::DetectFacesResponse::default() }))
    }
    async fn verify(&self, _: Request<crate::pb::VerifyRequest>) -> Result<Response<crate::pb::VerifyResponse>, Status> {
        panic!("on purpose")
    }
    async fn identify(&self, _: Request<crate::pb::IdentifyRequest>) -> Result<Response<crate::pb::IdentifyResponse>, Status> {
        std::future::pending().await
    }
    async fn search(&self, _: Request<crate::pb::SearchRequest>) -> Result<Response<crate::pb::SearchResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RpcError>>,
}

async fn open(config: &ServerConfig) -> Result<Bound, RpcError> {
    Bound::open(config, TcpListener::bind(config.listen).await.expect("bound")).await
}

async fn start(config: ServerConfig) -> Running {
    let server = start_slowly(config).await;
    server.handle.start_with(sized(&server.handle)).await;
    server
}

/// A server of a daemon that is still starting.
async fn start_slowly(config: ServerConfig) -> Running {
    let bound = open(&config).await.expect("opened");
    let (address, handle) = (bound.handle().local_address(), bound.handle());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(bound.serve(async move {
        let _ = stopped.await;
    }));
    Running { address, handle, stop, task }
}

fn sized(handle: &ServerHandle) -> Routes {
    Routes::new(RecognitionServiceServer::new(Sized).max_decoding_message_size(handle.message_bytes_max()))
}

fn loopback() -> ServerConfig {
    ServerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServerConfig::default() }
}

async fn plain(server: &Running) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.address)).expect("a URI").connect().await.expect("connected")
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

/// A throwaway certificate for `localhost`, its key, and a token file, in `directory`.
fn guarded(directory: &Path) -> (ServerConfig, Certificate) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        Some(path)
    };
    let config = ServerConfig {
        tls_certificate_file: file("certificate.pem", &made.cert.pem()),
        tls_key_file: file("key.pem", &made.signing_key.serialize_pem()),
        token_file: file("tokens", TOKEN),
        ..loopback()
    };
    (config, Certificate::from_pem(made.cert.pem()))
}

async fn secure(server: &Running, trusted: Certificate) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(trusted).domain_name("localhost");
    Endpoint::from_shared(format!("https://{}", server.address)).expect("a URI").tls_config(tls)?.connect().await
}

fn with_token<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().expect("ASCII"));
    request
}

#[tokio::test]
async fn health_says_when_the_daemon_is_ready_and_when_it_stops() {
    let server = start_slowly(loopback()).await;
    let mut health = HealthClient::new(plain(&server).await);
    for service in SERVICES.into_iter().chain([""]) {
        assert_eq!(health.check(check(service)).await.expect("known").into_inner().status, NOT_SERVING, "{service:?} before it is ready");
    }
    let mut watch = health.watch(check("")).await.expect("watched").into_inner();
    assert_eq!(watch.message().await.expect("no error").map(|m| m.status), Some(NOT_SERVING));
    let mut client = RecognitionServiceClient::new(plain(&server).await);
    let refused = client.detect_faces(crate::pb::DetectFacesRequest::default()).await.expect_err("there is no service yet");
    assert_eq!(refused.get_details_error_info().map(|info| info.reason).as_deref(), Some("STARTING"));
    server.handle.start_with(sized(&server.handle)).await;
    assert_eq!(watch.message().await.expect("no error").map(|m| m.status), Some(SERVING));
    client.detect_faces(crate::pb::DetectFacesRequest::default()).await.expect("on the same connection");
    server.stop.send(()).expect("it runs");
    assert_eq!(watch.message().await.expect("no error").map(|m| m.status), Some(NOT_SERVING));
    server.task.await.expect("no panic").expect("an orderly end, although a client still watches");
}

#[tokio::test]
async fn over_tls_the_token_is_wanted_for_all_but_health() {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, trusted) = guarded(directory.path());
    let server = start(config).await;
    let channel = secure(&server, trusted).await.expect("the handshake succeeds");
    assert!(HealthClient::new(channel.clone()).check(check("")).await.is_ok());
    let mut client = RecognitionServiceClient::new(channel.clone());
    let photo = || crate::pb::DetectFacesRequest { image: vec![1; 5] };
    let refused = client.detect_faces(photo()).await.expect_err("no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let answered = client.detect_faces(with_token(photo())).await.expect("let in").into_inner();
    assert_eq!(answered.image_width, 5);
    let reflection = list_services(channel, false).await.expect_err("reflection is not open");
    assert_eq!(reflection.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn tokens_are_read_again_while_the_server_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, trusted) = guarded(directory.path());
    let tokens = config.token_file.clone().expect("a token file");
    let server = start(ServerConfig { connections_max: 1, ..config }).await;
    let mut client = RecognitionServiceClient::new(secure(&server, trusted.clone()).await.expect("the handshake succeeds"));
    assert!(client.detect_faces(with_token(crate::pb::DetectFacesRequest::default())).await.is_ok());
    let another = "fedcba9876543210-another";
    std::fs::write(&tokens, another).expect("written");
    server.handle.reload_tokens().expect("reloaded");
    let revoked = client.detect_faces(with_token(crate::pb::DetectFacesRequest::default())).await.expect_err("revoked");
    assert_eq!(revoked.code(), Code::Unauthenticated);
    // The only place is no longer that client's.
    let mut newcomer = RecognitionServiceClient::new(secure(&server, trusted).await.expect("there is a place for it"));
    let mut request = Request::new(crate::pb::DetectFacesRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {another}").parse().expect("ASCII"));
    newcomer.detect_faces(request).await.expect("it has a token that is in force");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_whoever_connects_next_and_a_bad_one_to_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, old) = guarded(directory.path());
    let key = config.tls_key_file.clone().expect("given");
    let server = start(config).await;
    let channel = secure(&server, old.clone()).await.expect("the handshake succeeds");
    let mut watch = HealthClient::new(channel).watch(check("")).await.expect("watched").into_inner();
    assert_eq!(watch.message().await.expect("no error").map(|m| m.status), Some(SERVING));

    std::fs::write(&key, "half of a key").expect("written");
    let error = server.handle.reload_certificate().expect_err("no pair").to_string();
    assert!(error.contains("key.pem") && !error.contains("half of a key"), "{error}");
    assert!(secure(&server, old.clone()).await.is_ok(), "the old pair is in force");

    let (_, new) = guarded(directory.path());
    assert!(server.handle.reload_certificate().expect("a pair"));
    assert!(secure(&server, new).await.is_ok());
    assert!(secure(&server, old).await.is_err(), "the old certificate is shown to nobody any more");
    server.handle.announce_end().await;
    assert_eq!(watch.message().await.expect("no error").map(|m| m.status), Some(NOT_SERVING), "the stream goes on");
}

#[tokio::test]
async fn whoever_connects_again_is_shown_the_certificate_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, _) = guarded(directory.path());
    let certificate = config.tls_certificate_file.clone().expect("given");
    let server = start(config).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate).expect("PEM")).expect("a certificate");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
    let client = tokio_rustls::TlsConnector::from(Arc::new(builder.with_no_client_auth()));
    for _ in 0..2 {
        let stream = tokio::net::TcpStream::connect(server.address).await.expect("connected");
        let mut stream = client.connect("localhost".try_into().expect("a name"), stream).await.expect("the handshake succeeds");
        // What the server gives for the next time comes with what it says first.
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 64]).await.expect("it speaks first");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_holds_up_no_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, trusted) = guarded(directory.path());
    let server = start(ServerConfig { handshake_timeout_ms: 60_000, ..config }).await;
    let mut client = tokio::net::TcpStream::connect(server.address).await.expect("connected");
    // The head of a record, and no more.
    tokio::io::AsyncWriteExt::write_all(&mut client, &[0x16, 0x03, 0x01, 0x02, 0x00]).await.expect("written");
    // Connections are accepted in order: that one is by now.
    let channel = secure(&server, trusted).await.expect("the handshake succeeds");
    HealthClient::new(channel.clone()).check(check("")).await.expect("it answers");
    drop(channel);
    server.stop.send(()).expect("it runs");
    let ended = tokio::time::timeout(Duration::from_secs(30), server.task).await;
    ended.expect("it does not wait for the handshake").expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_client_in_clear_cannot_talk_to_a_tls_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(guarded(directory.path()).0).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("a URI");
    let answer = match endpoint.connect().await {
        Ok(channel) => HealthClient::new(channel).check(check("")).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answer);
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, _) = guarded(directory.path());
    let certificate = config.tls_certificate_file.clone().expect("given");
    let key = config.tls_key_file.clone().expect("given");
    let refused = async |config: &ServerConfig| open(config).await.err().expect("refused").to_string();

    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).expect("a certificate");
    std::fs::write(&key, other.signing_key.serialize_pem()).expect("written");
    let error = refused(&config).await;
    assert!(error.contains("key.pem") && error.contains("certificate.pem"), "{error}");
    std::fs::write(&key, "no PEM").expect("written");
    assert!(refused(&config).await.contains("key.pem"));
    std::fs::write(&certificate, "").expect("written");
    assert!(refused(&config).await.contains("holds no certificate"));
    std::fs::remove_file(&certificate).expect("removed");
    let error = refused(&config).await;
    assert!(error.contains("certificate.pem") && error.contains("server.tls_certificate_file"), "{error}");
}

async fn list_services(channel: Channel, token: bool) -> Result<ListServiceResponse, Status> {
    let ask = ServerReflectionRequest { message_request: Some(MessageRequest::ListServices(String::new())), ..Default::default() };
    let stream = tokio_stream::iter([ask]);
    let request = if token { with_token(stream) } else { Request::new(stream) };
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(request).await?.into_inner();
    match answers.message().await?.and_then(|answer| answer.message_response) {
        Some(MessageResponse::ListServicesResponse(list)) => Ok(list),
        other => Err(Status::internal(format!("{other:?}"))),
    }
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let server = start(loopback()).await;
    let listed = list_services(plain(&server).await, false).await.expect("listed");
    let names: Vec<&str> = listed.service.iter().map(|s| s.name.as_str()).collect();
    let beside = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    for service in SERVICES.into_iter().chain(beside) {
        assert!(names.contains(&service), "{service} in {names:?}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_a_reason() {
    let server = start(ServerConfig { message_bytes_max: 1 << 16, ..loopback() }).await;
    let mut client = RecognitionServiceClient::new(plain(&server).await);
    assert!(client.detect_faces(crate::pb::DetectFacesRequest { image: vec![0; 60_000] }).await.is_ok());
    let status = client.detect_faces(crate::pb::DetectFacesRequest { image: vec![0; 70_000] }).await.expect_err("too large");
    assert_eq!(status.get_details_error_info().map(|info| info.reason).as_deref(), Some("MESSAGE_TOO_LARGE"), "{status:?}");
}

#[tokio::test]
async fn a_call_over_its_deadline_and_a_panic_end_that_call_alone() {
    let server = start(ServerConfig { request_timeout_ms: 100, ..loopback() }).await;
    let mut client = RecognitionServiceClient::new(plain(&server).await);
    let overdue = client.identify(crate::pb::IdentifyRequest::default()).await.expect_err("never answers");
    assert_eq!(overdue.code(), Code::DeadlineExceeded);
    assert!(client.verify(crate::pb::VerifyRequest::default()).await.is_err(), "a panic is an error to the caller");
    assert!(client.detect_faces(crate::pb::DetectFacesRequest::default()).await.is_ok(), "the connection lives on");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_counted() {
    let server = start(ServerConfig { connections_max: 1, ..loopback() }).await;
    let mut first = HealthClient::new(plain(&server).await);
    assert!(first.check(check("")).await.is_ok());
    let second = Endpoint::from_shared(format!("http://{}", server.address)).expect("a URI").connect().await;
    let answered = match second {
        Ok(channel) => HealthClient::new(channel).check(check("")).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answered && server.handle.connections().refused() >= 1);
    assert!(first.check(check("")).await.is_ok(), "the first goes on");
}

#[tokio::test]
async fn whoever_has_a_token_gets_in_however_many_without_one_are_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = guarded(directory.path()).0.token_file;
    let server = start(ServerConfig { token_file, connections_max: 3, ..loopback() }).await;
    let watch = async |request| HealthClient::new(plain(&server).await).watch(request).await.expect("watched").into_inner();
    let mut known = watch(with_token(check(""))).await;
    let mut strangers = [watch(Request::new(check(""))).await, watch(Request::new(check(""))).await];
    for told in strangers.iter_mut().chain([&mut known]) {
        assert_eq!(told.message().await.expect("no error").map(|m| m.status), Some(SERVING), "while there is room nobody has to go");
    }
    let counts = || (server.handle.connections().gave_way(), server.handle.connections().refused());
    assert_eq!(counts(), (0, 0));
    let mut client = RecognitionServiceClient::new(plain(&server).await);
    client.detect_faces(with_token(crate::pb::DetectFacesRequest::default())).await.expect("there is a place for it");
    assert_eq!(counts(), (1, 0));
    let gives_way = async |index: usize, streams: &mut [tonic::Streaming<_>; 2]| {
        let ended = tokio::time::timeout(Duration::from_secs(30), streams[index].message()).await;
        assert!(matches!(ended, Ok(Err(_))), "{index} gives way: {ended:?}");
    };
    gives_way(0, &mut strangers).await;

    let mut another = RecognitionServiceClient::new(plain(&server).await);
    another.detect_faces(with_token(crate::pb::DetectFacesRequest::default())).await.expect("there is a place for it, too");
    gives_way(1, &mut strangers).await;
    if let Ok(channel) = Endpoint::from_shared(format!("http://{}", server.address)).expect("a URI").connect().await {
        HealthClient::new(channel).check(check("")).await.expect_err("all that are there were let in");
    }
    let (gave_way, refused) = counts();
    assert!(gave_way == 2 && refused >= 1, "{gave_way} gave way, {refused} refused");
    server.handle.announce_end().await;
    assert_eq!(known.message().await.expect("no error").map(|m| m.status), Some(NOT_SERVING), "it keeps its place");
}

/// An HTTP/2 frame: its type and flags, its stream, its payload.
fn h2_frame((kind, flags): (u8, u8), stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The first frame of `stream` that the server sends: its type and payload.
async fn h2_answer(socket: &mut tokio::net::TcpStream, stream: u32) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        tokio::io::AsyncReadExt::read_exact(socket, &mut head).await.expect("the server goes on");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        tokio::io::AsyncReadExt::read_exact(socket, &mut payload).await.expect("the server goes on");
        if u32::from_be_bytes([head[5], head[6], head[7], head[8]]) == stream {
            return (head[3], payload);
        }
    }
}

#[tokio::test]
async fn of_one_connection_no_more_streams_than_allowed_are_served_at_once() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const END_HEADERS: u8 = 4;
    const END_STREAM: u8 = 1;
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let server = start(ServerConfig { streams_per_connection_max: 2, ..loopback() }).await;
    // POST and http from HPACK's table; then path, authority and content type, each as a name of the table with a plain value.
    let field = |name: &[u8], value: &str| [name, &[u8::try_from(value.len()).expect("short")], value.as_bytes()].concat();
    let (path, authority) = (field(&[4], "/doorward.v1.RecognitionService/DetectFaces"), field(&[1], "localhost"));
    let call = [vec![0x83, 0x86], path, authority, field(&[0x0f, 0x10], "application/grpc")].concat();
    // tonic's own client keeps to what it was allowed, so this one does not.
    let mut asked = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &h2_frame((SETTINGS, 0), 0, &[])].concat();
    for open in [1, 3] {
        asked.extend(h2_frame((HEADERS, END_HEADERS), open, &call));
    }
    asked.extend(h2_frame((HEADERS, END_HEADERS | END_STREAM), 5, &call));
    let mut socket = tokio::net::TcpStream::connect(server.address).await.expect("connected");
    tokio::io::AsyncWriteExt::write_all(&mut socket, &asked).await.expect("written");
    assert_eq!(h2_answer(&mut socket, 5).await, (RST_STREAM, REFUSED_STREAM.to_vec()), "two streams are open already");

    // Once one of them has ended there is room for another.
    let ended = [h2_frame((RST_STREAM, 0), 1, &[0, 0, 0, 8]), h2_frame((HEADERS, END_HEADERS | END_STREAM), 7, &call)].concat();
    tokio::io::AsyncWriteExt::write_all(&mut socket, &ended).await.expect("written");
    assert_eq!(h2_answer(&mut socket, 7).await.0, HEADERS, "it is answered");
}
