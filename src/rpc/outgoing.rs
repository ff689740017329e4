//! A server stream that always ends with a status.
//!
//! In: a task that sends responses and returns why it ended. Out: the responses in order, then
//! that status. Queue: one response; the task waits while the client does not read, so a slow
//! client holds nothing but its own task. The task is aborted when the client goes away.
//! Must not know: what is streamed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::{Code, Status};

use super::status::{Refusal, is_own_fault};

/// Responses waiting for the client to read them. One: what comes thick is coalesced before it.
const WAITING_MAX: usize = 1;

/// The stream of a server-streaming method.
#[derive(Debug)]
pub(super) struct Outgoing<T> {
    responses: mpsc::Receiver<T>,
    task: JoinHandle<Status>,
    ended: bool,
}

impl<T: Send + 'static> Outgoing<T> {
    /// Starts the task that `make` makes around the queue's sending end.
    pub(super) fn spawn<F: Future<Output = Status> + Send + 'static>(make: impl FnOnce(mpsc::Sender<T>) -> F) -> Self {
        let (sender, responses) = mpsc::channel(WAITING_MAX);
        Self { responses, task: tokio::spawn(make(sender)), ended: false }
    }
}

impl<T> Stream for Outgoing<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(response) = std::task::ready!(self.responses.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(response)));
        }
        let status = std::task::ready!(Pin::new(&mut self.task).poll(cx));
        self.ended = true;
        let status = status.unwrap_or_else(|_| panicked());
        if is_own_fault(&status) {
            tracing::error!(answers = std::any::type_name::<T>(), "a stream failed: {}", status.message());
        }
        Poll::Ready(Some(Err(status)))
    }
}

impl<T> Drop for Outgoing<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The status of a call whose task panicked; the panic itself is on standard error.
fn panicked() -> Status {
    Refusal::new(Code::Internal, "PANICKED", "the call failed by a fault of the daemon; its log says where").into()
}

/// Runs a change to its end although the caller hangs up or the deadline passes meanwhile, so
/// that what is on disk and what is in memory never part.
///
/// # Errors
/// The change's own, or a panic.
pub(super) async fn to_the_end<T, E, F>(change: F) -> Result<T, Status>
where
    T: Send + 'static,
    E: Into<Status> + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    match tokio::spawn(change).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(panicked()),
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_stream_ends_with_its_status_after_the_last_response() {
        let mut stream = Outgoing::spawn(|sender| async move {
            for number in 0..3 {
                let _ = sender.send(number).await;
            }
            Status::unavailable("stop")
        });
        for number in 0..3 {
            assert_eq!(stream.next().await.and_then(Result::ok), Some(number));
        }
        assert_eq!(stream.next().await.and_then(Result::err).map(|s| s.code()), Some(Code::Unavailable));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_panic_is_told_and_not_mistaken_for_the_end() {
        let mut stream: Outgoing<()> = Outgoing::spawn(|_| async { panic!("on purpose") });
        assert_eq!(stream.next().await.and_then(Result::err).map(|s| s.code()), Some(Code::Internal));
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_task() {
        let alive = std::sync::Arc::new(());
        let held = alive.clone();
        let stream: Outgoing<()> = Outgoing::spawn(move |_| async move {
            let _held = held;
            std::future::pending().await
        });
        drop(stream);
        while std::sync::Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_change_goes_on_when_its_caller_leaves() {
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
        let (finished, has_finished) = tokio::sync::oneshot::channel();
        let caller = tokio::spawn(to_the_end(async move {
            let _ = began.send(());
            let _ = may_go_on.await;
            let _ = finished.send(());
            Ok::<(), Status>(())
        }));
        has_begun.await.expect("the change began");
        caller.abort();
        assert!(caller.await.expect_err("aborted").is_cancelled());
        go_on.send(()).expect("the change still waits");
        has_finished.await.expect("the change ran to its end");
    }
}
