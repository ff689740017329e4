//! Counts the processor's time that is spent strictly inside the runtime, by model.
//!
//! In: runs, on their own threads. Out: nanoseconds and numbers of runs.
//! Must not know: what a run does.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use super::InferenceCpu;

/// Of all threads.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) detect: Runs,
    pub(super) encode: Runs,
    pub(super) live: Runs,
}

impl Meter {
    /// What was counted so far.
    pub(super) fn counted(&self) -> InferenceCpu {
        let [(detect_ns, detect_runs), (encode_ns, encode_runs), (live_ns, live_runs)] =
            [&self.detect, &self.encode, &self.live].map(Runs::counted);
        InferenceCpu { detect_ns, detect_runs, encode_ns, encode_runs, live_ns, live_runs }
    }
}

/// Of one model.
#[derive(Debug, Default)]
pub(super) struct Runs {
    ns: AtomicU64,
    count: AtomicU64,
}

impl Runs {
    /// Does a run on this thread; one that fails is not counted.
    pub(super) fn of<T, E>(&self, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let began_ns = thread_cpu_ns();
        let done = run()?;
        self.ns.fetch_add(thread_cpu_ns() - began_ns, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }

    fn counted(&self) -> (u64, u64) {
        (self.ns.load(Ordering::Relaxed), self.count.load(Ordering::Relaxed))
    }
}

/// CPU time of this thread. `OpenVINO` with one thread and one stream works in it too (measured:
/// the process's and the thread's time of a run are equal).
fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
