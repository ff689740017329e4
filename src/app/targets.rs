//! What decides, by the configuration's targets, and which of these are not kept or are for nobody.
//!
//! In: the configuration, the encoder in force, who is enrolled. Out: the policy; warnings, so that nobody trusts what was only
//! written down.
//! Must not know: how a decision is made.

use std::path::PathBuf;

use crate::calibration::Calibration;
use crate::config::{Config, MirrorChoice, RecognitionConfig};
use crate::decide::{Policy, ThresholdFacts};
use crate::event::ThresholdBasis;
use crate::gallery::Gallery;
use crate::head::Head;
use crate::infer::EngineFacts;
use crate::subject::Subject;

/// What decides: the configuration's targets by its own calibration, or by that of the encoder in force.
///
/// # Errors
/// A calibration or a head that cannot be used, or targets that nothing is known of.
pub fn policy(config: &Config, facts: &EngineFacts) -> anyhow::Result<Policy> {
    let load = |file: &PathBuf| Calibration::load(file, &facts.space);
    let (own, of_encoder) =
        (config.recognition.calibration.as_ref().map(load).transpose()?, facts.calibration.as_ref().map(load).transpose()?);
    let recognition = &config.recognition;
    let scoped =
        recognition.watchlists.values().chain(recognition.subjects.values()).map(|targets| (targets.target_fpir, targets.target_fmr));
    let asks_for_rates =
        std::iter::once((recognition.target_fpir, recognition.target_fmr)).chain(scoped).any(|(fpir, fmr)| fpir.is_some() || fmr.is_some());
    anyhow::ensure!(
        !asks_for_rates || own.is_some() || of_encoder.is_some(),
        "target_fpir and target_fmr need a calibration, and this encoder has none: make one with `doorward calibrate` and name it in recognition.calibration, or state recognition.threshold"
    );
    if facts.mirror != MirrorChoice::Off && own.is_none() {
        tracing::warn!(
            "infer.mirror changes similarities, and the encoder's calibration was made without it: make one with `doorward calibrate`"
        );
    }
    let mut policy = Policy::new(&config.recognition, own.or(of_encoder.clone()), facts.threshold);
    if let Some(fallback) = of_encoder {
        policy = policy.with_fallback(fallback);
    }
    if let Some(file) = &config.recognition.verifier {
        let head = Head::load(file, &facts.space)?;
        tracing::info!(head = head.rule.name(), file = %file.display(), "a trained head verifies in place of the cosine");
        policy = policy.with_verifier(head)?;
    }
    match (policy.calibration(), config.recognition.threshold) {
        (Some(calibration), _) => {
            tracing::info!(source = calibration.source, people = calibration.people, "thresholds follow from a calibration");
        }
        (None, Some(threshold)) => {
            tracing::info!(threshold, "one threshold decides, and no calibration says what error rate it stands for");
        }
        (None, None) => tracing::warn!(
            threshold = facts.threshold,
            "the encoder has no calibration: its published threshold decides, whatever error rate that is; make one with `doorward calibrate`"
        ),
    }
    Ok(policy)
}

/// Says which targets are not kept, so that nobody trusts what was written down.
pub(super) fn warn_of_unsupported(thresholds: &[ThresholdFacts]) {
    for ThresholdFacts { purpose, name, in_force } in thresholds.iter().filter(|facts| facts.in_force.basis == ThresholdBasis::Unsupported)
    {
        tracing::warn!(
            ?purpose,
            scope = ?in_force.scope,
            name,
            target = in_force.target_rate,
            expected = in_force.expected_rate,
            threshold = in_force.threshold,
            "the calibration has too few comparisons for a target rate: the strictest threshold that they support decides"
        );
    }
}

/// Says which watchlists and people have targets of their own and are not there: a name that was mistyped protects nobody.
pub(super) fn warn_of_nobody(recognition: &RecognitionConfig, gallery: &Gallery) {
    let (watchlists, subjects) = for_nobody(recognition, gallery);
    for watchlist in watchlists {
        tracing::warn!(
            watchlist,
            "recognition.watchlists has targets for a watchlist on which nobody stands; `doorward subject list` shows who stands where"
        );
    }
    for subject in subjects {
        tracing::warn!(
            subject,
            "recognition.subjects has targets for somebody who is not enrolled; `doorward subject list` shows everybody's id"
        );
    }
}

/// The names of watchlists and of people. There are few, so each takes a look at everybody.
fn for_nobody<'a>(recognition: &'a RecognitionConfig, gallery: &Gallery) -> (Vec<&'a str>, Vec<&'a str>) {
    let is_nobody = |is: &dyn Fn(&Subject) -> bool| gallery.subjects_who(is).is_empty();
    let watchlists = recognition.watchlists.keys().filter(|name| is_nobody(&|subject| subject.watchlists.contains(name)));
    let subjects = recognition.subjects.keys().filter(|id| is_nobody(&|subject| subject.id.as_str() == id.as_str()));
    (watchlists.map(String::as_str).collect(), subjects.map(String::as_str).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TargetConfig;
    use crate::face::TemplateSpace;
    use crate::mutation::Mutation;

    #[test]
    fn a_target_for_a_name_that_nobody_has_is_noticed() {
        let gallery = Gallery::new(TemplateSpace::new("s"));
        let subject = Subject { watchlists: vec!["staff".into()], ..Subject::made_up("anna", 1) };
        gallery.apply(1, &[Mutation::PutSubject(subject)]);
        let named = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), TargetConfig::default())).collect();
        let recognition =
            RecognitionConfig { watchlists: named(&["staff", "stuff"]), subjects: named(&["ana", "anna"]), ..RecognitionConfig::default() };
        assert_eq!(for_nobody(&recognition, &gallery), (vec!["stuff"], vec!["ana"]));
        assert_eq!(for_nobody(&RecognitionConfig::default(), &gallery), (vec![], vec![]));
    }
}
