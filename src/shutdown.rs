//! Orderly ends: signals, and tasks that have names.
//!
//! In: the system's signals, tasks. Out: a token that is cancelled once, and which task ended
//! unexpectedly and why. A second signal ends the process at once.
//! Must not know: what the tasks do.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long everything may take to end before it is ended.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The exit status of a process that a second signal ended, as shells count it.
const EXIT_ABORTED: i32 = 130;

/// The signals that mean something to the daemon.
pub struct Signals {
    stop: CancellationToken,
    reload: Signal,
}

impl Signals {
    /// Listens from now on: SIGINT and SIGTERM cancel the token, a second one ends the process,
    /// SIGHUP asks for a reload.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen() -> std::io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let reload = signal(SignalKind::hangup())?;
        let stop = CancellationToken::new();
        let told = stop.clone();
        tokio::spawn(async move {
            for first in [true, false] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if first {
                    tracing::info!("stopping; a second signal stops at once");
                    told.cancel();
                } else {
                    tracing::warn!("stopped at once by a second signal");
                    std::process::exit(EXIT_ABORTED);
                }
            }
        });
        Ok(Self { stop, reload })
    }

    /// Cancelled by the first signal.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits for the next SIGHUP.
    pub async fn reload(&mut self) {
        if self.reload.recv().await.is_none() {
            // No further signal can come: wait for ever instead of spinning.
            std::future::pending::<()>().await;
        }
    }
}

/// Why a task ended.
#[derive(Debug, thiserror::Error)]
#[error("{name} {outcome}")]
pub struct TaskEnd {
    /// Which task.
    pub name: &'static str,
    /// `ended`, or what went wrong.
    pub outcome: String,
}

type TaskResult = Result<(), Box<dyn Error + Send + Sync>>;

/// Tasks that are to run as long as the daemon does.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<TaskResult>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Runs `task` under `name`.
    pub fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let handle = self.set.spawn(async move { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name);
    }

    /// Waits until one of them ends, which none should. Waits for ever when there is none.
    pub async fn first_end(&mut self) -> TaskEnd {
        match self.set.join_next_with_id().await {
            Some(end) => self.named(end),
            None => std::future::pending().await,
        }
    }

    /// Does `work`, and gives it up when one of them ends before, which none should.
    ///
    /// # Errors
    /// The end that came before.
    pub async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, TaskEnd> {
        tokio::select! {
            end = self.first_end() => Err(end),
            done = work => Ok(done),
        }
    }

    /// Waits until all have ended, at most `deadline`; answers those that failed or did not end.
    pub async fn drain(&mut self, deadline: Duration) -> Vec<TaskEnd> {
        let mut bad = Vec::new();
        let all_ended = async {
            while let Some(end) = self.set.join_next_with_id().await {
                let failed = !matches!(&end, Ok((_, Ok(()))));
                let end = Self::name_of(&mut self.names, end);
                if failed {
                    bad.push(end);
                }
            }
        };
        if tokio::time::timeout(deadline, all_ended).await.is_err() {
            bad.extend(self.names.drain().map(|(_, name)| TaskEnd { name, outcome: format!("did not end within {deadline:?}") }));
            self.set.abort_all();
        }
        bad
    }

    fn named(&mut self, end: Result<(Id, TaskResult), tokio::task::JoinError>) -> TaskEnd {
        Self::name_of(&mut self.names, end)
    }

    fn name_of(names: &mut HashMap<Id, &'static str>, end: Result<(Id, TaskResult), tokio::task::JoinError>) -> TaskEnd {
        let (id, outcome) = match end {
            Ok((id, Ok(()))) => (id, "ended".to_owned()),
            Ok((id, Err(error))) => (id, format!("failed: {error}")),
            Err(error) => (error.id(), format!("ended unexpectedly: {error}")),
        };
        TaskEnd { name: names.remove(&id).unwrap_or("a task"), outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("the log", async { Err::<(), _>("the disk is full") });
        tasks.spawn("the cameras", std::future::pending::<Result<(), std::io::Error>>());
        assert_eq!(tasks.first_end().await.to_string(), "the log failed: the disk is full");
    }

    #[tokio::test]
    async fn a_panic_is_an_end_with_a_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("the pipeline", async { if true { panic!("a bug") } else { Ok::<(), std::io::Error>(()) } });
        let end = tasks.first_end().await;
        assert_eq!(end.name, "the pipeline");
        assert!(end.outcome.contains("a bug"), "{}", end.outcome);
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_given_up_for_a_task_that_ends_and_for_none_that_goes_on() {
        let mut tasks = Tasks::default();
        tasks.spawn("the log", std::future::pending::<Result<(), std::io::Error>>());
        let work = tokio::time::sleep(DEADLINE);
        assert!(tasks.alongside(work).await.is_ok(), "it is done");
        tasks.spawn("the server", async { Err::<(), _>("the socket is gone") });
        let endless = tokio::time::timeout(DEADLINE, tasks.alongside(std::future::pending::<()>())).await;
        let end = endless.expect("nobody waits for work without an end").expect_err("a task has ended");
        assert_eq!(end.to_string(), "the server failed: the socket is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_by_the_deadline_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("quick", async { Ok::<(), std::io::Error>(()) });
        tasks.spawn("stuck", std::future::pending::<Result<(), std::io::Error>>());
        let bad = tasks.drain(DEADLINE).await;
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].name, "stuck");
    }
}
