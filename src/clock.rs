//! Time as an argument: one clock for the whole daemon.
//!
//! In: nothing. Out: [`Timestamp`]s that never go backwards.
//! Every timing rule takes its `now` from a [`Clock`], so tests simulate it and never sleep.
//! Must not know: who asks.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment on the daemon's clock, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero when `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This moment, `by` later. Saturates at the end of time.
    pub fn plus(self, by: Duration) -> Self {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// This moment, `by` earlier. Saturates at the beginning of time.
    pub fn minus(self, by: Duration) -> Self {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000))
    }
}

/// Something that tells the time.
pub trait Clock: Send + Sync {
    /// The present moment; never earlier than an answer given before.
    fn now(&self) -> Timestamp;
}

/// The wall clock as it stood when the daemon started, carried on by the monotonic clock.
///
/// A step of the machine's clock while the daemon runs is therefore not seen: an event can never
/// seem older or younger than it is. The systemd unit starts the daemon after time is in sync.
#[derive(Debug)]
pub struct SystemClock {
    wall_at_start: Timestamp,
    start: Instant,
}

impl SystemClock {
    /// A clock anchored at this moment.
    pub fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_at_start: Timestamp::default().plus(wall), start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.wall_at_start.plus(self.start.elapsed())
    }
}

/// A clock that stands still until it is told to move: for tests, and for replay, where time is
/// the stream's own.
#[derive(Debug, Default)]
pub struct SimulatedClock(AtomicI64);

impl SimulatedClock {
    /// A clock that stands at `start`.
    pub fn at(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.as_micros()))
    }

    /// Moves the clock to `to`, or leaves it where it is when that lies in the past.
    pub fn advance_to(&self, to: Timestamp) {
        self.0.fetch_max(to.as_micros(), Ordering::AcqRel);
    }

    /// Moves the clock `by` further and answers the new time.
    pub fn advance(&self, by: Duration) -> Timestamp {
        let to = self.now().plus(by);
        self.advance_to(to);
        to
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_clock_never_goes_backwards() {
        let clock = SimulatedClock::at(Timestamp::from_micros(10));
        clock.advance_to(Timestamp::from_micros(5));
        assert_eq!(clock.now(), Timestamp::from_micros(10));
        assert_eq!(clock.advance(Duration::from_micros(3)), Timestamp::from_micros(13));
    }

    #[test]
    fn the_time_since_a_later_moment_is_zero() {
        let (early, late) = (Timestamp::from_micros(1), Timestamp::from_micros(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.since(early), Duration::from_micros(3));
    }
}
