//! How long a batch of each size takes, by what batches took.
//!
//! In: sizes and durations. Out: how long a batch will take at most, nearly always.
//! Must not know: what is done with a batch.

use std::time::Duration;

/// How fast the mean and the deviation follow what is measured, and how many deviations are kept in hand: those of RFC 6298,
/// section 2, which estimates round trips for the same reason.
const MEAN_GAIN: f64 = 1.0 / 8.0;
const DEVIATION_GAIN: f64 = 1.0 / 4.0;
const DEVIATIONS_IN_HAND: f64 = 4.0;

/// Measured durations by batch size.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BatchTimes {
    /// Of size 1, 2, …; as many as were needed so far.
    by_size: Vec<Option<Measured>>,
}

/// Seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    mean: f64,
    deviation: f64,
}

impl BatchTimes {
    /// A batch of `size` frames took so long.
    pub(super) fn observe(&mut self, size: usize, took: Duration) {
        let Some(index) = size.checked_sub(1) else { return };
        if self.by_size.len() <= index {
            self.by_size.resize(size, None);
        }
        let took = took.as_secs_f64();
        self.by_size[index] = Some(match self.by_size[index] {
            None => Measured { mean: took, deviation: took / 2.0 },
            Some(Measured { mean, deviation }) => Measured {
                mean: mean + MEAN_GAIN * (took - mean),
                deviation: deviation + DEVIATION_GAIN * ((took - mean).abs() - deviation),
            },
        });
    }

    /// How long a batch of `size` takes, with some in hand; `None` before any was measured. A size that was never seen takes as
    /// long as the next larger one, or else in proportion as long as the largest smaller one: never less than it will.
    pub(super) fn expect(&self, size: usize) -> Option<Duration> {
        let index = size.max(1) - 1;
        let of = |measured: &Measured| measured.mean + DEVIATIONS_IN_HAND * measured.deviation;
        let (smaller, from_here) = self.by_size.split_at(index.min(self.by_size.len()));
        let seconds = from_here.iter().flatten().map(of).next().or_else(|| {
            let (known, measured) = smaller.iter().enumerate().rev().find_map(|(index, measured)| Some((index + 1, measured.as_ref()?)))?;
            Some(of(measured) * size as f64 / known as f64)
        });
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_time_is_known_once_it_was_measured_and_kept_in_hand_until_it_is_sure() {
        let mut times = BatchTimes::default();
        assert_eq!(times.expect(1), None);
        times.observe(1, 10 * MS);
        assert_eq!(times.expect(1), Some(30 * MS), "after one measurement nobody knows how much it varies");
        (0..40).for_each(|_| times.observe(1, 10 * MS));
        assert!(times.expect(1).is_some_and(|expected| expected < 11 * MS), "{:?}", times.expect(1));
        // One that took long is reckoned with for a while.
        times.observe(1, 30 * MS);
        assert!(times.expect(1).is_some_and(|expected| expected > 25 * MS), "{:?}", times.expect(1));
        times.observe(0, MS);
    }

    #[test]
    fn a_size_that_was_never_seen_is_not_taken_for_faster_than_it_is() {
        let mut times = BatchTimes::default();
        (0..60).for_each(|_| times.observe(2, 10 * MS));
        let two = times.expect(2).expect("it was measured");
        assert_eq!(times.expect(1), Some(two), "a smaller batch takes no longer");
        assert_eq!(times.expect(4).map(|four| four.as_micros()), Some((two * 2).as_micros()), "a larger one at most in proportion");
        (0..60).for_each(|_| times.observe(4, 12 * MS));
        assert!(times.expect(3).is_some_and(|three| three < 13 * MS));
    }
}
