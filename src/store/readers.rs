//! A few read-only connections, used on blocking threads.
//!
//! In: a question to the database. Out: its answer. At most [`READERS`] questions run at once;
//! more of them wait, in order of arrival. A question sees everything that was answered before.
//! Must not know: the schema.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::store::{StoreError, schema};

/// How many questions run at once: enough that a long list does not hold up the short ones.
const READERS: usize = 4;

/// The pool. Connections are opened when they are first needed.
pub(super) struct Readers(Arc<Pool>);

struct Pool {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

impl Readers {
    /// A pool over the database in `file`.
    pub(super) fn new(file: PathBuf) -> Self {
        Self(Arc::new(Pool { file, idle: Mutex::default(), free: Arc::new(Semaphore::new(READERS)) }))
    }

    /// Answers `question` on a blocking thread.
    pub(super) async fn read<T, Q>(&self, question: Q) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let pool = Arc::clone(&self.0);
        let permit = Arc::clone(&pool.free).acquire_owned().await.map_err(|_| StoreError::Stopped)?;
        let answer = tokio::task::spawn_blocking(move || {
            // The permit lives here, so that a caller that stops waiting does not free it early.
            let _permit = permit;
            let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = idle.map_or_else(|| schema::reader(&pool.file), Ok)?;
            let answer = question(&connection);
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            answer
        });
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}
