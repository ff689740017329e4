//! Whether the rate that a door promises is kept by the visit: several shots, one decision.
//!
//! In: photos by person, as they are and made worse, as a visitor who comes nearer gives them. Out: the share of strangers who are
//! ever named, through the pipeline's own fusing and deciding.
//! Must not know: how photos become templates.

use std::time::Duration;

use doorward::calibration::{Asked, Calibration, Scored, measure};
use doorward::clock::Timestamp;
use doorward::config::RecognitionConfig;
use doorward::decide::{Compared, Policy, identify, undecidable, visit_comparisons};
use doorward::evaluate::identification::{Rate, pooled};
use doorward::event::{BoxInFrame, Candidate, Decision, EndReason, EventKind, Purpose, ThresholdBasis, TrackId};
use doorward::face::{Probe, Template, TemplateSpace, dot};
use doorward::liveness::LivePolicy;
use doorward::rates::rule_of_three;
use doorward::subject::SubjectUid;
use doorward::visit::{EncodedShot, Ending, Fused, Layout, Look, VisitPolicy, Visits};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::figures::SEED;

const FPIR: f64 = 0.01;
const PEOPLE: usize = 200;
const SPLITS: usize = 5;
const FOLDS: usize = 5;
const HALVES: usize = 2;
const BETWEEN_SHOTS: Duration = Duration::from_millis(300);

/// One shot of a person.
#[derive(Clone)]
pub struct Shot {
    /// Whose.
    pub person: usize,
    /// Which photo it was made of.
    pub photo: usize,
    /// Whether the photo was made worse.
    pub is_worsened: bool,
    /// Overall quality.
    pub quality: f32,
    /// The template.
    pub template: Template,
}

/// Somebody of the gallery.
struct Enrolled {
    uid: SubjectUid,
    template: Template,
}

fn calibrated<'a>(shots: impl Iterator<Item = &'a Shot>) -> Calibration {
    let scored: Vec<Scored> = shots
        .map(|shot| Scored {
            person: shot.person,
            photo: shot.photo,
            quality: shot.quality,
            is_worsened: shot.is_worsened,
            values: shot.template.values().to_vec(),
        })
        .collect();
    let measured = measure(&scored, (-1.0, 1.0), &dot);
    Calibration::new(&TemplateSpace::new("measured"), "cosine", ("the benchmark's", "bench-accuracy"), measured)
}

/// How often strangers are named: how often of how many, by person.
type Counts = Vec<(u64, u64)>;

/// What the shots are tried with.
struct Trial<'a> {
    shots: &'a [Shot],
    /// By fold: each is calibrated on the people of the other folds.
    policies: Vec<Policy>,
    people: usize,
}

/// The share of strangers' visits in which somebody is named, by a calibration of other people.
pub fn rate(shots: &[Shot]) -> Value {
    let policy_of = |fold: usize| {
        let calibration = calibrated(shots.iter().filter(|shot| fold_of(shot.person) != fold));
        Policy::new(&RecognitionConfig { target_fpir: Some(FPIR), ..RecognitionConfig::default() }, Some(calibration), 1.0)
    };
    let people = shots.iter().map(|shot| shot.person).max().map_or(0, |last| last + 1);
    let trial = Trial { shots, policies: (0..FOLDS).map(policy_of).collect(), people };
    let (by_photo, as_a_photo) = trial.run(|_, templates| templates);
    let (_, by_visit) = trial.run(|_, templates| visit_comparisons(templates));
    // As how many looks a visit counts, by the people of one half and of the other: each half is tried by what the other says.
    let factors: [f64; HALVES] = std::array::from_fn(|half| named(&as_a_photo, half) / named(&by_photo, half).max(1.0));
    let (_, by_others) = trial.run(|person, templates| (templates as f64 * factors[(half_of(person) + 1) % HALVES].max(1.0)).ceil() as u64);
    let (_, photos) = told(by_photo, "by one good photo");
    let (_, uncorrected) = told(as_a_photo, "by the visit, if it counted as one look");
    let (others, by_others) = told(by_others, "by the visit, counted as the people of the other half say");
    let (of_visits, visits) = told(by_visit, "by the visit");
    eprintln!("a visit counts as {:.2} looks by one half of the people and {:.2} by the other", factors[0], factors[1]);
    json!({
        "by_visit": visits, "by_photo": photos, "as_one_look": uncorrected, "by_looks_of_others": by_others, "looks": factors,
        "target": FPIR, "people": trial.enrolled(), "strangers": people - trial.enrolled(), "supported": trial.is_enough(),
        "within_interval": trial.verdict(of_visits), "by_looks_of_others_within_interval": trial.verdict(others),
    })
}

fn fold_of(person: usize) -> usize {
    (person * 7_919) % FOLDS
}

/// The half that a person is in, whichever the fold.
fn half_of(person: usize) -> usize {
    person / FOLDS % HALVES
}

/// How often the strangers of a half were named.
fn named(counts: &Counts, half: usize) -> f64 {
    counts.iter().enumerate().filter(|(person, _)| half_of(*person) == half).map(|(_, (named, _))| *named as f64).sum()
}

fn told(mut counts: Counts, what: &str) -> (Rate, Value) {
    counts.retain(|(_, trials)| *trials > 0);
    let rate = pooled(&counts, SEED);
    let interval = rate.interval;
    eprintln!("FPIR target {FPIR}, {what}: measured {:.4} ({:.4} to {:.4})", rate.rate(), interval.low, interval.high);
    (rate, json!({ "measured": rate.rate(), "low": interval.low, "high": interval.high, "trials": rate.trials }))
}

impl Trial<'_> {
    fn enrolled(&self) -> usize {
        PEOPLE.min(self.people / 2)
    }

    /// Whether there are strangers enough to tell, and people enough to have calibrated on.
    fn is_enough(&self) -> bool {
        let asked = Asked { comparisons: visit_comparisons(self.enrolled() as u64), quality: 1.0 };
        let promises = |policy: &Policy| policy.in_force(Purpose::Identify, None, asked).basis == ThresholdBasis::Calibrated;
        FPIR >= rule_of_three((self.people - self.enrolled()) as u64) && self.policies.iter().all(promises)
    }

    fn verdict(&self, rate: Rate) -> Value {
        if self.is_enough() { json!(rate.interval.holds(FPIR)) } else { json!("insufficient") }
    }

    /// Lets everybody who is not enrolled come by: how often they were named by one good photo, and by a visit that counts as many
    /// comparisons as `comparisons` says of the person and the templates.
    fn run(&self, comparisons: impl Fn(usize, u64) -> u64) -> (Counts, Counts) {
        let Self { shots, people, .. } = *self;
        let mut random = fastrand::Rng::with_seed(SEED);
        let (mut photos, mut visits) = (vec![(0, 0); people], vec![(0, 0); people]);
        for _ in 0..SPLITS {
            let mut order: Vec<usize> = (0..people).collect();
            random.shuffle(&mut order);
            let (known, strangers) = order.split_at(self.enrolled());
            let first = |person: &usize| shots.iter().find(|shot| shot.person == *person && !shot.is_worsened);
            let enrolled =
                |shot: &Shot| Enrolled { uid: SubjectUid(Uuid::from_u128(shot.person as u128 + 1)), template: shot.template.clone() };
            let gallery: Vec<Enrolled> = known.iter().filter_map(first).map(enrolled).collect();
            for stranger in strangers {
                let Some(last) = first(stranger) else { continue };
                // Worse shots first: the visitor comes nearer.
                let worse = shots.iter().filter(|shot| shot.photo == last.photo && shot.is_worsened);
                let visit: Vec<&Shot> = worse.chain(std::iter::once(last)).collect();
                let (policy, templates) = (&self.policies[fold_of(*stranger)], gallery.len() as u64);
                let probe = Probe { template: last.template.clone(), quality: last.quality };
                let alone = decision(&probe, (&gallery, templates), policy);
                let is_named = is_named(&visit, (&gallery, comparisons(*stranger, templates)), policy);
                photos[*stranger] = (photos[*stranger].0 + u64::from(alone.subject.is_some()), photos[*stranger].1 + 1);
                visits[*stranger] = (visits[*stranger].0 + u64::from(is_named), visits[*stranger].1 + 1);
            }
        }
        (photos, visits)
    }
}

/// Whether a visit names somebody before it ends.
fn is_named(shots: &[&Shot], asked: (&[Enrolled], u64), policy: &Policy) -> bool {
    const TRACK: TrackId = TrackId(1);
    let rules = VisitPolicy {
        threshold: policy.threshold(Purpose::Verify, 1),
        decision_deadline: Duration::from_secs(3),
        decide_after: Some(Duration::from_millis(500)),
        reassert_every: None,
        resume_within: Duration::ZERO,
        actionable: Duration::from_secs(5),
        live: LivePolicy { score_min: 0.5, refuses: false },
    };
    let mut visits = Visits::new("door", rules, Layout::default());
    let mut time = Timestamp::from_micros(0);
    let judge = |probe: Option<&Probe>| {
        probe.map_or_else(|| undecidable(policy, &compared(Vec::new(), 0.0, asked)), |probe| decision(probe, asked, policy))
    };
    for shot in shots {
        let look = Look {
            track: TRACK,
            resumed: false,
            frames_apart: Duration::ZERO,
            promise: shot.quality,
            box_in_frame: BoxInFrame::default(),
            detection_score: 0.9,
        };
        visits.sighted(look, time);
        match visits.fuse(TRACK, EncodedShot { template: &shot.template, quality: shot.quality, live_score: None, time }) {
            Ok(Some(Fused::Same(probe))) => visits.decided(TRACK, (decision(&probe, asked, policy), |_| true), time),
            // The track is over, and the rest of the shots would be another visit.
            _ => break,
        }
        visits.overdue(time, judge);
        time = time.plus(BETWEEN_SHOTS);
    }
    visits.ended(TRACK, Ending { reason: EndReason::Gone, time }, judge);
    visits.take_told().iter().any(|event| event.kind == EventKind::Identified)
}

fn decision(probe: &Probe, (gallery, comparisons): (&[Enrolled], u64), policy: &Policy) -> Decision {
    let similarity = |known: &Enrolled| dot(known.template.values(), probe.template.values());
    let mut candidates: Vec<Candidate> =
        gallery.iter().map(|known| Candidate { subject: known.uid, similarity: similarity(known) }).collect();
    candidates.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    candidates.truncate(2);
    identify(policy, &compared(candidates, probe.quality, (gallery, comparisons)))
}

fn compared(candidates: Vec<Candidate>, quality: f32, (gallery, comparisons): (&[Enrolled], u64)) -> Compared {
    let count = gallery.len() as u64;
    Compared {
        candidates,
        closest: None,
        quality,
        gallery_subjects: count,
        comparisons,
        gallery_version: 1,
        space: "measured".into(),
        head: None,
    }
}
