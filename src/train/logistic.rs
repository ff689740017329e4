//! Fits a weighing of features to yes-or-no labels: logistic regression.
//!
//! In: the features and the label of each example. Out: a weight for each feature and a bias, whose
//! sum is the log-odds of yes where yes and no are equally likely beforehand.
//! Minimised is the mean log-loss (Hastie, Tibshirani & Friedman, The Elements of Statistical Learning,
//! 2nd ed., eq. 4.20) with a ridge penalty (eq. 3.41), by Newton's method (eq. 4.26).
//! Must not know: what the features measure.

use super::{TrainError, add_scaled, dimension_of, dot};

/// How a weighing is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogisticSettings {
    /// The penalty is half of this times the squared weights of the standardised features, beside a
    /// loss that is a mean over examples: it needs no change when there are more of them. Above 0.
    pub l2: f64,
    /// More steps of Newton's method than this are not made; it usually takes about ten.
    pub iterations_max: usize,
}

impl Default for LogisticSettings {
    fn default() -> Self {
        Self { l2: 1e-3, iterations_max: 100 }
    }
}

/// A weighing of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// One weight for each feature, in the feature's own scale.
    pub weights: Vec<f64>,
    /// The log-odds where all features are 0.
    pub bias: f64,
}

impl Logistic {
    /// The log-odds of yes (natural logarithm, above 0 if yes is the likelier), where both are equally
    /// likely beforehand. `features` are as many as the weights.
    pub fn logit(&self, features: &[f32]) -> f64 {
        self.bias + self.weights.iter().zip(features).map(|(weight, feature)| weight * f64::from(*feature)).sum::<f64>()
    }
}

/// The loss cannot be made smaller by more than half of this: the squared Newton decrement
/// (Boyd & Vandenberghe, Convex Optimization, section 9.5.1).
const DECREMENT_MAX: f64 = 1e-12;
/// A step that was halved so often changes nothing.
const HALVINGS_MAX: i32 = 60;

/// A feature whose standard deviation is not above this share of its mean is always the same: single
/// precision does not tell values so near to each other apart.
const CONSTANT_BELOW: f64 = 1e-9;

/// Fits a weighing of `features` (examples × features) to `labels`, one for each example.
///
/// Both classes count equally, however many examples each has. The bias is not penalised.
///
/// # Errors
/// If the features are of different lengths or not finite, not each has a label, the labels are of one
/// class only, or the minimum was not reached.
pub fn fit(features: &[Vec<f32>], labels: &[bool], settings: &LogisticSettings) -> Result<Logistic, TrainError> {
    let problem = Problem::new((features, labels), settings.l2)?;
    let not_converged = || TrainError::NotConverged { iterations: settings.iterations_max };
    let mut point = vec![0.0; problem.centre.len() + 1];
    let mut loss = problem.loss(&point);
    for _ in 0..settings.iterations_max {
        let (gradient, hessian) = problem.derivatives(&point);
        let step = solve(hessian, &gradient).ok_or_else(not_converged)?;
        let mut candidates = (0..HALVINGS_MAX).map(|halvings| {
            let mut candidate = point.clone();
            add_scaled(&mut candidate, -0.5_f64.powi(halvings), &step);
            (problem.loss(&candidate), candidate)
        });
        (loss, point) = candidates.find(|(candidate, _)| *candidate <= loss).ok_or_else(not_converged)?;
        if dot(&gradient, &step) <= DECREMENT_MAX {
            return Ok(problem.in_own_scale(&point));
        }
    }
    Err(not_converged())
}

/// What is minimised. A point is the weights of the standardised features, then the bias.
struct Problem<'a> {
    features: &'a [Vec<f32>],
    labels: &'a [bool],
    /// What one example counts, of no and of yes; all together count 1.
    shares: [f64; 2],
    /// The mean and the standard deviation of each feature, with both classes counted equally.
    centre: Vec<f64>,
    deviation: Vec<f64>,
    l2: f64,
}

impl<'a> Problem<'a> {
    fn new((features, labels): (&'a [Vec<f32>], &'a [bool]), l2: f64) -> Result<Self, TrainError> {
        let dimension = dimension_of(features, labels.len())?;
        let yes = labels.iter().filter(|label| **label).count();
        if yes == 0 || yes == labels.len() {
            return Err(TrainError::OneClass);
        }
        let shares = [0.5 / (labels.len() - yes) as f64, 0.5 / yes as f64];
        let (mut centre, mut variance) = (vec![0.0; dimension], vec![0.0; dimension]);
        for (row, &label) in features.iter().zip(labels) {
            centre.iter_mut().zip(row).for_each(|(centre, &value)| *centre += shares[usize::from(label)] * f64::from(value));
        }
        for (row, &label) in features.iter().zip(labels) {
            for ((variance, &value), centre) in variance.iter_mut().zip(row).zip(&centre) {
                *variance += shares[usize::from(label)] * (f64::from(value) - centre).powi(2);
            }
        }
        // A feature that is always the same but for rounding is worth nothing: its weight stays 0 at any scale.
        let is_constant = |deviation: f64, centre: f64| deviation <= CONSTANT_BELOW * centre.abs();
        let deviations = variance.iter().zip(&centre).map(|(variance, &centre)| (variance.sqrt(), centre));
        let deviation = deviations.map(|(deviation, centre)| if is_constant(deviation, centre) { 1.0 } else { deviation }).collect();
        Ok(Self { features, labels, shares, centre, deviation, l2 })
    }

    fn in_own_scale(&self, point: &[f64]) -> Logistic {
        let weights: Vec<f64> = point.iter().zip(&self.deviation).map(|(weight, deviation)| weight / deviation).collect();
        let bias = point[weights.len()] - dot(&weights, &self.centre);
        Logistic { weights, bias }
    }

    /// Of each example: its log-odds, its label, and what it counts.
    fn logits(&self, point: &[f64]) -> impl Iterator<Item = (f64, bool, f64)> {
        let model = self.in_own_scale(point);
        let examples = self.features.iter().zip(self.labels);
        examples.map(move |(row, &label)| (model.logit(row), label, self.shares[usize::from(label)]))
    }

    fn loss(&self, point: &[f64]) -> f64 {
        let weights = &point[..self.centre.len()];
        let losses = self.logits(point).map(|(logit, label, share)| {
            let wrong = if label { -logit } else { logit };
            // The logarithm of 1 + exp(wrong), which does not overflow.
            share * (wrong.max(0.0) + (-wrong.abs()).exp().ln_1p())
        });
        losses.sum::<f64>() + 0.5 * self.l2 * dot(weights, weights)
    }

    /// The gradient, and the lower triangle of the Hessian (rows × columns, as many as the point has values).
    fn derivatives(&self, point: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (size, dimension) = (point.len(), self.centre.len());
        let (mut gradient, mut hessian) = (vec![0.0; size], vec![0.0; size * size]);
        // The bias is the weight of a feature that is always 1.
        let mut standardised = vec![1.0; size];
        for (row, (logit, label, share)) in self.features.iter().zip(self.logits(point)) {
            for (((to, &value), centre), deviation) in standardised.iter_mut().zip(row).zip(&self.centre).zip(&self.deviation) {
                *to = (f64::from(value) - centre) / deviation;
            }
            let probability = 1.0 / (1.0 + (-logit).exp());
            add_scaled(&mut gradient, share * (probability - f64::from(u8::from(label))), &standardised);
            let curvature = share * probability * (1.0 - probability);
            for (i, row) in hessian.chunks_exact_mut(size).enumerate() {
                add_scaled(&mut row[..=i], curvature * standardised[i], &standardised);
            }
        }
        add_scaled(&mut gradient[..dimension], self.l2, &point[..dimension]);
        (0..dimension).for_each(|i| hessian[i * size + i] += self.l2);
        (gradient, hessian)
    }
}

/// Solves `matrix · x = right` by Cholesky's decomposition, of whose symmetric `matrix` the lower
/// triangle is read; `None` if it is not positive definite.
fn solve(matrix: Vec<f64>, right: &[f64]) -> Option<Vec<f64>> {
    let (size, mut lower, mut solution) = (right.len(), matrix, right.to_vec());
    for i in 0..size {
        let (above, below) = lower.split_at_mut(i * size);
        let row = &mut below[..=i];
        for (j, pivot) in above.chunks_exact(size).enumerate() {
            row[j] = (row[j] - dot(&row[..j], &pivot[..j])) / pivot[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        row[i] = pivot.sqrt();
        solution[i] = (solution[i] - dot(&row[..i], &solution[..i])) / row[i];
    }
    for (i, row) in lower.chunks_exact(size).enumerate().rev() {
        solution[i] /= row[i];
        let (before, known) = solution.split_at_mut(i);
        add_scaled(before, -known[0], &row[..i]);
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: LogisticSettings = LogisticSettings { l2: 1e-3, iterations_max: 100 };

    /// A value of the logistic distribution, by its quantile function.
    fn logistic_noise(random: &mut fastrand::Rng) -> f64 {
        let uniform = random.f64().clamp(1e-9, 1.0 - 1e-9);
        (uniform / (1.0 - uniform)).ln()
    }

    /// Examples whose log-odds are 2 x0 - x1 + 0.5, with a third feature that says nothing.
    fn planted(count: usize) -> (Vec<Vec<f32>>, Vec<bool>) {
        let mut random = fastrand::Rng::with_seed(11);
        let features: Vec<Vec<f32>> = (0..count).map(|_| (0..3).map(|_| random.f32() * 6.0 - 3.0).collect()).collect();
        let truth = Logistic { weights: vec![2.0, -1.0, 0.0], bias: 0.0 };
        let labels = features.iter().map(|row| truth.logit(row) + logistic_noise(&mut random) > 0.0).collect();
        (features, labels)
    }

    #[test]
    fn planted_weights_of_overlapping_classes_are_found() {
        let (features, labels) = planted(10_000);
        let model = fit(&features, &labels, &LogisticSettings { l2: 1e-9, ..SETTINGS }).unwrap();
        for (found, truth) in model.weights.iter().zip([2.0, -1.0, 0.0]) {
            assert!((found - truth).abs() < 0.08, "{model:?}");
        }
        assert!(model.bias.abs() < 0.08, "{model:?}");
    }

    #[test]
    fn classes_that_can_be_separated_are() {
        let (mut features, _) = planted(500);
        features.retain(|row| (row[0] + row[1] - 0.3).abs() > 0.1);
        let labels: Vec<bool> = features.iter().map(|row| row[0] + row[1] > 0.3).collect();
        let model = fit(&features, &labels, &LogisticSettings { l2: 1e-7, ..SETTINGS }).unwrap();
        assert!(features.iter().zip(&labels).all(|(row, &label)| (model.logit(row) > 0.0) == label));
        assert!(model.weights.iter().all(|weight| weight.is_finite()));
    }

    #[test]
    fn the_gradient_and_the_hessian_are_those_of_the_loss() {
        let (features, labels) = planted(40);
        let problem = Problem::new((&features, &labels), 0.1).unwrap();
        let point = [0.7, -0.4, 0.2, 0.3];
        let (gradient, hessian) = problem.derivatives(&point);
        for i in 0..4 {
            let moved = |by: f64| {
                let mut moved = point;
                moved[i] += by;
                moved
            };
            let slope = (problem.loss(&moved(1e-5)) - problem.loss(&moved(-1e-5))) / 2e-5;
            assert!((slope - gradient[i]).abs() < 1e-9, "{i}: {slope} {}", gradient[i]);
            let (after, before) = (problem.derivatives(&moved(1e-5)).0, problem.derivatives(&moved(-1e-5)).0);
            for j in i..4 {
                assert!(((after[j] - before[j]) / 2e-5 - hessian[j * 4 + i]).abs() < 1e-8, "{j} {i}");
            }
        }
    }

    #[test]
    fn more_examples_of_one_class_do_not_move_the_boundary() {
        let (mut features, mut labels) = planted(300);
        let even = fit(&features, &labels, &SETTINGS).unwrap();
        let no: Vec<_> = features.iter().zip(&labels).filter(|(_, label)| !**label).map(|(row, _)| row.clone()).collect();
        for _ in 0..30 {
            features.extend(no.iter().cloned());
        }
        labels.resize(features.len(), false);
        let uneven = fit(&features, &labels, &SETTINGS).unwrap();
        assert!(even.weights.iter().zip(&uneven.weights).all(|(a, b)| (a - b).abs() < 1e-6), "{even:?} {uneven:?}");
        assert!((even.bias - uneven.bias).abs() < 1e-6, "{even:?} {uneven:?}");
    }

    #[test]
    fn the_scale_of_a_feature_does_not_change_the_logits() {
        let (features, labels) = planted(300);
        let scaled: Vec<Vec<f32>> = features.iter().map(|row| vec![row[0] * 1024.0 + 512.0, row[1], row[2]]).collect();
        let (model, other) = (fit(&features, &labels, &SETTINGS).unwrap(), fit(&scaled, &labels, &SETTINGS).unwrap());
        for (row, scaled) in features.iter().zip(&scaled) {
            assert!((model.logit(row) - other.logit(scaled)).abs() < 1e-3);
        }
    }

    #[test]
    fn a_feature_that_is_always_the_same_is_given_no_weight() {
        let (mut features, labels) = planted(100);
        features.iter_mut().for_each(|row| row[2] = 0.3);
        let model = fit(&features, &labels, &SETTINGS).unwrap();
        assert!(model.weights[2].abs() < 1e-9 && model.weights[0] > 1.0, "{model:?}");
    }

    #[test]
    fn a_larger_penalty_gives_smaller_weights() {
        let (features, labels) = planted(300);
        let size = |l2| fit(&features, &labels, &LogisticSettings { l2, ..SETTINGS }).unwrap().weights[0];
        assert!(size(1.0) < 0.5 * size(1e-3), "{} {}", size(1.0), size(1e-3));
    }

    #[test]
    fn steps_that_would_lead_away_are_shortened() {
        // Full steps of Newton's method do not converge here.
        let features = [vec![2.0, -2.0], vec![2.0, 20.0], vec![-1.0, 0.0], vec![-40.0, 47.0]];
        let model = fit(&features, &[true, true, false, false], &LogisticSettings { l2: 1e-4, iterations_max: 40 }).unwrap();
        assert!(model.logit(&features[1]) > 1.0 && model.logit(&features[2]) < -1.0, "{model:?}");
    }

    #[test]
    fn the_loss_of_hopeless_weights_is_large_and_finite() {
        let (features, labels) = planted(40);
        let loss = Problem::new((&features, &labels), 0.0).unwrap().loss(&[-1e6, 0.0, 0.0, 0.0]);
        assert!(loss > 1e4 && loss.is_finite(), "{loss}");
    }

    #[test]
    fn the_same_examples_give_the_same_weights() {
        let (features, labels) = planted(300);
        assert_eq!(fit(&features, &labels, &SETTINGS), fit(&features, &labels, &SETTINGS));
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        let (features, labels) = planted(100);
        assert_eq!(fit(&features, &[true; 100], &SETTINGS), Err(TrainError::OneClass));
        assert_eq!(fit(&[], &[], &SETTINGS), Err(TrainError::OneClass));
        assert_eq!(fit(&features, &labels[1..], &SETTINGS), Err(TrainError::Unlabelled { vectors: 100, labels: 99 }));
        let hasty = LogisticSettings { iterations_max: 1, ..SETTINGS };
        assert_eq!(fit(&features, &labels, &hasty), Err(TrainError::NotConverged { iterations: 1 }));
        // Nothing keeps the weight of a feature that is always the same where it is.
        let constant: Vec<Vec<f32>> = features.iter().map(|row| vec![row[0], 0.0]).collect();
        let unbounded = LogisticSettings { l2: 0.0, ..SETTINGS };
        assert_eq!(fit(&constant, &labels, &unbounded), Err(TrainError::NotConverged { iterations: 100 }));
    }
}
