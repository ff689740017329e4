//! Counted scores.
//!
//! In: scores. Out: how many reach a threshold, and which threshold so many reach.
//! A score outside the range counts in the outermost bin, so nothing is lost.
//! Must not know: what a score means.

use serde::{Deserialize, Serialize};

/// Scores in bins of one width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// The lower edge of the first bin.
    low: f32,
    /// The width of a bin.
    step: f32,
    /// How many scores fell into each bin, upwards.
    counts: Vec<u64>,
}

impl Histogram {
    /// Empty, over `[low, high)`.
    pub fn over(low: f32, high: f32, step: f32) -> Self {
        Self { low, step, counts: vec![0; ((high - low) / step).ceil().max(1.0) as usize] }
    }

    /// Counts `score`.
    pub fn add(&mut self, score: f32) {
        let bin = self.bin_of(score);
        self.counts[bin] += 1;
    }

    /// The bin that `score` falls into; what is not a number counts as the highest, so that no rate is made to
    /// look better by it.
    pub fn bin_of(&self, score: f32) -> usize {
        let last = self.counts.len() - 1;
        if score.is_nan() {
            return last;
        }
        let mut bin = (((f64::from(score) - f64::from(self.low)) / f64::from(self.step)).floor().max(0.0) as usize).min(last);
        // An edge belongs to the bin above it, whatever rounding says.
        while bin < last && score >= self.edge(bin + 1) {
            bin += 1;
        }
        while bin > 0 && score < self.edge(bin) {
            bin -= 1;
        }
        bin
    }

    /// Whether a file's numbers make a histogram.
    pub fn is_sound(&self) -> bool {
        let total = self.counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        self.low.is_finite() && self.step.is_finite() && self.step > 0.0 && !self.counts.is_empty() && total.is_some()
    }

    /// How many scores were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Bins.
    pub fn bins(&self) -> usize {
        self.counts.len()
    }

    /// The lower edge of bin `bin`: the threshold that its scores reach.
    pub fn edge(&self, bin: usize) -> f32 {
        (f64::from(self.low) + f64::from(self.step) * bin as f64) as f32
    }

    /// Each bin's middle with its count, where there is any.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = (f64, u64)> {
        let middle = |bin: usize| f64::from(self.low) + f64::from(self.step) * (bin as f64 + 0.5);
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(bin, count)| (middle(bin), *count))
    }

    /// How many scores reach `threshold`; those that share its bin count.
    pub fn reaching(&self, threshold: f32) -> u64 {
        self.counts[self.bin_of(threshold)..].iter().sum()
    }

    /// The lowest edge that at most `most` scores reach.
    pub fn threshold_of(&self, most: u64) -> f32 {
        let mut reaching = 0;
        for bin in (0..self.counts.len()).rev() {
            reaching += self.counts[bin];
            if reaching > most {
                return self.edge(bin + 1);
            }
        }
        self.edge(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scores: &[f32]) -> Histogram {
        let mut histogram = Histogram::over(-1.0, 1.0, 0.002);
        scores.iter().for_each(|score| histogram.add(*score));
        histogram
    }

    #[test]
    fn the_threshold_of_a_count_is_reached_by_no_more() {
        let scores: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.618_034).fract() * 1.8 - 0.9).collect();
        let histogram = of(&scores);
        for most in [0, 1, 3, 10, 500, 999, 1000] {
            let threshold = histogram.threshold_of(most);
            let reach = scores.iter().filter(|score| **score >= threshold).count() as u64;
            assert!(reach <= most, "{most}: {reach} reach {threshold}");
            assert_eq!(histogram.reaching(threshold), reach, "{most}");
            let lower = threshold - 0.002;
            assert!(
                lower < -1.0 || scores.iter().filter(|score| **score >= lower).count() as u64 > most,
                "{most}: {threshold} is not the lowest"
            );
        }
    }

    #[test]
    fn what_is_out_of_range_or_no_number_is_counted() {
        let histogram = of(&[-5.0, 5.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!((histogram.total(), histogram.reaching(0.99)), (5, 3));
    }

    #[test]
    fn an_edge_belongs_to_the_bin_above_it() {
        let histogram = Histogram::over(-1.0, 1.0, 0.002);
        for bin in 0..histogram.bins() {
            assert_eq!(histogram.bin_of(histogram.edge(bin)), bin);
            assert!(bin == 0 || histogram.bin_of(histogram.edge(bin).next_down()) == bin - 1);
        }
    }
}
