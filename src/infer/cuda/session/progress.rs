//! Tells that something long is still going on.
//!
//! In: the work. Out: what it answers; lines in between.
//! Drops nothing.
//! Must not know: what the work is.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Does `work` in this thread, and calls `tell` with the time that has passed, `every` so long, until it is done.
pub(super) fn told<T>(every: Duration, tell: impl Fn(Duration) + Send, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    // Nothing is ever sent: that the sender is gone says that the work is done, or has panicked.
    let (done, waiting) = sync_channel::<()>(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                tell(began.elapsed());
            }
        });
        let _done = done;
        work()
    })
}
