//! What is known of a model's scores: how often strangers reach a threshold, and which threshold an
//! error rate asks for.
//!
//! In: a file of score histograms, or scores to make one of; target rates, the gallery's size. Out: thresholds, with the
//! rate that each stands for and whether the counts support it. Nothing is extrapolated: beyond what the counts support
//! the strictest supported threshold is given, and it says so.
//! Must not know: who asks, what decides.

mod histogram;
mod measure;
mod tail;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::MirrorChoice;
use crate::face::TemplateSpace;
use crate::rates::{Interval, fmr_of_fpir, fpir_of_fmr, rule_of_three, wilson};
pub use histogram::Histogram;
pub use measure::{Measured, Scored, measure};
use tail::Tail;

/// The version of the file's form.
const FORMAT: u32 = 1;
/// What compares templates where no head was trained.
pub const COSINE: &str = "cosine";
/// Fewer people than this show nothing of strangers: a calibration of them is neither written nor read.
pub const PEOPLE_MIN: u64 = 30;
/// With so many scores above a threshold their count alone says enough (the rule of thirty, ISO/IEC 19795-1, B.1.2);
/// below it the tail's shape is used as well.
const COUNT_SUFFICES: f64 = 30.0;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A calibration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The file is not there or cannot be read.
    #[error("cannot read the calibration {path}: {source}; name another file, or make one with `doorward calibrate`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no calibration.
    #[error("{path} is no calibration that this version reads: {reason}; make it anew with `doorward calibrate`")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was made for another encoder.
    #[error(
        "the calibration {path} was made for templates of {found}, and those in use are of {wanted}; make one with `doorward calibrate`"
    )]
    OtherSpace {
        /// The file.
        path: PathBuf,
        /// The space it was made in.
        found: String,
        /// The space in use.
        wanted: TemplateSpace,
    },
}

/// What scores a model gives, measured on photos of known people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    format: u32,
    /// The space of the templates that were compared.
    pub space: String,
    /// What compared them: `cosine`, or a trained head's name.
    pub head: String,
    /// Whose photos, in words.
    pub source: String,
    /// The command that made it.
    pub command: String,
    /// How many people.
    pub people: u64,
    /// How many photos.
    pub photos: u64,
    /// Whether it was made of a gallery: whoever looked too much like somebody else was refused there, so the highest scores are
    /// missing, and it must not loosen a threshold.
    #[serde(default)]
    pub is_of_gallery: bool,
    /// What `infer.mirror` was when the templates were made: a mean with the mirror image is more alike to everybody's.
    #[serde(default)]
    pub mirror: MirrorChoice,
    /// By the probe's quality, upwards; the first begins at 0.
    pub bands: Vec<Band>,
}

/// Scores of probes that are about equally good: small and blurred faces have a distribution of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// The least overall quality of its probes, 0 to 1.
    pub quality_min: f32,
    /// How many people were compared.
    pub people: u64,
    /// How many different pairs of them were compared in it.
    pub pairs: u64,
    /// Scores of different people.
    pub non_mated: Histogram,
    /// Scores of two photos of one person.
    pub mated: Histogram,
    /// How uncertain some rates are.
    pub spread: Vec<Spread>,
    #[serde(skip)]
    tail: Option<Tail>,
}

/// Between what the true FMR lies where the threshold was chosen for `rate`: 95 %, by a bootstrap over people, since comparisons
/// of one person are not independent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The rate asked for.
    pub rate: f64,
    /// Not below this.
    pub low: f64,
    /// Nor above this.
    pub high: f64,
}

/// A threshold and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibrated {
    /// `score >= threshold` is a match.
    pub threshold: f32,
    /// The rate that it stands for: the target, or the lowest that the counts support.
    pub rate: f64,
    /// Between what the true rate lies, 95 %.
    pub interval: Interval,
    /// Whether the target could be kept.
    pub is_supported: bool,
}

/// How many templates a probe is compared with, and how good it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// Templates of the gallery; 1 for a verification.
    pub comparisons: u64,
    /// Overall quality of the probe, 0 to 1.
    pub quality: f32,
}

impl Calibration {
    /// Over what was [measured](measure).
    pub fn new(space: &TemplateSpace, head: &str, (source, command): (&str, &str), measured: Measured) -> Self {
        let Measured { people, photos, bands } = measured;
        let (space, head, source, command) = (space.to_string(), head.to_owned(), source.to_owned(), command.to_owned());
        Self { format: FORMAT, space, head, source, command, people, photos, is_of_gallery: false, mirror: MirrorChoice::Off, bands }
    }

    /// The same, of templates that were made with this setting of `infer.mirror`.
    pub fn with_mirror(self, mirror: MirrorChoice) -> Self {
        Self { mirror, ..self }
    }

    /// The same for poor probes, and for good ones as `measured` of a gallery, whose pictures all were good enough to enrol. Mated scores
    /// stay where the gallery has none.
    pub fn with_good(&self, measured: Measured, (source, command): (&str, &str)) -> Self {
        let Measured { people, photos, mut bands } = measured;
        let mut all = self.bands.clone();
        if let (Some(good), Some(found)) = (all.last_mut(), bands.pop()) {
            let mated = if found.mated.total() > 0 { found.mated } else { good.mated.clone() };
            *good = Band { quality_min: good.quality_min, mated, ..found };
        }
        let source = format!("{source}; poor pictures: {}", self.source);
        Self { people, photos, source, command: command.to_owned(), is_of_gallery: true, bands: all, ..self.clone() }
    }

    /// Reads the file at `path`, which must be of `space`.
    ///
    /// # Errors
    /// [`CalibrationError`].
    pub fn load(path: &Path, space: &TemplateSpace) -> Result<Self, CalibrationError> {
        let unreadable = |source| CalibrationError::Unreadable { path: path.into(), source };
        let malformed = |reason: String| CalibrationError::Malformed { path: path.into(), reason };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(malformed("it is too large".into()));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let calibration = Self::parse(&text).map_err(malformed)?;
        if calibration.head != COSINE {
            return Err(malformed(format!("it is of the head {:?}, which brings it along; give one of the cosine", calibration.head)));
        }
        if calibration.space != space.as_str() {
            return Err(CalibrationError::OtherSpace { path: path.into(), found: calibration.space, wanted: space.clone() });
        }
        Ok(calibration)
    }

    /// Reads the file's text; an error says what is wrong with it.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut calibration: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if calibration.format != FORMAT {
            return Err(format!("it has format {}, and {FORMAT} is read", calibration.format));
        }
        let begins_at = calibration.bands.first().map(|band| band.quality_min);
        if begins_at != Some(0.0) || !calibration.bands.is_sorted_by(|a, b| a.quality_min < b.quality_min) {
            return Err("its quality bands do not go up from 0".into());
        }
        for band in &mut calibration.bands {
            if !band.non_mated.is_sound() || !band.mated.is_sound() || band.non_mated.total() == 0 {
                return Err("a band has no scores of different people, or too many".into());
            }
            if band.people < PEOPLE_MIN {
                return Err(format!("it is of {} people, and fewer than {PEOPLE_MIN} show nothing of strangers", band.people));
            }
            if band.spread.iter().any(|spread| !(spread.rate > 0.0 && spread.low >= 0.0 && spread.high >= spread.low)) {
                return Err("an interval of a band is none".into());
            }
            band.tail = Tail::of(&band.non_mated);
        }
        Ok(calibration)
    }

    /// The file's text.
    ///
    /// # Errors
    /// When a number cannot be written.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The threshold for a false positive rate of `fpir` in a search among `asked.comparisons` templates; with one
    /// comparison, for a false match rate.
    pub fn threshold(&self, fpir: f64, asked: Asked) -> Calibrated {
        let band = self.band(asked.quality);
        let lowest = rule_of_three(self.support(band));
        let wanted = fmr_of_fpir(fpir, asked.comparisons);
        let fmr = wanted.max(lowest);
        let compounded = |fmr| fpir_of_fmr(fmr, asked.comparisons);
        let (is_supported, interval) = (wanted >= lowest, band.interval(fmr, self.support(band)));
        // Nobody is let in more easily for a poor picture: how poor ones were made is a guess at what cameras do.
        let good = self.band(f32::INFINITY);
        let threshold = band.threshold(fmr).max(good.threshold(wanted.max(rule_of_three(self.support(good)))));
        // Three of so many reached it, which may have been by luck.
        let at_most = wilson(3, self.support(band)).high;
        let high = if is_supported { interval.high } else { interval.high.max(at_most) };
        Calibrated {
            threshold,
            rate: if is_supported { fpir } else { compounded(at_most) },
            interval: Interval { low: compounded(interval.low), high: compounded(high) },
            is_supported,
        }
    }

    /// The false positive rate at `threshold` in a search among `asked.comparisons` templates: no lower than the counts
    /// support.
    pub fn rate(&self, threshold: f32, asked: Asked) -> f64 {
        let band = self.band(asked.quality);
        fpir_of_fmr(band.rate(threshold).max(rule_of_three(self.support(band))), asked.comparisons)
    }

    /// The share of mated comparisons that `threshold` rejects, of how many.
    pub fn fnmr(&self, threshold: f32, quality: f32) -> (u64, u64) {
        let mated = &self.band(quality).mated;
        (mated.total() - mated.reaching(threshold), mated.total())
    }

    /// How many comparisons of different people a rate may rest on, for probes of `quality`: no more than there are pairs of
    /// people. Several photos of the same two, or one photo made worse in several ways, say little that is new.
    pub fn comparisons(&self, quality: f32) -> u64 {
        self.support(self.band(quality))
    }

    fn support(&self, band: &Band) -> u64 {
        band.non_mated.total().min(band.pairs)
    }

    /// The scores of probes of `quality`.
    pub fn band(&self, quality: f32) -> &Band {
        // A calibration has a band; what is not a number is the worst quality.
        self.bands.iter().rev().find(|band| quality >= band.quality_min).unwrap_or(&self.bands[0])
    }
}

impl Band {
    /// Of its scores, of `people` each of whom was compared with each other.
    pub fn new(quality_min: f32, (non_mated, mated): (Histogram, Histogram), people: u64) -> Self {
        let tail = Tail::of(&non_mated);
        let pairs = people.saturating_mul(people.saturating_sub(1)) / 2;
        Self { quality_min, people, pairs, non_mated, mated, spread: Vec::new(), tail }
    }

    /// The threshold that strangers reach at the rate `fmr`, which the counts support.
    fn threshold(&self, fmr: f64) -> f32 {
        let count = fmr * self.non_mated.total() as f64;
        // Half of a score is none.
        let counted = self.non_mated.threshold_of((count + 1e-9) as u64);
        match self.tail {
            // The stricter of both, so that a threshold never falls where a rate does.
            Some(tail) if count < COUNT_SUFFICES => counted.max(tail.threshold(fmr) as f32),
            _ => counted,
        }
    }

    fn rate(&self, threshold: f32) -> f64 {
        let (count, total) = (self.non_mated.reaching(threshold) as f64, self.non_mated.total() as f64);
        match self.tail {
            // What was counted happens at least as often.
            Some(tail) if count < COUNT_SUFFICES => tail.rate(f64::from(threshold)).max(count / total),
            _ => count / total,
        }
    }

    /// Between what the true FMR lies where `rate` was asked for: in between the rates that were looked at, by their
    /// logarithms. Beyond them it is no narrower than at the closest, nor than that of a count of `support` comparisons: people
    /// differ, and a rarer rate is not known better.
    fn interval(&self, rate: f64, support: u64) -> Interval {
        let own = wilson((rate * support as f64).round() as u64, support);
        let above = self.spread.iter().filter(|known| known.rate >= rate).min_by(|a, b| a.rate.total_cmp(&b.rate));
        let below = self.spread.iter().filter(|known| known.rate <= rate).max_by(|a, b| a.rate.total_cmp(&b.rate));
        let (above, below) = match (above, below) {
            (Some(above), Some(below)) => (above, below),
            (Some(closest), None) | (None, Some(closest)) => {
                let (low, high) = (rate * closest.low / closest.rate, rate * closest.high / closest.rate);
                return Interval { low: own.low.min(low), high: own.high.max(high).min(1.0) };
            }
            (None, None) => return own,
        };
        let width = (above.rate / below.rate).ln();
        let share = if width == 0.0 { 0.0 } else { (rate / below.rate).ln() / width };
        // As factors of the rate, which change slowly with it.
        let between = |low: f64, high: f64| low + (high - low) * share;
        Interval {
            low: rate * between(below.low / below.rate, above.low / above.rate),
            high: rate * between(below.high / below.rate, above.high / above.rate),
        }
    }
}
