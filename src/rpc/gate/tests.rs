//! What the gate lets through, without a network.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;

use tonic_types::StatusExt;

use super::*;

const TOKEN: &str = "0123456789abcdef-gate";

/// Answers as a service would.
#[derive(Clone)]
enum Fake {
    Answers,
    Hangs,
    Says(Status),
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            match this {
                Self::Answers => Ok(http::Response::new(Body::empty())),
                Self::Hangs => std::future::pending().await,
                Self::Says(status) => Ok(status.into_http()),
            }
        })
    }
}

fn tokens() -> Arc<Tokens> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), TOKEN).expect("written");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).expect("set");
    Arc::new(Tokens::load(file.path()).expect("loaded"))
}

async fn call(inner: Fake, tokens: Option<Arc<Tokens>>, path: &str, authorization: Option<&str>) -> Option<Status> {
    ask(gate(inner, tokens, true), path, authorization).await
}

fn gate(inner: Fake, tokens: Option<Arc<Tokens>>, has_started: bool) -> Gate<Fake> {
    let services = Arc::new(if has_started { inner.clone().into() } else { OnceLock::new() });
    Gate { always: inner, services, tokens, deadline: Duration::from_secs(60) }
}

async fn ask(mut gate: Gate<Fake>, path: &str, authorization: Option<&str>) -> Option<Status> {
    let mut request = http::Request::builder().uri(path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let Ok(response) = gate.call(request.body(Body::empty()).expect("a request")).await;
    Status::from_header_map(response.headers())
}

fn reason(status: Option<Status>) -> Option<String> {
    status?.get_details_error_info().map(|info| info.reason)
}

#[tokio::test]
async fn all_but_health_wants_the_token() {
    let bearer = format!("Bearer {TOKEN}");
    for path in [
        "/doorward.v1.GalleryService/ListSubjects",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/no.such.Service/Method",
        "/grpc.health.v1.HealthX/Check",
        "/",
    ] {
        assert_eq!(reason(call(Fake::Answers, Some(tokens()), path, None).await).as_deref(), Some("TOKEN_MISSING"), "{path}");
        assert_eq!(reason(call(Fake::Answers, Some(tokens()), path, Some("Bearer x")).await).as_deref(), Some("TOKEN_UNKNOWN"), "{path}");
        assert!(call(Fake::Answers, Some(tokens()), path, Some(&bearer)).await.is_none(), "{path}");
    }
    assert!(call(Fake::Answers, Some(tokens()), "/grpc.health.v1.Health/Check", None).await.is_none());
}

#[tokio::test]
async fn while_the_daemon_starts_only_health_and_reflection_answer() {
    let starting = |tokens| gate(Fake::Answers, tokens, false);
    let (health, list) = ("/grpc.health.v1.Health/Check", "/doorward.v1.GalleryService/ListSubjects");
    let status = ask(starting(None), list, None).await;
    assert_eq!(status.as_ref().map(Status::code), Some(Code::Unavailable), "a client may try again");
    assert_eq!(reason(status).as_deref(), Some("STARTING"));
    assert_eq!(reason(ask(starting(Some(tokens())), list, None).await).as_deref(), Some("TOKEN_MISSING"), "told to nobody else");
    assert!(ask(starting(None), health, None).await.is_none());
    assert!(ask(starting(None), "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", None).await.is_none());
    let begun = starting(None);
    assert!(begun.services.set(Fake::Answers).is_ok());
    assert!(ask(begun, list, None).await.is_none());
}

#[tokio::test]
async fn without_a_token_file_no_token_is_wanted() {
    assert!(call(Fake::Answers, None, "/doorward.v1.GalleryService/ListSubjects", None).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_ends_with_a_reason() {
    let before = tokio::time::Instant::now();
    let status = call(Fake::Hangs, None, "/doorward.v1.GalleryService/CreateSubject", None).await;
    assert_eq!(status.as_ref().map(Status::code), Some(Code::DeadlineExceeded));
    assert_eq!(reason(status).as_deref(), Some("REQUEST_TIMEOUT"));
    assert_eq!(before.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_reload_may_take_as_long_as_the_folder_is_large() {
    let reload = call(Fake::Hangs, None, "/doorward.v1.GalleryService/ReloadGallery", None);
    assert!(tokio::time::timeout(Duration::from_secs(3_600), reload).await.is_err(), "it still goes on after an hour");
}

#[tokio::test]
async fn statuses_keep_their_reason_and_get_one_where_there_is_none() {
    let ours = Status::from(Refusal::invalid("NO_FACE", "no face was found"));
    assert_eq!(reason(call(Fake::Says(ours), None, "/x", None).await).as_deref(), Some("NO_FACE"));
    assert_eq!(reason(call(Fake::Says(Status::unimplemented("")), None, "/x", None).await).as_deref(), Some("UNKNOWN_METHOD"));
}
