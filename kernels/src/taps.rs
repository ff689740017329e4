//! Which source samples make each destination sample along one axis, and with what weight.
//!
//! In: two lengths and a way of sampling. Out: [`Taps`].
//! Drops, by design, samples between the taps of [`Sampling::Video`].
//! Must not know: pixels.

/// The sum of the weights of one destination sample.
pub const WEIGHT_SUM: u16 = 256;
/// The most taps of one destination sample: beyond it an axis is subsampled.
const TAPS_MAX: usize = 64;

/// How a line is made longer or shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// Shorter: the mean of all that a destination sample covers. Longer: linear between centres.
    Exact,
    /// Shorter: the mean of two to four samples spread over what a destination sample covers.
    /// Longer: linear. For live video, where exactness does not pay for reading it all.
    Video,
    /// Shorter or longer: linear between the two samples beside a destination sample's centre. What lies between such
    /// pairs is left out.
    Points,
}

/// For each destination sample, `count` source samples with weights that add to [`WEIGHT_SUM`].
#[derive(Debug, Default)]
pub struct Taps {
    /// Source samples of a destination sample.
    pub count: usize,
    /// `count` indices a destination sample.
    pub index: Vec<u32>,
    /// `count` weights a destination sample.
    pub weight: Vec<u16>,
    /// Whether all weights are the same, but for rounding.
    pub is_mean: bool,
}

/// Which sample of `from` is point `point` of `to` points that are spread evenly over them: the one that its middle falls on.
pub const fn point_of(point: usize, from: usize, to: usize) -> usize {
    (2 * point + 1) * from / (2 * to)
}

impl Taps {
    /// Refills the table for a line of `from` samples that becomes `to` samples long, the samples
    /// of both spread evenly over it. Allocates only where the table grows.
    pub fn refill(&mut self, from: usize, to: usize, sampling: Sampling) {
        self.index.clear();
        self.weight.clear();
        self.is_mean = false;
        let factor = from as f64 / to as f64;
        match sampling {
            _ if from == to => self.points(1, from, to),
            _ if factor < 1.0 => self.linear(from, to),
            Sampling::Points => self.linear(from, to),
            Sampling::Video => self.points((factor.ceil() as usize).clamp(2, 4), from, to),
            Sampling::Exact => self.area(from, to),
        }
    }

    /// `count` points spread over each destination sample, with equal weights.
    fn points(&mut self, count: usize, from: usize, to: usize) {
        self.count = count;
        self.is_mean = true;
        let share = WEIGHT_SUM / count as u16;
        for point in 0..to * count {
            self.index.push(point_of(point, from, to * count) as u32);
            // What the division leaves over goes to the first.
            self.weight.push(if point.is_multiple_of(count) { WEIGHT_SUM - share * (count as u16 - 1) } else { share });
        }
    }

    fn linear(&mut self, from: usize, to: usize) {
        self.count = 2;
        let factor = from as f64 / to as f64;
        for sample in 0..to {
            let at = ((sample as f64 + 0.5) * factor - 0.5).clamp(0.0, (from - 1) as f64);
            let left = at as usize;
            let right_weight = ((at - left as f64) * f64::from(WEIGHT_SUM)).round() as u16;
            self.index.extend([left as u32, (left + 1).min(from - 1) as u32]);
            self.weight.extend([WEIGHT_SUM - right_weight, right_weight]);
        }
    }

    fn area(&mut self, from: usize, to: usize) {
        let factor = from as f64 / to as f64;
        let wanted = factor.ceil() as usize + 1;
        if wanted > TAPS_MAX {
            return self.points(TAPS_MAX, from, to);
        }
        self.count = wanted;
        for sample in 0..to {
            let (start, end) = (sample as f64 * factor, (sample + 1) as f64 * factor);
            let (mut covered, mut given) = (0.0_f64, 0_u16);
            for tap in 0..wanted {
                let at = start as usize + tap;
                covered += ((at + 1) as f64).min(end) - (at as f64).max(start).min(end);
                // The weights are differences of one rounded sum, so that they add up exactly.
                let sum = if tap + 1 == wanted { WEIGHT_SUM } else { (covered / factor * f64::from(WEIGHT_SUM)).round() as u16 };
                self.index.push(at.min(from - 1) as u32);
                self.weight.push(sum - given);
                given = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resample(line: &[f64], to: usize, sampling: Sampling) -> Vec<f64> {
        let mut taps = Taps::default();
        taps.refill(line.len(), to, sampling);
        let weighted = |(i, w): (&u32, &u16)| line[*i as usize] * f64::from(*w) / f64::from(WEIGHT_SUM);
        let pairs = taps.index.chunks(taps.count).zip(taps.weight.chunks(taps.count));
        pairs.map(|(index, weight)| index.iter().zip(weight).map(weighted).sum()).collect()
    }

    #[test]
    fn a_shorter_line_holds_the_means() {
        assert_eq!(resample(&[1.0, 3.0, 5.0, 7.0], 2, Sampling::Exact), [2.0, 6.0]);
        assert_eq!(resample(&[1.0, 3.0, 5.0, 7.0], 2, Sampling::Video), [2.0, 6.0]);
        let thirds = resample(&[0.0, 3.0, 6.0], 2, Sampling::Exact);
        assert!((thirds[0] - 1.0).abs() < 0.02 && (thirds[1] - 5.0).abs() < 0.02, "{thirds:?}");
    }

    #[test]
    fn a_longer_line_lies_between_the_samples() {
        assert_eq!(resample(&[0.0, 4.0], 4, Sampling::Exact), [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(resample(&[0.0, 4.0], 4, Sampling::Video), [0.0, 1.0, 3.0, 4.0]);
    }

    #[test]
    fn points_lie_between_the_two_samples_beside_them() {
        assert_eq!(resample(&[0.0, 4.0, 8.0, 9.0, 9.0, 9.0], 2, Sampling::Points), [4.0, 9.0]);
        assert_eq!(resample(&[1.0, 3.0, 9.0, 9.0, 5.0, 7.0, 9.0, 9.0], 2, Sampling::Points), [6.0, 8.0]);
    }

    proptest! {
        #[test]
        fn weights_add_up_and_no_tap_is_outside(from in 1_usize..9_000, to in 1_usize..700, way in 0_usize..3) {
            let sampling = [Sampling::Exact, Sampling::Video, Sampling::Points][way];
            let mut taps = Taps::default();
            taps.refill(from, to, sampling);
            prop_assert_eq!(taps.index.len(), to * taps.count);
            prop_assert!(taps.index.iter().all(|i| (*i as usize) < from));
            prop_assert!(taps.weight.chunks(taps.count).all(|w| w.iter().sum::<u16>() == WEIGHT_SUM));
        }
    }
}
