//! Threads that each own a session, fed by one bounded queue of two lanes.
//!
//! In: jobs. Out: each job is run once by an idle thread, or dropped when the pool ends.
//! Live jobs: at most [`LIVE_PER_THREAD`] a thread, one more waits. Photos: at most
//! [`queue::PHOTOS_MAX`], one more is refused as busy.
//! Must not know: what a job does.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::queue::Lanes;
use super::{InferError, Lane};
use crate::clock::{Clock, SystemClock};

/// How many live jobs may be under way for each thread: one that runs and one that waits.
const LIVE_PER_THREAD: usize = 2;

/// A job, and its place among the live ones.
struct Entry<J> {
    job: J,
    _place: Option<OwnedSemaphorePermit>,
}

struct State<J> {
    lanes: Lanes<Entry<J>>,
    is_open: bool,
    /// How many jobs were taken, and which of them each thread is at; 0 while it waits for one.
    taken: u64,
    at_work: Vec<u64>,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    ready: Condvar,
    clock: SystemClock,
    /// Why the pool has failed, once it has.
    failure: watch::Sender<Option<String>>,
}

/// The threads. Dropping it ends them and waits for the job that each is at.
pub(super) struct Pool<J> {
    shared: Arc<Shared<J>>,
    live_places: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static> Pool<J> {
    /// Starts one thread for each of `workers`.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(super) fn start<W>(workers: Vec<W>) -> std::io::Result<Self>
    where
        W: FnMut(J) + Send + 'static,
    {
        let state = Mutex::new(State { lanes: Lanes::of(workers.len()), is_open: true, taken: 0, at_work: vec![0; workers.len()] });
        let shared = Arc::new(Shared { state, ready: Condvar::new(), clock: SystemClock::new(), failure: watch::Sender::new(None) });
        let live_places = Arc::new(Semaphore::new(workers.len() * LIVE_PER_THREAD));
        let mut pool = Self { shared, live_places, threads: Vec::with_capacity(workers.len()) };
        for (number, worker) in workers.into_iter().enumerate() {
            let shared = pool.shared.clone();
            let name = format!("infer-{number}");
            pool.threads.push(std::thread::Builder::new().name(name).spawn(move || shared.run(number, worker))?);
        }
        Ok(pool)
    }

    /// Puts a job into its lane. A live job waits for its place.
    ///
    /// # Errors
    /// [`InferError::Busy`] when too many photos wait, else why the pool has ended.
    pub(super) async fn submit(&self, lane: Lane, job: J) -> Result<(), InferError> {
        let place = match lane {
            Lane::Live => Some(self.live_places.clone().acquire_owned().await.map_err(|_| self.ended())?),
            Lane::Photo => None,
        };
        let mut state = self.shared.lock();
        if !state.is_open {
            drop(state);
            return Err(self.ended());
        }
        state.lanes.push(lane, Entry { job, _place: place }, self.shared.clock.now()).map_err(|_| InferError::Busy)?;
        self.shared.ready.notify_one();
        Ok(())
    }

    /// Why a job that was taken was dropped without an answer, once that is known: as long as somebody can ask, only a panic does so,
    /// and a thread that panics lets go of its job before it tells the reason.
    pub(super) async fn unanswered(&self) -> InferError {
        let _ = self.failure().wait_for(Option::is_some).await;
        self.ended()
    }

    /// The numbers of the jobs that threads are at: one that stays is of a thread that is stuck.
    pub(super) fn jobs(&self) -> Vec<u64> {
        self.shared.lock().at_work.iter().copied().filter(|job| *job > 0).collect()
    }

    /// Why this pool takes no more jobs.
    fn ended(&self) -> InferError {
        self.shared.failure.borrow().clone().map_or(InferError::Stopped, InferError::Session)
    }

    /// Tells, once it has happened, why the pool has failed.
    pub(super) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.subscribe()
    }
}

impl<J> Shared<J> {
    /// Runs jobs until the pool ends. A panic ends the whole pool, with its reason: a daemon that
    /// lost a session would only seem to work.
    fn run(&self, thread: usize, mut worker: impl FnMut(J)) {
        let work = || {
            while let Some((lane, entry)) = self.next(thread) {
                worker(entry.job);
                if lane == Lane::Photo {
                    self.lock().lanes.photo_done();
                    // Another thread may have left a photo waiting, of which it may be time now.
                    self.ready.notify_one();
                }
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            self.failure.send_replace(Some(format!("session thread {name} panicked: {}", words_of(&*panic))));
            self.close();
        }
    }

    fn next(&self, thread: usize) -> Option<(Lane, Entry<J>)> {
        let mut state = self.lock();
        state.at_work[thread] = 0;
        while state.is_open {
            if let Some(taken) = state.lanes.take(self.clock.now()) {
                state.taken += 1;
                state.at_work[thread] = state.taken;
                return Some(taken);
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Ends the threads and drops what waits, so that nobody waits for an answer for ever.
    fn close(&self) {
        let mut state = self.lock();
        state.is_open = false;
        let waiting = state.lanes.clear();
        drop(state);
        self.ready.notify_all();
        drop(waiting);
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing that can panic runs under the lock, and the lanes are whole between calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Drop for Pool<J> {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A panic of the thread was told when it happened.
            let _ = thread.join();
        }
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    type Job = Box<dyn FnOnce() + Send>;

    fn pool(threads: usize) -> Pool<Job> {
        Pool::start((0..threads).map(|_| |job: Job| job()).collect()).expect("threads can be had")
    }

    #[tokio::test]
    async fn each_job_is_run_once() {
        let pool = pool(2);
        let mut answers = Vec::new();
        for number in 0..100 {
            let (reply, answer) = oneshot::channel();
            pool.submit(Lane::Live, Box::new(move || reply.send(number).expect("it is awaited"))).await.expect("it is open");
            answers.push(answer);
        }
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await, Ok(number));
        }
    }

    #[tokio::test]
    async fn a_panic_of_a_session_thread_is_told_and_leaves_nobody_waiting() {
        let pool = pool(1);
        let mut failure = pool.failure();
        let (begin, begun) = mpsc::channel::<()>();
        let panics = Box::new(move || {
            begun.recv().expect("it is sent");
            panic!("the session is gone");
        });
        pool.submit(Lane::Photo, panics).await.expect("it is open");
        let (reply, answer) = oneshot::channel::<()>();
        pool.submit(Lane::Photo, Box::new(move || drop(reply))).await.expect("it is open");
        begin.send(()).expect("it is received");
        let reason = failure.wait_for(Option::is_some).await.expect("the pool lives").clone().expect("there is a reason");
        assert!(reason.contains("infer-0") && reason.contains("the session is gone"), "{reason}");
        assert!(answer.await.is_err());
        let late = pool.submit(Lane::Live, Box::new(|| ())).await;
        assert!(matches!(late, Err(InferError::Session(words)) if words == reason));
    }

    #[tokio::test]
    async fn whoever_asked_for_what_a_thread_panics_at_is_told_the_reason_too() {
        /// Keeps a thread at its panic, after the answer was given up and before anybody is told why.
        struct Keeps(mpsc::Receiver<()>);
        impl Drop for Keeps {
            fn drop(&mut self) {
                // The end of the test ends the wait.
                let _ = self.0.recv();
            }
        }
        let pool = pool(1);
        let (reply, answer) = oneshot::channel::<()>();
        let (release, keeps) = mpsc::sync_channel(1);
        let both = (reply, Keeps(keeps));
        let panics = Box::new(move || {
            let (_reply, _keeps) = &both;
            panic!("the device is gone");
        });
        pool.submit(Lane::Live, panics).await.expect("it is open");
        assert!(answer.await.is_err());
        let mut why = std::pin::pin!(pool.unanswered());
        tokio::select! {
            biased;
            early = &mut why => panic!("nobody knows yet, and it is said: {early}"),
            () = std::future::ready(()) => release.send(()).expect("it is kept"),
        }
        assert!(matches!(why.await, InferError::Session(words) if words.contains("the device is gone")));
    }

    #[tokio::test]
    async fn photos_beyond_the_queue_are_refused_as_busy() {
        let pool = pool(1);
        let (begin, begun) = mpsc::channel::<()>();
        let (reply, taken) = oneshot::channel();
        let blocks = Box::new(move || {
            reply.send(()).expect("it is awaited");
            // The end of the test ends the wait.
            let _ = begun.recv();
        });
        pool.submit(Lane::Photo, blocks).await.expect("it is open");
        taken.await.expect("the thread has taken it");
        for _ in 0..super::super::queue::PHOTOS_MAX {
            pool.submit(Lane::Photo, Box::new(|| ())).await.expect("there is room");
        }
        assert!(matches!(pool.submit(Lane::Photo, Box::new(|| ())).await, Err(InferError::Busy)));
        drop(begin);
    }
}
