//! Decisions by planted similarities, and thresholds by whose they are.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::calibration::{Band, Calibration, Histogram, Measured};
use crate::config::{RecognitionConfig, TargetConfig};
use crate::event::{PolicyScope, ThresholdBasis};
use crate::face::TemplateSpace;
use crate::subject::SubjectUid;

fn candidate(number: u128, similarity: f32) -> Candidate {
    Candidate { subject: SubjectUid(Uuid::from_u128(number)), similarity }
}

fn compared(candidates: &[Candidate]) -> Compared {
    let gallery_subjects = candidates.len() as u64;
    Compared {
        candidates: candidates.to_vec(),
        closest: None,
        quality: 1.0,
        gallery_subjects,
        comparisons: gallery_subjects,
        gallery_version: 7,
        space: "space".into(),
        head: None,
    }
}

/// A calibration of a million strangers whose similarities lie evenly between 0 and 0.5.
fn calibration() -> Calibration {
    let mut non_mated = Histogram::over(-1.0, 1.0, 0.002);
    (0..1_000_000).for_each(|i| non_mated.add(i as f32 / 2e6));
    let bands = vec![Band::new(0.0, (non_mated, Histogram::over(-1.0, 1.0, 0.002)), 9_000)];
    Calibration::new(&TemplateSpace::new("space"), "cosine", ("planted", "none"), Measured { people: 9_000, photos: 9_000, bands })
}

fn rate(target_fpir: f64) -> TargetConfig {
    TargetConfig { target_fpir: Some(target_fpir), ..TargetConfig::default() }
}

fn subject(id: &str, watchlists: &[&str]) -> Arc<Subject> {
    Arc::new(Subject { watchlists: watchlists.iter().map(|list| (*list).to_owned()).collect(), ..Subject::made_up(id, 1) })
}

#[test]
fn a_similarity_of_just_the_threshold_matches_and_the_next_lower_does_not() {
    for (similarity, subject, rejection) in [
        (0.4, Some(SubjectUid(Uuid::from_u128(1))), None),
        (0.4_f32.next_down(), None, Some(Rejection::BelowThreshold)),
        (f32::NAN, None, Some(Rejection::BelowThreshold)),
    ] {
        let decision = identify(&Policy::fixed(0.4), &compared(&[candidate(1, similarity), candidate(2, 0.1)]));
        assert_eq!((decision.subject, decision.rejection), (subject, rejection), "{similarity}");
        assert_eq!(verify(0.4, similarity), subject.is_some(), "{similarity}");
    }
}

#[test]
fn a_decision_says_what_it_rests_on() {
    let decision = identify(&Policy::fixed(0.4), &compared(&[candidate(1, 0.75), candidate(2, 0.25)]));
    assert_eq!((decision.similarity, decision.runner_up, decision.margin), (Some(0.75), Some(candidate(2, 0.25)), Some(0.5)));
    assert_eq!((decision.threshold, decision.target_rate, decision.purpose), (0.4, None, Purpose::Identify));
    assert_eq!((decision.basis, decision.scope), (Some(ThresholdBasis::Fixed), Some(PolicyScope::Default)));
    assert_eq!((decision.gallery_subjects, decision.gallery_version, decision.space.as_str()), (2, 7, "space"));
}

#[test]
fn an_only_subject_has_no_runner_up_and_an_empty_gallery_nobody() {
    let only = identify(&Policy::fixed(0.4), &compared(&[candidate(1, 0.9)]));
    assert_eq!((only.runner_up, only.margin), (None, None));
    let nobody = identify(&Policy::fixed(0.4), &compared(&[]));
    assert_eq!((nobody.subject, nobody.similarity, nobody.rejection), (None, None, Some(Rejection::EmptyGallery)));
}

#[test]
fn without_a_usable_shot_nothing_is_compared() {
    let decision = undecidable(&Policy::fixed(0.4), &compared(&[candidate(1, 0.9)]));
    assert_eq!((decision.subject, decision.similarity, decision.rejection), (None, None, Some(Rejection::NoUsableShot)));
}

#[test]
fn the_threshold_rises_when_people_are_enrolled_and_falls_when_they_leave() {
    let policy = Policy::new(&RecognitionConfig { target_fpir: Some(0.1), ..RecognitionConfig::default() }, Some(calibration()), 0.363);
    let among = |comparisons| identify(&policy, &Compared { comparisons, ..compared(&[candidate(1, 0.49)]) });
    let (few, many) = (among(1), among(100));
    assert!((few.threshold - 0.45).abs() < 0.003 && (many.threshold - 0.4995).abs() < 0.003, "{few:?} {many:?}");
    assert!(few.subject.is_some() && many.subject.is_none(), "the same similarity is somebody of one and nobody of a hundred");
    assert_eq!((few.target_rate, few.expected_rate, few.basis), (Some(0.1), Some(0.1), Some(ThresholdBasis::Calibrated)));
    assert_eq!(among(1), few, "and back");
}

#[test]
fn a_target_beyond_the_calibration_is_told_and_the_strictest_that_it_supports_decides() {
    let policy = Policy::new(&RecognitionConfig { target_fpir: Some(1e-3), ..RecognitionConfig::default() }, Some(calibration()), 0.363);
    let decision = identify(&policy, &Compared { comparisons: 100_000, ..compared(&[candidate(1, 0.6)]) });
    assert_eq!((decision.target_rate, decision.basis), (Some(1e-3), Some(ThresholdBasis::Unsupported)));
    assert!(decision.expected_rate.is_some_and(|rate| rate > 0.2), "{decision:?}");
    assert!((0.49..=0.51).contains(&decision.threshold), "{decision:?}");
}

#[test]
fn without_a_calibration_a_rate_cannot_be_kept_and_the_published_threshold_says_so() {
    let asked = Asked { comparisons: 10, quality: 1.0 };
    let policy = Policy::new(&RecognitionConfig { target_fpir: Some(1e-3), ..RecognitionConfig::default() }, None, 0.363);
    let found = policy.in_force(Purpose::Identify, None, asked);
    assert_eq!((found.threshold, found.target_rate, found.expected_rate, found.basis), (0.363, None, None, ThresholdBasis::Published));
}

#[test]
fn the_most_specific_scope_decides() {
    let config = RecognitionConfig {
        target_fmr: Some(0.2),
        target_fpir: Some(0.3),
        watchlists: BTreeMap::from([("vip".into(), rate(0.05)), ("staff".into(), rate(0.1))]),
        subjects: BTreeMap::from([("anna".into(), TargetConfig { threshold: Some(0.9), ..TargetConfig::default() })]),
        ..RecognitionConfig::default()
    };
    let policy = Policy::new(&config, Some(calibration()), 0.363);
    let camera = policy.at_camera(Some(Target::Rate(0.2)));
    let asked = Asked { comparisons: 1, quality: 1.0 };
    let of = |policy: &Policy, purpose, subject: Option<Arc<Subject>>| {
        let found = policy.in_force(purpose, subject.as_deref(), asked);
        ((found.threshold * 100.0).round() as i32, found.scope)
    };
    let identify = Purpose::Identify;
    assert_eq!(of(&policy, identify, None), (35, PolicyScope::Purpose));
    assert_eq!(of(&policy, Purpose::Verify, None), (40, PolicyScope::Purpose));
    assert_eq!(of(&camera, identify, None), (40, PolicyScope::Camera));
    assert_eq!(of(&camera, Purpose::Verify, None), (40, PolicyScope::Purpose), "a camera verifies nobody");
    assert_eq!(of(&camera, identify, Some(subject("bo", &["visitors"]))), (40, PolicyScope::Camera));
    assert_eq!(of(&camera, identify, Some(subject("bo", &["staff"]))), (45, PolicyScope::Watchlist));
    assert_eq!(of(&camera, identify, Some(subject("bo", &["staff", "vip"]))), (48, PolicyScope::Watchlist), "the strictest list");
    assert_eq!(of(&camera, identify, Some(subject("anna", &["vip"]))), (90, PolicyScope::Subject));
    let plain = Policy::new(&RecognitionConfig::default(), Some(calibration()), 0.363);
    assert_eq!(of(&plain, identify, None), (50, PolicyScope::Default));
}

/// A head whose scores of strangers lie evenly between -40 and 0.
fn head() -> crate::head::Head {
    let mut non_mated = Histogram::over(-40.0, 40.0, 0.08);
    (0..100_000).for_each(|i| non_mated.add(i as f32 / 2_500.0 - 40.0));
    let bands = vec![Band::new(0.0, (non_mated, Histogram::over(-40.0, 40.0, 0.08)), 9_000)];
    let measured = Measured { people: 9_000, photos: 9_000, bands };
    let calibration = Calibration::new(&TemplateSpace::new("space"), "abs-diff", ("planted", "none"), measured);
    crate::head::Head::new(crate::head::Rule::AbsDiff, (vec![-1.0; 2], 0.5), calibration)
}

#[test]
fn a_head_verifies_by_its_own_calibration_and_identifies_nobody() {
    let config = RecognitionConfig { target_fmr: Some(0.1), ..RecognitionConfig::default() };
    let policy = Policy::new(&config, Some(calibration()), 0.363).with_verifier(head()).expect("only rates are stated");
    let asked = Asked { comparisons: 1, quality: 1.0 };
    let verifying = policy.in_force(Purpose::Verify, None, asked);
    assert!((verifying.threshold + 4.0).abs() < 0.1 && verifying.target_rate == Some(0.1), "{verifying:?}");
    let identifying = policy.in_force(Purpose::Identify, None, asked);
    assert!((identifying.threshold - 0.4995).abs() < 0.003, "{identifying:?}");
    assert!((policy.threshold(Purpose::Verify, 1) - 0.45).abs() < 0.003, "who asks for a similarity gets one");
}

#[test]
fn a_similarity_stated_where_a_head_verifies_is_refused_by_its_key() {
    let fixed = TargetConfig { threshold: Some(0.4), ..TargetConfig::default() };
    for (config, key) in [
        (RecognitionConfig { threshold: Some(0.4), ..RecognitionConfig::default() }, "recognition.threshold"),
        (
            RecognitionConfig { subjects: BTreeMap::from([("anna".into(), fixed)]), ..RecognitionConfig::default() },
            "recognition.subjects.anna.threshold",
        ),
    ] {
        let error = Policy::new(&config, None, 0.363).with_verifier(head()).expect_err(key).to_string();
        assert!(error.contains(key) && error.contains("abs-diff"), "{error}");
    }
}

#[test]
fn a_head_that_was_measured_on_too_few_people_is_refused() {
    let mut few = head();
    (few.calibration.bands[0].people, few.calibration.bands[0].pairs) = (40, 780);
    let config = RecognitionConfig { target_fmr: Some(0.001), ..RecognitionConfig::default() };
    let refused = Policy::new(&config, None, 0.363).with_verifier(few.clone());
    assert!(matches!(&refused, Err(PolicyError::Unsupported { .. })), "{refused:?}");
    let config = RecognitionConfig { target_fmr: Some(0.01), ..RecognitionConfig::default() };
    assert!(Policy::new(&config, None, 0.363).with_verifier(few.clone()).is_ok());
    // Nor does it keep a stricter rate of a list than the rest is promised.
    let strict = TargetConfig { target_fmr: Some(1e-3), ..TargetConfig::default() };
    let config = RecognitionConfig { watchlists: BTreeMap::from([("vault".into(), strict)]), ..config };
    let refused = Policy::new(&config, None, 0.363).with_verifier(few).expect_err("it cannot be kept").to_string();
    assert!(refused.contains("recognition.watchlists.vault.target_fmr"), "{refused}");
}

#[test]
fn a_head_that_only_chooses_needs_no_rate_and_changes_no_threshold() {
    let mut few = head();
    (few.calibration.bands[0].people, few.calibration.bands[0].pairs) = (40, 780);
    let fixed = TargetConfig { threshold: Some(0.7), ..TargetConfig::default() };
    let subjects = BTreeMap::from([("anna".to_owned(), fixed)]);
    let config = RecognitionConfig { threshold: Some(0.6), subjects, ..RecognitionConfig::default() };
    let plain = Policy::new(&config, Some(calibration()), 0.363);
    let choosing = plain.clone().with_chooser(few);
    assert!(choosing.chooser().is_some() && choosing.verifier().is_none());
    assert_eq!((choosing.threshold(Purpose::Verify, 1), choosing.overview(9)), (0.6, plain.overview(9)));
}

#[test]
fn a_gallerys_own_calibration_never_loosens_a_threshold() {
    // Whoever looked like somebody else was refused, so strangers seem to end at 0.4.
    let mut non_mated = Histogram::over(-1.0, 1.0, 0.002);
    (0..1_000_000).for_each(|i| non_mated.add(i as f32 / 2.5e6));
    let band = Band::new(0.0, (non_mated, Histogram::over(-1.0, 1.0, 0.002)), 9_000);
    let of_gallery = calibration().with_good(Measured { people: 9_000, photos: 9_000, bands: vec![band] }, ("a gallery", "none"));
    let policy = Policy::new(&RecognitionConfig::default(), Some(of_gallery), 0.363).with_fallback(calibration(), false);
    let found = policy.in_force(Purpose::Identify, None, Asked { comparisons: 1, quality: 1.0 });
    assert!((found.threshold - 0.4995).abs() < 0.003 && found.basis == ThresholdBasis::Calibrated, "{found:?}");
}

#[test]
fn a_calibration_of_other_templates_decides_and_promises_nothing() {
    let config = RecognitionConfig { target_fpir: Some(0.01), ..RecognitionConfig::default() };
    let of = |foreign| {
        let policy = Policy::new(&config, Some(calibration()), 0.363).with_fallback(calibration(), foreign);
        let found = policy.in_force(Purpose::Identify, None, Asked { comparisons: 1, quality: 1.0 });
        (found.threshold, found.basis, found.expected_rate, found.interval.is_some())
    };
    let (threshold, ..) = of(false);
    assert_eq!(of(false), (threshold, ThresholdBasis::Calibrated, Some(0.01), true));
    assert_eq!(of(true), (threshold, ThresholdBasis::Unsupported, None, false), "nor does it expect any rate");
}

#[test]
fn poor_pictures_are_let_in_no_more_easily_where_good_ones_are_too_few_to_go_by() {
    // A site with few good pictures, which the encoder's own calibration decides, and many poor ones that strangers score less in.
    let mut few = calibration();
    let mut poor = Histogram::over(-1.0, 1.0, 0.002);
    (0..1_000_000).for_each(|i| poor.add(i as f32 / 4e6));
    let mut good = few.bands.remove(0);
    (good.quality_min, good.people, good.pairs) = (0.5, 30, 28);
    few.bands = vec![Band::new(0.0, (poor, Histogram::over(-1.0, 1.0, 0.002)), 9_000), good];
    let config = RecognitionConfig { target_fpir: Some(0.001), ..RecognitionConfig::default() };
    let policy = Policy::new(&config, Some(few), 0.363).with_fallback(calibration(), false);
    let of = |quality| policy.in_force(Purpose::Identify, None, Asked { comparisons: 1, quality }).threshold;
    assert!((of(1.0) - 0.4995).abs() < 0.003 && of(0.1) >= of(1.0), "{} {}", of(1.0), of(0.1));
}

#[test]
fn a_calibration_of_a_few_people_never_loosens_a_threshold() {
    let mut few = calibration();
    (few.bands[0].people, few.bands[0].pairs) = (8, 28);
    let config = RecognitionConfig { target_fpir: Some(0.001), target_fmr: Some(0.2), ..RecognitionConfig::default() };
    let asked = Asked { comparisons: 1, quality: 1.0 };
    let of = |policy: &Policy, purpose| policy.in_force(purpose, None, asked);
    let alone = Policy::new(&config, Some(few.clone()), 0.363);
    assert!(of(&alone, Purpose::Identify).threshold < 0.47 && of(&alone, Purpose::Identify).basis == ThresholdBasis::Unsupported);
    let beside = alone.with_fallback(calibration(), false);
    let found = of(&beside, Purpose::Identify);
    assert!((found.threshold - 0.4995).abs() < 0.003 && found.basis == ThresholdBasis::Calibrated, "{found:?}");
    assert_eq!(of(&beside, Purpose::Verify).basis, ThresholdBasis::Calibrated, "what it does support it decides");
    // Nor does it without another: what the encoder's makers published is the least.
    let strict = Policy::new(&config, Some(few), 0.6);
    assert_eq!(of(&strict, Purpose::Identify).threshold, 0.6);
    // A rate that nothing is known of does not loosen a stated similarity.
    let stated = RecognitionConfig { threshold: Some(0.5), ..RecognitionConfig::default() };
    let camera = Policy::new(&stated, None, 0.363).at_camera(Some(Target::Rate(0.1)));
    assert_eq!((of(&camera, Purpose::Identify).threshold, of(&camera, Purpose::Identify).basis), (0.5, ThresholdBasis::Published));
}

#[test]
fn a_head_chooses_among_those_who_match_and_lets_nobody_else_in() {
    let policy =
        Policy::new(&RecognitionConfig { threshold: Some(0.4), target_fmr: Some(0.01), ..RecognitionConfig::default() }, None, 0.4)
            .with_verifier(head())
            .expect("a rate is stated for it");
    assert_eq!(candidates_needed(&policy), RERANKED);
    // The head holds the last to be the closest, and the third to be closer than the first.
    let score = |uid: SubjectUid| Some([0.0, 0.2, 0.1, 0.3, 0.9][uid.0.as_u128() as usize]);
    let decided = |candidates: &[Candidate], policy: &Policy| {
        let mut compared = compared(candidates);
        rerank(policy, &mut compared, (|_| None, score));
        identify(policy, &compared)
    };
    let (first, second, third, far) = (candidate(1, 0.62), candidate(2, 0.55), candidate(3, 0.45), candidate(4, 0.39));
    let decision = decided(&[first, second, third, far], &policy);
    assert_eq!((decision.subject, decision.similarity), (Some(third.subject), Some(0.45)), "of those that match the head's closest");
    assert_eq!(decision.runner_up, Some(first));
    assert!(decision.head.is_some() && decision.margin.is_some_and(|margin| margin < 0.0));

    // However many candidates the caller wants to see.
    let many = [first, second, third, third, third, candidate(4, 0.41)];
    assert_ne!(decided(&many, &policy).subject, Some(candidate(4, 0.41).subject), "as many as at a camera are asked");

    // With one match there is nothing to choose, and with none nobody is brought in.
    let decision = decided(&[first, far], &policy);
    assert_eq!((decision.subject, decision.head), (Some(first.subject), None));
    let decision = decided(&[far], &policy);
    assert_eq!((decision.subject, decision.rejection), (None, Some(Rejection::BelowThreshold)));
    // Without a head the cosine decides.
    assert_eq!(decided(&[first, second, third], &Policy::fixed(0.4)).subject, Some(first.subject));
}

#[test]
fn a_head_chooses_nobody_who_misses_a_threshold_of_their_own() {
    let subjects = BTreeMap::from([("strict".to_owned(), TargetConfig { target_fpir: Some(1e-5), ..TargetConfig::default() })]);
    let config = RecognitionConfig { target_fpir: Some(0.1), target_fmr: Some(0.01), subjects, ..RecognitionConfig::default() };
    let policy = Policy::new(&config, Some(calibration()), 0.363).with_verifier(head()).expect("only rates are stated");
    let who = |uid: SubjectUid| Some(subject(if uid.0.as_u128() == 2 { "strict" } else { "lax" }, &[]));
    let (lax, strict) = (candidate(1, 0.490), candidate(2, 0.489));
    let decided = |candidates: &[Candidate]| {
        let mut compared = compared(candidates);
        compared.closest = who(candidates[0].subject);
        rerank(&policy, &mut compared, (who, |uid: SubjectUid| Some(uid.0.as_u128() as f32)));
        identify(&policy, &compared).subject
    };
    assert_eq!(decided(&[lax, strict]), Some(lax.subject));
    // The closest misses its own, so nobody is named, with a head as without: those behind it are never asked.
    let (behind, further) = (candidate(3, 0.488), candidate(4, 0.487));
    assert_eq!(decided(&[strict, behind, further]), None);
}
