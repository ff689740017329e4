//! Which threshold holds for whom: the target of the most specific scope, as the calibration has it for
//! today's gallery.
//!
//! In: the configuration's targets, a calibration, the size of the gallery, the subject that may have been found.
//! Out: the threshold in force, with the rate that it stands for and where both come from.
//! Must not know: candidates, templates, the gallery itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::calibration::{Asked, Calibrated, Calibration};
use crate::config::{RecognitionConfig, TargetConfig};
use crate::event::{PolicyScope, Purpose, ThresholdBasis};
use crate::head::Head;
use crate::rates::{Interval, rule_of_three};
use crate::subject::Subject;

/// The error rate that is kept where a calibration is there and the operator says nothing: one in a thousand, of verifications and
/// of searches for strangers alike.
pub const TARGET_RATE_DEFAULT: f64 = 1e-3;

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// This similarity, whatever it stands for.
    Threshold(f32),
    /// This error rate: FMR of a verification, FPIR of an identification.
    Rate(f64),
}

/// What decides. Clones share everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    shared: Arc<Shared>,
    /// Of the camera that asks.
    camera: Option<Target>,
}

#[derive(Clone, Debug, PartialEq)]
struct Shared {
    calibration: Option<Calibration>,
    /// What decides where that shows too little: the encoder's own,
    fallback: Option<Calibration>,
    /// which was perhaps made of other templates than these, so that no rate is promised by it,
    fallback_is_foreign: bool,
    /// even where it is the one in force.
    is_foreign: bool,
    /// What chooses among several who match,
    head: Option<Head>,
    /// and verifies in place of the cosine, if it does.
    head_verifies: bool,
    /// The encoder's threshold as it was published, for want of a calibration.
    published: f32,
    default: TargetConfig,
    watchlists: BTreeMap<String, TargetConfig>,
    subjects: BTreeMap<String, TargetConfig>,
}

/// A head cannot verify by what is asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// A similarity is stated, and a head has none.
    #[error("{key} is a cosine similarity, and recognition.verifier ({head}) has scores of its own: state target rates instead")]
    Similarity {
        /// Where.
        key: String,
        /// The head.
        head: &'static str,
    },
    /// The people that it was measured on show no such rate.
    #[error(
        "recognition.verifier ({head}) was measured on too few people for a false match rate of {target}: they support {lowest:.2e} at best; train it on photos of more people, or state a higher {key}"
    )]
    Unsupported {
        /// Where it is asked for.
        key: String,
        /// The head.
        head: &'static str,
        /// The rate asked for.
        target: f64,
        /// The lowest that is supported.
        lowest: f64,
    },
}

/// The threshold that decides, and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InForce {
    /// `similarity >= threshold` is a match.
    pub threshold: f32,
    /// The rate that was asked for.
    pub target_rate: Option<f64>,
    /// The rate that the threshold stands for, where a calibration says so.
    pub expected_rate: Option<f64>,
    /// Between what the true rate lies, 95 %, where it follows from a target.
    pub interval: Option<Interval>,
    /// Where the threshold comes from.
    pub basis: ThresholdBasis,
    /// Whose target it is.
    pub scope: PolicyScope,
}

/// A threshold, and for what.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdFacts {
    /// What for.
    pub purpose: Purpose,
    /// The watchlist or the subject whose own it is; empty for everybody else.
    pub name: String,
    /// What decides.
    pub in_force: InForce,
}

impl Policy {
    /// By the operator's targets; without a calibration by the encoder's `published` threshold, where no other is set.
    pub fn new(config: &RecognitionConfig, calibration: Option<Calibration>, published: f32) -> Self {
        let default = TargetConfig { threshold: config.threshold, target_fmr: config.target_fmr, target_fpir: config.target_fpir };
        let (watchlists, subjects) = (config.watchlists.clone(), config.subjects.clone());
        Self {
            shared: Arc::new(Shared {
                calibration,
                fallback: None,
                fallback_is_foreign: false,
                is_foreign: false,
                head: None,
                head_verifies: false,
                published,
                default,
                watchlists,
                subjects,
            }),
            camera: None,
        }
    }

    /// One threshold for everything.
    pub fn fixed(threshold: f32) -> Self {
        Self::new(&RecognitionConfig { threshold: Some(threshold), ..RecognitionConfig::default() }, None, threshold)
    }

    /// The same where `fallback`, the encoder's own calibration, decides whenever the one in force has too few comparisons for a target
    /// and would be the looser of both: a few photos of a site never open a door. What decides by a `foreign` one, which was made of
    /// templates that were made in another way, promises no rate.
    pub fn with_fallback(self, fallback: Calibration, foreign: bool) -> Self {
        let is_foreign = foreign && self.shared.calibration.as_ref() == Some(&fallback);
        let shared = Shared { fallback: Some(fallback), fallback_is_foreign: foreign, is_foreign, ..Arc::unwrap_or_clone(self.shared) };
        Self { shared: Arc::new(shared), camera: self.camera }
    }

    /// The same where `head` verifies, by its own calibration, in place of the cosine, and chooses among several who match.
    ///
    /// # Errors
    /// [`PolicyError`] where a scope states a similarity for verifying, which means nothing to a head, or where the head was
    /// measured on too few people for a rate that is asked for.
    pub fn with_verifier(self, head: Head) -> Result<Self, PolicyError> {
        let Shared { default, watchlists, subjects, .. } = &*self.shared;
        let of_kind = |kind: &'static str, scopes: &BTreeMap<String, TargetConfig>| {
            scopes.iter().map(|(name, targets)| (format!("recognition.{kind}.{name}"), targets.clone())).collect::<Vec<_>>()
        };
        let scopes = [of_kind("watchlists", watchlists), of_kind("subjects", subjects)].concat();
        let stated = scopes.iter().filter(|(_, targets)| targets.threshold.is_some()).map(|(scope, _)| format!("{scope}.threshold"));
        let of_default = (default.threshold.is_some() && default.target_fmr.is_none()).then(|| "recognition.threshold".to_owned());
        if let Some(key) = of_default.into_iter().chain(stated).next() {
            return Err(PolicyError::Similarity { key, head: head.rule.name() });
        }
        let lowest = rule_of_three(head.calibration.comparisons(1.0));
        let asked = scopes.iter().filter_map(|(scope, targets)| Some((format!("{scope}.target_fmr"), targets.target_fmr?)));
        let of_default = ("recognition.target_fmr".to_owned(), default.target_fmr.unwrap_or(TARGET_RATE_DEFAULT));
        if let Some((key, target)) = std::iter::once(of_default).chain(asked).find(|(_, target)| *target < lowest) {
            return Err(PolicyError::Unsupported { key, head: head.rule.name(), target, lowest });
        }
        Ok(self.with_head(head, true))
    }

    /// The same where `head` chooses among several who match and verifies nobody: it needs no rate for that.
    pub fn with_chooser(self, head: Head) -> Self {
        self.with_head(head, false)
    }

    fn with_head(self, head: Head, head_verifies: bool) -> Self {
        let shared = Shared { head: Some(head), head_verifies, ..Arc::unwrap_or_clone(self.shared) };
        Self { shared: Arc::new(shared), camera: self.camera }
    }

    /// What chooses among several who match, if anything does.
    pub fn chooser(&self) -> Option<&Head> {
        self.shared.head.as_ref()
    }

    /// What verifies in place of the cosine, if anything does.
    pub fn verifier(&self) -> Option<&Head> {
        self.chooser().filter(|_| self.shared.head_verifies)
    }

    /// The same at a camera with a target of its own.
    pub fn at_camera(&self, target: Option<Target>) -> Self {
        Self { shared: Arc::clone(&self.shared), camera: target.or(self.camera) }
    }

    /// The calibration that thresholds follow from.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.shared.calibration.as_ref()
    }

    /// What decides whether a probe is `subject`, the closest that was found; `None` is anybody without a target of their own.
    pub fn in_force(&self, purpose: Purpose, subject: Option<&Subject>, asked: Asked) -> InForce {
        let of = |target: Target, scope| self.resolved(target, (purpose, scope), asked);
        let own = |targets: &TargetConfig| target(targets, purpose);
        if let Some(subject) = subject {
            if let Some(target) = self.shared.subjects.get(subject.id.as_str()).and_then(own) {
                return of(target, PolicyScope::Subject);
            }
            let lists = subject.watchlists.iter().filter_map(|list| self.shared.watchlists.get(list).and_then(own));
            // Of several lists the strictest decides.
            let strictest = lists.map(|target| of(target, PolicyScope::Watchlist)).reduce(stricter);
            if let Some(strictest) = strictest {
                return strictest;
            }
        }
        if let (Some(target), Purpose::Identify) = (self.camera, purpose) {
            return of(target, PolicyScope::Camera);
        }
        let of_purpose = match purpose {
            Purpose::Verify => self.shared.default.target_fmr,
            Purpose::Identify => self.shared.default.target_fpir,
        };
        match (of_purpose, self.shared.default.threshold) {
            (Some(rate), _) => of(Target::Rate(rate), PolicyScope::Purpose),
            (None, Some(threshold)) => of(Target::Threshold(threshold), PolicyScope::Default),
            (None, None) => of(Target::Rate(TARGET_RATE_DEFAULT), PolicyScope::Default),
        }
    }

    /// Every threshold that holds among `comparisons` templates, but for those of cameras: by purpose, of watchlists and of subjects.
    pub fn overview(&self, comparisons: u64) -> Vec<ThresholdFacts> {
        let identifying = Asked { comparisons, quality: 1.0 };
        let verifying = Asked { comparisons: 1, quality: 1.0 };
        let purposes = [(Purpose::Identify, identifying), (Purpose::Verify, verifying)];
        let fact = |purpose, name: &str, in_force| ThresholdFacts { purpose, name: name.to_owned(), in_force };
        let mut facts = purposes.map(|(purpose, asked)| fact(purpose, "", self.in_force(purpose, None, asked))).to_vec();
        for (scope, scoped) in [(PolicyScope::Watchlist, &self.shared.watchlists), (PolicyScope::Subject, &self.shared.subjects)] {
            for ((name, targets), (purpose, asked)) in scoped.iter().flat_map(|own| purposes.map(|purpose| (own, purpose))) {
                facts.extend(target(targets, purpose).map(|target| fact(purpose, name, self.resolved(target, (purpose, scope), asked))));
            }
        }
        facts
    }

    /// What identifies somebody at the camera that this policy is of, called `name`, among `comparisons` templates; `None` where it
    /// states nothing of its own.
    pub fn of_camera(&self, name: &str, comparisons: u64) -> Option<ThresholdFacts> {
        let in_force = self.resolved(self.camera?, (Purpose::Identify, PolicyScope::Camera), Asked { comparisons, quality: 1.0 });
        Some(ThresholdFacts { purpose: Purpose::Identify, name: name.to_owned(), in_force })
    }

    /// The cosine similarity of whoever has no target of their own, for a good probe; of verifying, where a head does that, what the
    /// cosine would need.
    pub fn threshold(&self, purpose: Purpose, comparisons: u64) -> f32 {
        let asked = Asked { comparisons, quality: 1.0 };
        if self.verifier().is_some() && purpose == Purpose::Verify {
            let rate = Target::Rate(self.shared.default.target_fmr.unwrap_or(TARGET_RATE_DEFAULT));
            return self.resolved(rate, (Purpose::Identify, PolicyScope::Default), asked).threshold;
        }
        self.in_force(purpose, None, asked).threshold
    }

    fn resolved(&self, target: Target, (purpose, scope): (Purpose, PolicyScope), asked: Asked) -> InForce {
        // An empty gallery is asked nothing; whoever wants to know is told what the first subject will meet.
        let asked = Asked { comparisons: asked.comparisons.max(1), ..asked };
        let verifier = self.verifier().filter(|_| purpose == Purpose::Verify).map(|head| &head.calibration);
        let calibration = verifier.or(self.shared.calibration.as_ref());
        match (target, calibration) {
            (Target::Threshold(threshold), _) => {
                let known = calibration.filter(|_| verifier.is_some() || !self.shared.is_foreign);
                let expected_rate = known.map(|calibration| calibration.rate(threshold, asked));
                InForce { threshold, target_rate: None, expected_rate, interval: None, basis: ThresholdBasis::Fixed, scope }
            }
            (Target::Rate(rate), Some(calibration)) => {
                let (is_similarity, good) = (verifier.is_none(), Asked { quality: f32::INFINITY, ..asked });
                let (mut found, is_known) = self.calibrated(rate, (calibration, is_similarity), asked);
                // Nobody is let in more easily for a poor picture, whatever decides good ones.
                found.threshold = found.threshold.max(self.calibrated(rate, (calibration, is_similarity), good).0.threshold);
                let basis = if found.is_supported { ThresholdBasis::Calibrated } else { ThresholdBasis::Unsupported };
                InForce {
                    threshold: found.threshold,
                    target_rate: Some(rate),
                    expected_rate: is_known.then_some(found.rate),
                    interval: is_known.then_some(found.interval),
                    basis,
                    scope,
                }
            }
            (Target::Rate(_), None) => InForce {
                // What cannot be kept must not loosen what was stated.
                threshold: self.shared.published.max(self.shared.default.threshold.unwrap_or(f32::NEG_INFINITY)),
                target_rate: None,
                expected_rate: None,
                interval: None,
                basis: ThresholdBasis::Published,
                scope,
            },
        }
    }

    /// What `calibration` says, or the encoder's own where that is stricter and the first in doubt. Scores of a head are no
    /// similarities: for them there is no other calibration. With it, whether that is of faces that were looked at as they are here:
    /// else it tells no rate.
    fn calibrated(&self, rate: f64, (calibration, is_similarity): (&Calibration, bool), asked: Asked) -> (Calibrated, bool) {
        let found = calibration.threshold(rate, asked);
        let doubts = !found.is_supported || calibration.is_of_gallery;
        let fallback = self.shared.fallback.as_ref().filter(|_| doubts && is_similarity);
        let stricter = fallback.map(|fallback| fallback.threshold(rate, asked)).filter(|other| other.threshold > found.threshold);
        let is_foreign = if stricter.is_some() { self.shared.fallback_is_foreign } else { self.shared.is_foreign };
        let (mut found, is_known) = (stricter.unwrap_or(found), !(is_similarity && is_foreign));
        found.is_supported &= is_known;
        if !found.is_supported && is_similarity {
            found.threshold = found.threshold.max(self.shared.published);
        }
        (found, is_known)
    }
}

/// What a scope asks for `purpose`.
fn target(targets: &TargetConfig, purpose: Purpose) -> Option<Target> {
    let rate = match purpose {
        Purpose::Verify => targets.target_fmr,
        Purpose::Identify => targets.target_fpir,
    };
    rate.map(Target::Rate).or(targets.threshold.map(Target::Threshold))
}

fn stricter(a: InForce, b: InForce) -> InForce {
    if b.threshold > a.threshold { b } else { a }
}
