//! The one thread that changes the database.
//!
//! In: changes, through a queue of [`QUEUE_CAPACITY`]; when it is full the senders wait. Out:
//! their answers, after the commit. Everything that is queued goes into one transaction, each
//! change in a savepoint, so that syncs are shared and a failed change takes no other with it.
//! Must not know: what is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::store::{Counts, StoreError};

/// How many changes may wait: as many as one sync is worth sharing between.
const QUEUE_CAPACITY: usize = 256;
/// How long the writer rests before it tries again to empty the write-ahead log.
const TRUNCATION_PAUSE: Duration = Duration::from_millis(50);

/// Whether a change takes something away that nobody shall find on the disk afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It does not.
    Keeps,
    /// It does not, and needs much room: it is written by itself, so that what needs little is not refused with it.
    KeepsAlone,
    /// It does: the write-ahead log is emptied before the change is answered.
    Erases,
}

/// A queued change, seen without its type.
trait Change: Send {
    /// Writes inside the open transaction, and remembers what came of it.
    fn write(&mut self, db: &Connection) -> Result<(), StoreError>;
    /// Tells the caller what came of it, given what came of the transaction.
    fn answer(self: Box<Self>, transaction: Result<(), StoreError>);
}

/// A queued change whose work answers `T`.
struct Queued<T, W> {
    work: Option<W>,
    result: Option<Result<T, StoreError>>,
    then: Box<dyn FnOnce(&T) + Send>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Change for Queued<T, W>
where
    T: Send,
    W: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn write(&mut self, db: &Connection) -> Result<(), StoreError> {
        self.result = self.work.take().map(|work| work(db));
        match &self.result {
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn answer(self: Box<Self>, transaction: Result<(), StoreError>) {
        let result = match self.result {
            Some(Ok(done)) => transaction.map(|()| done),
            Some(Err(error)) => Err(error),
            None => transaction.and(Err(StoreError::Stopped)),
        };
        if let Ok(done) = &result {
            (self.then)(done);
        }
        // A caller that no longer waits has dropped its end: the change is made all the same.
        let _ = self.reply.send(result);
    }
}

type Job = (Effect, Box<dyn Change>);

/// The thread and its queue. Dropping it waits until everything queued is written.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread over `connection`.
    pub(super) fn start(connection: Connection, counts: Arc<Counts>) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel(QUEUE_CAPACITY);
        let run = move || Thread { connection, counts, truncation_due: true }.run(jobs);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(run)
            .map_err(|e| StoreError::Failed(format!("the writer's thread cannot be started: {e}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Carries out `work` in a transaction and answers what it answered, once that is on disk.
    pub(super) async fn write<T, W>(&self, effect: Effect, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_then(effect, work, Box::new(|_| ())).await
    }

    /// [`write`](Self::write), and calls `then` after the commit on the writer's thread, in the
    /// order in which changes were made.
    pub(super) async fn write_then<T, W>(&self, effect: Effect, work: W, then: Box<dyn FnOnce(&T) + Send>) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let change = Queued { work: Some(work), result: None, then, reply };
        let queue = self.queue.as_ref().ok_or(StoreError::Stopped)?;
        queue.send((effect, Box::new(change))).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was already reported to every caller as `Stopped`.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Thread {
    connection: Connection,
    counts: Arc<Counts>,
    /// Whether what was erased may still be in the log: at the start, too, since a run that was killed may have left it there.
    truncation_due: bool,
}

impl Thread {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            while self.truncation_due && jobs.is_empty() && !jobs.is_closed() {
                std::thread::sleep(TRUNCATION_PAUSE);
                self.truncate();
            }
            let Some(first) = jobs.blocking_recv() else { return };
            let mut batch = vec![first];
            while batch.len() < QUEUE_CAPACITY
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            let mut together = Vec::new();
            for job in batch {
                if job.0 == Effect::KeepsAlone {
                    self.commit(std::mem::take(&mut together));
                    self.commit(vec![job]);
                } else {
                    together.push(job);
                }
            }
            self.commit(together);
        }
    }

    /// Writes `batch` in one transaction and answers it.
    fn commit(&mut self, batch: Vec<Job>) {
        let mut written = Vec::with_capacity(batch.len());
        let mut erases = false;
        for (effect, mut change) in batch {
            let kept_open = self.write(change.as_mut());
            written.push(change);
            erases |= effect == Effect::Erases;
            if let Err(error) = kept_open {
                self.roll_back();
                answer_all(&mut written, &Err(error));
            }
        }
        if written.is_empty() {
            return;
        }
        let committed = self.connection.execute_batch("COMMIT").map_err(StoreError::from);
        if committed.is_ok() {
            self.counts.commits.fetch_add(1, Ordering::Relaxed);
        } else {
            self.roll_back();
        }
        if erases && committed.is_ok() {
            self.truncate();
        }
        answer_all(&mut written, &committed);
    }

    /// Writes one change into the open transaction, or opens one. An error means that the whole
    /// transaction is lost, as `SQLite` does on a full disk; a change that merely failed is
    /// taken back alone.
    fn write(&self, change: &mut dyn Change) -> Result<(), StoreError> {
        let db = &self.connection;
        if db.is_autocommit() {
            db.execute_batch("BEGIN IMMEDIATE")?;
        }
        db.execute_batch("SAVEPOINT change")?;
        if let Err(cause) = change.write(db) {
            if db.is_autocommit() {
                return Err(cause);
            }
            db.execute_batch("ROLLBACK TO change")?;
        }
        Ok(db.execute_batch("RELEASE change")?)
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            // Every change of the transaction is answered with its own error; this one is nobody's.
            tracing::error!(%error, "the store could not roll back");
        }
    }

    /// Copies the write-ahead log into the database, where erased bytes are zeros, and cuts the
    /// log to nothing. Waits for readers no longer than the connection's busy timeout.
    fn truncate(&mut self) {
        let busy = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        let failed = !matches!(busy, Ok(false));
        if failed && !self.truncation_due {
            let reason = busy.map_or_else(|e| e.to_string(), |_| "it is being read".to_owned());
            tracing::warn!(%reason, "erased data is still in the write-ahead log of the database; trying again until it is gone");
        }
        self.truncation_due = failed;
    }
}

fn answer_all(changes: &mut Vec<Box<dyn Change>>, transaction: &Result<(), StoreError>) {
    for change in changes.drain(..) {
        change.answer(transaction.clone());
    }
}
