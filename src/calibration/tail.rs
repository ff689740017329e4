//! The upper tail of non-mated scores, where few were seen.
//!
//! In: a histogram. Out: a generalised Pareto distribution of what exceeds a high score (Pickands, Annals of Statistics 3,
//! 1975; Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, ch. 4), fitted by probability-weighted
//! moments (Hosking and Wallis, Technometrics 29, 1987). It smooths what was seen; how far it may be trusted
//! is decided elsewhere.
//! Must not know: targets, galleries.

use super::histogram::Histogram;

/// The share of scores that the fit rests on, and between how many scores that may be.
const SHARE: u64 = 500;
const EXCEEDING_MIN: u64 = 100;
const EXCEEDING_MAX: u64 = 2_000;

/// What is known of scores above a high one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// The high score.
    above: f64,
    /// Which share of all scores reaches it.
    share: f64,
    /// The scale σ of what exceeds it.
    scale: f64,
    /// The shape ξ; below zero scores have an end, which cosines do.
    shape: f64,
}

impl Tail {
    /// Fitted to the highest scores; `None` where there are too few.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let total = histogram.total();
        let above = histogram.threshold_of((total / SHARE).clamp(EXCEEDING_MIN, EXCEEDING_MAX));
        let exceeding = histogram.reaching(above);
        if exceeding < EXCEEDING_MIN / 2 || exceeding * 4 > total {
            return None;
        }
        // a0 is the mean, a1 the mean of x·(1 − F(x)); of equal scores the middle rank counts.
        let (mut a0, mut a1, mut rank) = (0.0, 0.0, 0.0);
        let (above, n) = (f64::from(above), exceeding as f64);
        for (score, count) in histogram.points().filter(|(score, _)| *score > above) {
            let count = count as f64;
            a0 += count * (score - above) / n;
            a1 += count * (score - above) * (1.0 - (rank + count / 2.0) / n) / n;
            rank += count;
        }
        let spread = a0 - 2.0 * a1;
        if spread <= 0.0 || a0 <= 0.0 {
            return None;
        }
        Some(Self { above, share: n / total as f64, scale: 2.0 * a0 * a1 / spread, shape: 2.0 - a0 / spread })
    }

    /// The score that `rate` of all scores reach; `rate` is at most the share that exceeds.
    pub fn threshold(&self, rate: f64) -> f64 {
        let ratio = self.share / rate;
        let exceeds = if self.shape.abs() < 1e-6 { ratio.ln() } else { (ratio.powf(self.shape) - 1.0) / self.shape };
        self.above + self.scale * exceeds
    }

    /// Which share of all scores reaches `threshold`, which is no lower than where the tail begins.
    pub fn rate(&self, threshold: f64) -> f64 {
        let exceeds = (threshold - self.above) / self.scale;
        let left = if self.shape.abs() < 1e-6 { (-exceeds).exp() } else { (1.0 + self.shape * exceeds).max(0.0).powf(-1.0 / self.shape) };
        self.share * left.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;

    /// Scores whose tail is known: −ln(u) has a share of e^−x above x.
    fn exponential(count: usize, scale: f64) -> Histogram {
        println!("seed {SEED}");
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut histogram = Histogram::over(-1.0, 1.0, 0.002);
        (0..count).for_each(|_| histogram.add((-(1.0 - random.f64()).ln() * scale) as f32));
        histogram
    }

    #[test]
    fn the_tail_of_a_known_distribution_is_found() {
        let tail = Tail::of(&exponential(500_000, 0.05)).expect("there are enough");
        // Of half a million, 500, 50 and 5 scores reach them: the fewer, the less is known. 0.01 is a rate 1.2 times off.
        for (rate, off) in [(1e-3, 0.005), (1e-4, 0.01), (1e-5, 0.03)] {
            let (found, truth) = (tail.threshold(rate), -0.05 * f64::ln(rate));
            assert!((found - truth).abs() < off, "{rate}: {found}, not {truth}");
            assert!((tail.rate(found) / rate - 1.0).abs() < 1e-9, "{rate}");
        }
        assert!(tail.shape.abs() < 0.15, "{tail:?}");
    }

    #[test]
    fn few_scores_or_equal_ones_have_no_tail() {
        assert_eq!(Tail::of(&exponential(120, 0.05)), None);
        let mut equal = Histogram::over(-1.0, 1.0, 0.002);
        (0..100_000).for_each(|_| equal.add(0.25));
        assert_eq!(Tail::of(&equal), None);
    }
}
