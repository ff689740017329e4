//! What decides, by the configuration's targets, and which of these are not kept or are for nobody.
//!
//! In: the configuration, the encoder in force, who is enrolled. Out: the policy; warnings, so that nobody trusts what was only
//! written down.
//! Must not know: how a decision is made.

use std::path::{Path, PathBuf};

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
    let (policy, head) = policy_and_head(config, facts)?;
    let Some(head) = head else { return Ok(policy) };
    tracing::info!(head = head.rule.name(), "a trained head verifies in place of the cosine");
    Ok(policy.with_verifier(head)?)
}

/// What decides in the shadow, where a head verifies nobody and needs no rate for it.
///
/// # Errors
/// As of [`policy`].
pub(super) fn policy_of_shadow(config: &Config, facts: &EngineFacts) -> anyhow::Result<Policy> {
    let (policy, head) = policy_and_head(config, facts)?;
    Ok(match head {
        Some(head) => policy.with_chooser(head),
        None => policy,
    })
}

fn policy_and_head(config: &Config, facts: &EngineFacts) -> anyhow::Result<(Policy, Option<Head>)> {
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
    if let (Some(own), Some(file)) = (&own, &config.recognition.calibration) {
        check_mirror((own, file), facts.mirror, "doorward calibrate")?;
        anyhow::ensure!(
            !own.is_of_gallery || of_encoder.is_some(),
            "{} was made of a gallery, where whoever looked too much like somebody else was refused: it may only make thresholds stricter than the encoder's \
             own calibration, and this encoder has none; make one of photos with `doorward calibrate DIR`",
            file.display()
        );
    }
    let foreign = of_encoder.as_ref().filter(|calibration| calibration.mirror != facts.mirror);
    if let Some(foreign) = foreign {
        tracing::warn!(
            "the encoder's calibration was made with infer.mirror = \"{}\", and with \"{}\" similarities are others: no rate is promised by it; make one with `doorward calibrate`",
            foreign.mirror.name(),
            facts.mirror.name()
        );
    }
    let is_foreign = foreign.is_some();
    let mut policy = Policy::new(&config.recognition, own.or(of_encoder.clone()), facts.threshold);
    if let Some(fallback) = of_encoder {
        policy = policy.with_fallback(fallback, is_foreign);
    }
    let mut head = None;
    if let Some(file) = &config.recognition.verifier {
        let known = Head::load(file, &facts.space)?;
        check_mirror((&known.calibration, file), facts.mirror, "doorward train verifier")?;
        // Of other lengths it would find nobody alike.
        anyhow::ensure!(
            known.weights.is_empty() || known.weights.len() == facts.dimension,
            "{}: the head weighs {} numbers, and templates have {}: train it anew with `doorward train verifier`",
            file.display(),
            known.weights.len(),
            facts.dimension
        );
        head = Some(known);
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
    Ok((policy, head))
}

/// Refuses a calibration whose templates were made in another way: its rates would not be those that are promised.
fn check_mirror((calibration, file): (&Calibration, &Path), mirror: MirrorChoice, command: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        calibration.mirror == mirror,
        "{} was made with infer.mirror = \"{}\", and the configuration says \"{}\", which gives other similarities: make it anew with `{command}` and the \
         setting, or take the setting back",
        file.display(),
        calibration.mirror.name(),
        mirror.name()
    );
    Ok(())
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
            "a target rate is not promised: the calibration has too few comparisons for it, and the strictest threshold that they support \
             decides, or it is of faces that were looked at otherwise (then no rate is expected)"
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
    use crate::calibration::{Scored, measure};
    use crate::config::TargetConfig;
    use crate::face::{TemplateSpace, dot};
    use crate::head::Rule;
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

    /// A calibration of so many people in two dimensions.
    fn planted(space: &TemplateSpace, head: &str, people: usize) -> Calibration {
        let scored = |person: usize| {
            let angle = person as f32;
            Scored { person, photo: person, quality: 1.0, is_worsened: false, values: vec![angle.cos(), angle.sin()] }
        };
        let measured = measure(&(0..people).map(scored).collect::<Vec<_>>(), (-1.0, 1.0), &dot);
        Calibration::new(space, head, ("planted", "none"), measured)
    }

    #[test]
    fn a_calibration_of_templates_that_were_made_in_another_way_is_refused() {
        let space = TemplateSpace::new("s");
        let calibration = planted(&space, "cosine", 40).with_mirror(MirrorChoice::Photos);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("site.json");
        std::fs::write(&file, calibration.to_json().expect("text")).expect("written");
        let recognition = RecognitionConfig { calibration: Some(file), ..RecognitionConfig::default() };
        let config = Config { recognition, ..Config::default() };
        let with = |mirror| policy(&config, &EngineFacts { mirror, ..EngineFacts::made_up(space.clone()) });
        assert!(with(MirrorChoice::Photos).is_ok());
        let refused = with(MirrorChoice::Off).expect_err("its rates would be others").to_string();
        assert!(refused.contains("site.json") && refused.contains("\"photos\"") && refused.contains("doorward calibrate"), "{refused}");
    }

    #[test]
    fn a_head_that_weighs_another_number_of_numbers_is_refused() {
        let space = TemplateSpace::new("space");
        let calibration = planted(&space, "abs-diff", 100);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("head.json");
        std::fs::write(&file, Head::new(Rule::AbsDiff, (vec![0.1; 3], 0.0), calibration).to_json().expect("text")).expect("written");
        let config =
            Config { recognition: RecognitionConfig { verifier: Some(file), ..RecognitionConfig::default() }, ..Config::default() };
        let with = |dimension| policy(&config, &EngineFacts { dimension, ..EngineFacts::made_up(space.clone()) });
        assert_eq!(with(3).err().map(|error| error.to_string()), None);
        let refused = with(8).expect_err("nobody would be alike").to_string();
        assert!(refused.contains("head.json") && refused.contains("weighs 3") && refused.contains("have 8"), "{refused}");
    }
}
