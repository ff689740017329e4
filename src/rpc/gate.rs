//! What every call passes through before its service: the token, the deadline, the reasons.
//!
//! In: any HTTP/2 request. Out: the service's answer, or a status with a reason.
//! While the daemon starts there are no services yet: health and reflection alone answer.
//! Denies by default: all but health wants a token where there is a token file, methods that do
//! not exist included. The body of a call that is not let in is never read.
//! Must not know: any service.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Code, Status};

use super::auth::{Admission, Tokens};
use super::connection::Caller;
use super::status::{Refusal, explained, is_own_fault};

/// Health is open, so that a supervisor needs no secret (`grpc.health.v1`).
const OPEN_PREFIX: &str = "/grpc.health.v1.Health/";
/// Reflection, of either version, tells what the services are and asks them nothing.
const REFLECTION_PREFIX: &str = "/grpc.reflection.";
/// Takes as long as the enrolment folder has photos; its caller's own deadline bounds it.
const UNHURRIED: &str = "/doorward.v1.GalleryService/ReloadGallery";
/// "No deadline" as a duration: longer than any daemon runs, and far from overflowing a clock.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The layer around all services.
#[derive(Clone, Debug)]
pub(super) struct Gate<S> {
    /// Health and reflection, which need nothing of the daemon.
    pub(super) always: S,
    /// All others, once the daemon has started: before, its models are not open, or its gallery is not whole.
    pub(super) services: Arc<OnceLock<S>>,
    /// `None` where no token file is configured, which only loopback allows.
    pub(super) tokens: Option<Arc<Tokens>>,
    /// How long a call may take until its answer begins: all of a unary call, the start of a stream.
    pub(super) deadline: Duration,
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Which service it is for, the call tells.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (admission, mut service) = match self.admit(&request) {
            Ok((admission, service)) => (admission, service.clone()),
            Err(refused) => return Box::pin(async { Ok(refused.into_http()) }),
        };
        if let Some(admission) = admission {
            // Streams watch whether their token stays in force.
            request.extensions_mut().insert(admission);
        }
        let path = request.uri().path().to_owned();
        let deadline = if path == UNHURRIED { FOREVER } else { self.deadline };
        let answer = async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        };
        Box::pin(async move {
            match tokio::time::timeout(deadline, answer).await {
                Ok(answer) => answer.map(|response| with_reason(&path, response)),
                Err(_) => Ok(overdue(deadline).into_http()),
            }
        })
    }
}

impl<S> Gate<S> {
    /// What a call is let in by, and the service that it is let in to.
    fn admit(&self, request: &http::Request<Body>) -> Result<(Option<Admission>, &S), Status> {
        let path = request.uri().path();
        let authorization = request.headers().get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let admission = self.tokens.as_ref().map(|tokens| tokens.admit(authorization)).transpose();
        // Of health, too, where no token is asked for or one is shown: its connection keeps its place from now on.
        if let (Ok(by), Some(caller)) = (&admission, request.extensions().get::<Caller>()) {
            caller.let_in(by.as_ref());
        }
        if path.starts_with(OPEN_PREFIX) {
            return Ok((None, &self.always));
        }
        let admission = admission?;
        if path.starts_with(REFLECTION_PREFIX) {
            return Ok((admission, &self.always));
        }
        let message = "the daemon is starting: it opens its models and fills its gallery; try again when its health says SERVING";
        let services = self.services.get().ok_or_else(|| Refusal::new(Code::Unavailable, "STARTING", message))?;
        Ok((admission, services))
    }
}

fn overdue(deadline: Duration) -> Status {
    Refusal::new(
        Code::DeadlineExceeded,
        "REQUEST_TIMEOUT",
        format!("no answer within {} ms (server.request_timeout_ms); a change that was begun is carried through", deadline.as_millis()),
    )
    .into()
}

/// Gives statuses that the transport made a reason, and tells the operator of the daemon's own
/// faults: to the caller they are an answer, so this is where they end.
fn with_reason(path: &str, response: http::Response<Body>) -> http::Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if is_own_fault(&status) {
        tracing::error!(method = path, "a call failed: {}", status.message());
    }
    if !status.details().is_empty() || status.code() == Code::Ok { response } else { explained(&status).into_http() }
}

#[cfg(test)]
mod tests;
