//! Error rates: how they compound over a gallery, and how well a count supports one.
//!
//! In: counts, rates. Out: rates and their intervals. FMR and FNMR are those of 1:1 comparisons, FPIR and
//! FNIR those of searches among N (ISO/IEC 19795-1).
//! Must not know: scores, thresholds, who is compared.

/// How sure an interval is: 95 %, as the normal deviate of its two tails.
const DEVIATE_95: f64 = 1.959_963_984_540_054;

/// Between what a rate lies, with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Not below this, 0 to 1.
    pub low: f64,
    /// Nor above this, 0 to 1.
    pub high: f64,
}

impl Interval {
    /// Whether `rate` lies in it.
    pub fn holds(&self, rate: f64) -> bool {
        self.low <= rate && rate <= self.high
    }

    /// The middle 95 % of `values`, such as a bootstrap's (Efron and Tibshirani, An Introduction to the Bootstrap,
    /// 1993, 13.3: the percentile interval). `None` without values.
    pub fn of_resamples(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| values[(share * last as f64).round() as usize];
        Some(Self { low: at(0.025), high: at(0.975) })
    }
}

/// `events` of `trials`, which are taken to be independent (Wilson, Probable inference, JASA 22, 1927). Without a
/// trial everything is possible.
pub fn wilson(events: u64, trials: u64) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, share, square) = (trials as f64, events as f64 / trials as f64, DEVIATE_95 * DEVIATE_95);
    let middle = (share + square / (2.0 * n)) / (1.0 + square / n);
    let half = DEVIATE_95 / (1.0 + square / n) * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    // Rounding must not leave a possible rate out.
    let (low, high) = (if events == 0 { 0.0 } else { middle - half }, if events == trials { 1.0 } else { middle + half });
    Interval { low: low.max(0.0), high: high.min(1.0) }
}

/// The rule of three (ISO/IEC 19795-1, B.1.1): the lowest rate that `trials` without a single event show, with 95 %
/// confidence. A target below it is not supported by so few.
pub fn rule_of_three(trials: u64) -> f64 {
    if trials == 0 { 1.0 } else { (3.0 / trials as f64).min(1.0) }
}

/// The share of K independent decisions that are all right when each is with probability `accuracy`: `accuracy`^K. A
/// verifier that is right 99 times of 100 is right on 100 people at once 37 times of 100.
pub fn all_right(accuracy: f64, decisions: u64) -> f64 {
    accuracy.powf(decisions as f64)
}

/// The rate at which a search among `comparisons` templates finds somebody for a face that is nobody's, when each
/// comparison errs at `fmr` by itself: FPIR = 1 − (1 − FMR)^N (ISO/IEC 19795-1, and [`all_right`]). Comparisons of one
/// face are not quite independent: over galleries drawn like the calibration's that makes the true rate lower. A given gallery with
/// many who look alike, as of one family or one origin, may exceed it (Grother and others, NISTIR 8280, 2019): calibrate on it.
pub fn fpir_of_fmr(fmr: f64, comparisons: u64) -> f64 {
    // ln(1 − x) and e^x − 1 keep the digits of rates near zero.
    -(comparisons as f64 * (-fmr).ln_1p()).exp_m1()
}

/// The rate of one comparison from which a search among `comparisons` templates errs at `fpir`: the inverse of
/// [`fpir_of_fmr`].
pub fn fmr_of_fpir(fpir: f64, comparisons: u64) -> f64 {
    -((-fpir).ln_1p() / comparisons.max(1) as f64).exp_m1()
}

/// Mean and standard deviation (of a sample) of `values`; zeros without values.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_compound_over_a_gallery() {
        assert!((all_right(0.99, 100) - 0.366).abs() < 1e-3);
        assert!((fpir_of_fmr(0.01, 100) - (1.0 - all_right(0.99, 100))).abs() < 1e-12);
        assert_eq!(fpir_of_fmr(0.0, 1_000), 0.0);
        for (fpir, comparisons) in [(0.001, 1), (0.001, 1_000_000), (0.3, 7)] {
            let back = fpir_of_fmr(fmr_of_fpir(fpir, comparisons), comparisons);
            assert!((back / fpir - 1.0).abs() < 1e-9, "{fpir} of {comparisons}: {back}");
        }
    }

    #[test]
    fn few_trials_show_no_low_rate() {
        assert_eq!(rule_of_three(300), 0.01);
        assert_eq!(rule_of_three(0), 1.0);
        let nothing_seen = wilson(0, 100);
        assert!(nothing_seen.low == 0.0 && (nothing_seen.high - 0.037).abs() < 1e-3, "{nothing_seen:?}");
        // Newcombe, Statistics in Medicine 17, 1998, table I: 81 of 263.
        let some = wilson(81, 263);
        assert!((some.low - 0.2553).abs() < 1e-4 && (some.high - 0.3662).abs() < 1e-4, "{some:?}");
        assert!(wilson(5, 5).holds(1.0) && wilson(0, 0) == Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn an_interval_of_resamples_is_their_middle() {
        let values = (0..=1000).map(|value| f64::from(value) / 1000.0).rev().collect();
        assert_eq!(Interval::of_resamples(values), Some(Interval { low: 0.025, high: 0.975 }));
        assert_eq!(Interval::of_resamples(Vec::new()), None);
    }

    #[test]
    fn a_mean_comes_with_the_deviation_of_a_sample() {
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), (2.0, 2.0_f64.sqrt()));
        assert_eq!(mean_and_deviation(&[]), (0.0, 0.0));
    }
}
