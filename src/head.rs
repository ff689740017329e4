//! Verification heads: what says of two templates whether they are of one person.
//!
//! In: two vectors of one space. Out: a score, higher is closer. Cosine is the default and lives with the template; a head
//! from a file was trained on pairs, is bound to the encoder whose templates it learnt from, and brings the calibration
//! that its thresholds follow from.
//! Must not know: photos, galleries, how it was trained.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::calibration::Calibration;
use crate::face::{TemplateSpace, dot};

/// The version of the file's form.
const FORMAT: u32 = 1;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// What is added to each number of a unit vector before χ², so that no sum of two is negative: each lies in [-1, 1], so the shifted
/// ones lie in [0, 2].
pub const CHI_SQUARE_SHIFT: f32 = 1.0;
/// Where both shifted numbers are zero, so is their difference: 0/0 is taken for 0.
const CHI_SQUARE_LEAST: f32 = 1e-6;
/// The highest logit that is told apart: beyond it nobody doubts.
pub const LOGIT_MAX: f32 = 40.0;

/// How two vectors become features, and those a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// −‖x − y‖: one person where the distance is at most u, as in `FaceNet` (Schroff and others, 2015). Of unit vectors it
    /// orders pairs as the cosine does, since ‖x − y‖² = 2 − 2·cos.
    Euclidean,
    /// The logit of a logistic unit over |x − y|, element by element, as in `DeepFace` (Taigman and others, 2014, 4.2).
    AbsDiff,
    /// The logit of a logistic unit over χ²: (x − y)² / (x + y), element by element, of vectors shifted by
    /// [`CHI_SQUARE_SHIFT`] (ibid., 4.1).
    Chi2,
}

impl Rule {
    /// A stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euclidean => "euclidean",
            Self::AbsDiff => "abs-diff",
            Self::Chi2 => "chi2",
        }
    }

    /// The features of a pair, one for each dimension; none for a distance.
    pub fn features(self, x: &[f32], y: &[f32]) -> Vec<f32> {
        match self {
            Self::Euclidean => Vec::new(),
            Self::AbsDiff => x.iter().zip(y).map(|(x, y)| (x - y).abs()).collect(),
            Self::Chi2 => x.iter().zip(y).map(|(x, y)| chi_square(*x, *y)).collect(),
        }
    }

    /// Between what its scores lie.
    pub fn range(self) -> (f32, f32) {
        match self {
            Self::Euclidean => (-2.0, 0.01),
            Self::AbsDiff | Self::Chi2 => (-LOGIT_MAX, LOGIT_MAX),
        }
    }
}

/// (x − y)² / (x + y) of two numbers in [-1, 1], shifted to be positive.
fn chi_square(x: f32, y: f32) -> f32 {
    (x - y).powi(2) / (x + y + 2.0 * CHI_SQUARE_SHIFT).max(CHI_SQUARE_LEAST)
}

/// ‖x − y‖, the Euclidean distance: d(img1, img2) of the theory.
pub fn euclidean_distance(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum::<f32>().sqrt()
}

/// A head cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The file is not there or cannot be read.
    #[error("cannot read the verification head {path}: {source}; name another file, or train one with `doorward train verifier`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no head.
    #[error("{path} is no verification head that this version reads: {reason}; train one with `doorward train verifier`")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It learnt from another encoder's templates.
    #[error(
        "the verification head {path} was trained for templates of {found}, and those in use are of {wanted}; train one with `doorward train verifier`"
    )]
    OtherSpace {
        /// The file.
        path: PathBuf,
        /// The space that it was trained in.
        found: String,
        /// The space in use.
        wanted: TemplateSpace,
    },
}

/// A head with what it learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    format: u32,
    /// How features are made.
    pub rule: Rule,
    /// The space of the templates that it learnt from: it begins with the published encoder's hash.
    pub space: String,
    /// The weight of each feature; none for a distance.
    pub weights: Vec<f32>,
    /// Added to the weighed features.
    pub bias: f32,
    /// How its scores are distributed, on people it did not learn from.
    pub calibration: Calibration,
}

impl Head {
    /// Over what was learnt.
    pub fn new(rule: Rule, (weights, bias): (Vec<f32>, f32), calibration: Calibration) -> Self {
        Self { format: FORMAT, rule, space: calibration.space.clone(), weights, bias, calibration }
    }

    /// Reads the file at `path`, which must be of `space`.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn load(path: &Path, space: &TemplateSpace) -> Result<Self, HeadError> {
        let unreadable = |source| HeadError::Unreadable { path: path.into(), source };
        let malformed = |reason: String| HeadError::Malformed { path: path.into(), reason };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(malformed("it is too large".into()));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut head: Self = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if head.format != FORMAT {
            return Err(malformed(format!("it has format {}, and {FORMAT} is read", head.format)));
        }
        // The calibration's own rules are its own.
        let calibration = head.calibration.to_json().map_err(|error| malformed(error.to_string()))?;
        head.calibration = Calibration::parse(&calibration).map_err(malformed)?;
        if (head.rule == Rule::Euclidean) != head.weights.is_empty() || !head.weights.iter().all(|weight| weight.is_finite()) {
            return Err(malformed("its weights are none or not finite".into()));
        }
        if head.space != space.as_str() || head.calibration.space != head.space {
            return Err(HeadError::OtherSpace { path: path.into(), found: head.space, wanted: space.clone() });
        }
        Ok(head)
    }

    /// The file's text.
    ///
    /// # Errors
    /// When a number cannot be written.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// How surely two vectors are of one person; of other lengths than it learnt from, not at all.
    pub fn score(&self, x: &[f32], y: &[f32]) -> f32 {
        if self.rule == Rule::Euclidean {
            return -euclidean_distance(x, y);
        }
        if x.len() != self.weights.len() || y.len() != self.weights.len() {
            return -LOGIT_MAX;
        }
        // Within what is counted: a score beyond the highest threshold would reach it.
        (dot(&self.weights, &self.rule.features(x, y)) + self.bias).clamp(-LOGIT_MAX, 0.999 * LOGIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::{Band, Histogram, Measured};

    fn head(rule: Rule, weights: Vec<f32>) -> Head {
        let (low, high) = rule.range();
        let mut non_mated = Histogram::over(low, high, 0.1);
        (0..100).for_each(|_| non_mated.add(low));
        let bands = vec![Band::new(0.0, (non_mated.clone(), non_mated), 40)];
        let measured = Measured { people: 2, photos: 4, bands };
        Head::new(rule, (weights, 0.5), Calibration::new(&TemplateSpace::new("s"), rule.name(), ("planted", "none"), measured))
    }

    #[test]
    fn a_distance_orders_unit_vectors_as_the_cosine_does() {
        let at = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let euclidean = head(Rule::Euclidean, Vec::new());
        for degrees in [0.0, 10.0, 60.0, 90.0, 180.0] {
            let (x, y) = (at(0.0), at(degrees));
            let distance = euclidean_distance(&x, &y);
            assert!((distance.powi(2) - (2.0 - 2.0 * dot(&x, &y))).abs() < 1e-5, "{degrees}");
            assert_eq!(euclidean.score(&x, &y), -distance);
        }
    }

    #[test]
    fn features_are_those_of_the_formulas() {
        let (x, y) = ([0.6, -0.8], [0.2, 0.4]);
        let abs = Rule::AbsDiff.features(&x, &y);
        assert!((abs[0] - 0.4).abs() < 1e-6 && (abs[1] - 1.2).abs() < 1e-6, "{abs:?}");
        let chi = Rule::Chi2.features(&x, &y);
        // Shifted by 1: (1.6, 0.2) and (1.2, 1.4).
        assert!((chi[0] - 0.16 / 2.8).abs() < 1e-6 && (chi[1] - 1.44 / 1.6).abs() < 1e-6, "{chi:?}");
        assert_eq!(Rule::Chi2.features(&[-1.0], &[-1.0]), [0.0]);
        let weighed = head(Rule::AbsDiff, vec![-2.0, 1.0]);
        assert!((weighed.score(&x, &y) - (-0.8 + 1.2 + 0.5)).abs() < 1e-6);
        assert_eq!(weighed.score(&x, &y), weighed.score(&y, &x), "a pair has no first");
        assert_eq!(weighed.score(&[1.0], &[1.0]), -LOGIT_MAX);
    }

    #[test]
    fn a_head_of_another_encoder_is_refused_with_both_names() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("head.json");
        let written = head(Rule::Chi2, vec![-1.0]);
        std::fs::write(&path, written.to_json().expect("it is finite")).expect("it is written");
        assert_eq!(Head::load(&path, &TemplateSpace::new("s")).expect("it is good"), written);
        let error = Head::load(&path, &TemplateSpace::new("other")).expect_err("another encoder's").to_string();
        assert!(error.contains(" s,") && error.contains("other") && error.contains("train verifier"), "{error}");
        std::fs::write(&path, "{}").expect("it is written");
        assert!(matches!(Head::load(&path, &TemplateSpace::new("s")), Err(HeadError::Malformed { .. })));
        assert!(matches!(Head::load(&dir.path().join("no"), &TemplateSpace::new("s")), Err(HeadError::Unreadable { .. })));
    }
}
