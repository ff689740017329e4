//! What a shadow would have decided is known, visit by visit, and nothing of it is told.

use tokio::sync::{mpsc, watch};

use super::*;
use crate::calibration::{Calibration, Scored, measure};
use crate::face::dot;
use crate::head::{Head, Rule};
use crate::shadow::{Outcome, Verdict};

/// An encoder of another space that takes person 1 for 2 and the other way round, and sees nobody where it fails.
struct Swapped {
    fails: bool,
    space: TemplateSpace,
}

impl Swapped {
    fn of(space: TemplateSpace) -> Self {
        Self { fails: false, space }
    }
}

fn other_space() -> TemplateSpace {
    TemplateSpace::new("other")
}

fn swapped(number: usize, space: &TemplateSpace) -> Template {
    let person = [0, 2, 1, 3, 4, 5, 6][number];
    Template::normalised(space.clone(), template(person).values()).expect("it has a direction")
}

impl Inference for Swapped {
    fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        Ok(vec![Vec::new(); requests.len()])
    }

    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        if self.fails {
            return Err(InferError::Session("as the test wants".into()));
        }
        let blue = |face: &AlignedFace| face.rgb()[(ALIGNED_SIDE / 2 * ALIGNED_SIDE + ALIGNED_SIDE / 2) * 3 + 2];
        Ok(faces.iter().map(|face| swapped(person_of(blue(face)), &self.space)).collect())
    }
}

/// What a test says of the shadow, and of what is in force.
struct Trial {
    policy: Policy,
    encoder: Option<Swapped>,
    /// Whether its own gallery was read.
    is_read: bool,
    in_force: SceneSettings,
    /// Another template of person 2.
    also: Option<Template>,
    /// How many people walk past: 1, 2, a stranger, 1, …
    visitors: usize,
}

impl Trial {
    fn of(policy: Policy) -> Self {
        Self { policy, encoder: None, is_read: true, in_force: scene(), also: None, visitors: 3 }
    }

    fn with(encoder: Swapped) -> Self {
        Self { encoder: Some(encoder), ..Self::of(Policy::fixed(0.5)) }
    }
}

/// People walk past with a shadow. Answers what was told, the subjects, and the verdicts in the order of their pictures.
async fn shadowed(trial: Trial) -> (Vec<EventKind>, BTreeMap<usize, SubjectUid>, Vec<Verdict>) {
    let Trial { policy, encoder, is_read, in_force, also, visitors } = trial;
    let mut house = House::at_rest(Faults::default(), 1).await;
    if let Some(also) = also {
        enrol_as(&house.pipeline.0.gallery, (house.uids[&2], 2), also);
    }
    let (sender, mut verdicts) = mpsc::channel(16);
    let shadow = ShadowSettings { policy, is_same_space: encoder.is_none(), resume_threshold: 0.363 };
    house.scene = SceneSettings { shadow: Some(shadow), ..in_force };
    let encoder = encoder.map(|encoder| {
        let gallery = Gallery::with_clock(other_space(), house.clock.clone());
        house.uids.iter().for_each(|(number, uid)| {
            let template = Template::normalised(other_space(), template(*number).values()).expect("it has a direction");
            enrol_as(&gallery, (*uid, *number), template);
        });
        let engine = Engine::of_sessions(vec![encoder], facts(1, Faults::default())).expect("a thread");
        ShadowEncoder { engine, gallery: watch::channel(is_read.then(|| gallery.current())).1 }
    });
    house.pipeline = house.pipeline.with_shadow(Shadow { encoder, verdicts: sender });
    let house = house.running();
    let (uids, (camera, feeding)) = (house.uids.clone(), walk_past(&house, "door", visitors * CYCLE_FRAMES));
    until("all frames are analysed", || feeding.is_finished() && house.pipeline.is_idle()).await;
    let told = house.told(std::slice::from_ref(&camera)).await;
    let told = told.iter().map(|logged| logged.event.kind).filter(|kind| matches!(kind, EventKind::Identified | EventKind::Unidentified));
    let told = told.collect();
    let mut kept = Vec::new();
    while let Ok(verdict) = verdicts.try_recv() {
        kept.push(verdict);
    }
    kept.sort_by_key(|verdict| verdict.capture_time_us);
    (told, uids, kept)
}

fn outcomes(verdicts: &[Verdict]) -> Vec<Outcome> {
    verdicts.iter().map(Verdict::outcome).collect()
}

const TOLD: [EventKind; 3] = [EventKind::Identified, EventKind::Identified, EventKind::Unidentified];

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_decides_alike_agrees() {
    let (told, uids, verdicts) = shadowed(Trial::of(Policy::fixed(0.6))).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Agrees; 3]);
    let named: Vec<_> = verdicts.iter().map(|verdict| verdict.in_force.subject).collect();
    assert_eq!(named, [Some(uids[&1]), Some(uids[&2]), None]);
    assert!(verdicts.iter().all(|verdict| verdict.shadow.as_ref().is_some_and(|shadow| shadow.threshold == 0.6)));
    assert!(verdicts.iter().all(|verdict| verdict.capture_time_us > 0 && &*verdict.camera == "door"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_is_stricter_or_laxer_flips_decisions_and_changes_nothing_that_is_told() {
    let (told, _, verdicts) = shadowed(Trial::of(Policy::fixed(1.5))).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::WouldNotName, Outcome::WouldNotName, Outcome::Agrees]);

    let (told, _, verdicts) = shadowed(Trial::of(Policy::fixed(-0.5))).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Agrees, Outcome::Agrees, Outcome::WouldName]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_in_the_shadow_chooses_among_those_who_match_and_nobody_is_told() {
    // Person 2 has a photo that looks like person 1, and the head takes who differs in that number.
    let axis = [0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0];
    let also = Some(Template::normalised(space(), &axis).expect("it has a direction"));
    let scored = |person: usize| {
        let values = template(person % 8).values().to_vec();
        Scored { person, photo: person, quality: 1.0, is_worsened: false, values }
    };
    let measured = measure(&(0..40).map(scored).collect::<Vec<_>>(), (-40.0, 40.0), &dot);
    let calibration = Calibration::new(&space(), "abs-diff", ("planted", "none"), measured);
    let mut weights = vec![0.0; 8];
    weights[2] = 10.0;
    let policy = Policy::fixed(0.5).with_chooser(Head::new(Rule::AbsDiff, (weights, 0.0), calibration));
    let (told, uids, verdicts) = shadowed(Trial { also, visitors: 1, ..Trial::of(policy) }).await;
    assert_eq!((told, outcomes(&verdicts)), (vec![EventKind::Identified], vec![Outcome::WouldRename]));
    let (in_force, would) = (&verdicts[0].in_force, verdicts[0].shadow.as_ref().expect("it answered"));
    assert_eq!((in_force.subject, would.subject), (Some(uids[&1]), Some(uids[&2])));
    assert_eq!((in_force.head.as_deref(), would.head.as_deref()), (None, Some("abs-diff")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_in_the_shadow_is_compared_with_its_own_gallery() {
    let (told, uids, verdicts) = shadowed(Trial::with(Swapped::of(other_space()))).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::WouldRename, Outcome::WouldRename, Outcome::Agrees]);
    let would: Vec<_> = verdicts.iter().map(|verdict| verdict.shadow.as_ref().and_then(|shadow| shadow.subject)).collect();
    assert_eq!(would, [Some(uids[&2]), Some(uids[&1]), None]);
    assert!(verdicts.iter().all(|verdict| verdict.shadow.as_ref().is_some_and(|shadow| shadow.space == "other")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_whose_inference_fails_answers_nothing_and_disturbs_nobody() {
    let (told, _, verdicts) = shadowed(Trial::with(Swapped { fails: true, ..Swapped::of(other_space()) })).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Unanswered; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_whose_templates_compare_with_nothing_answers_nothing() {
    let (told, _, verdicts) = shadowed(Trial::with(Swapped::of(TemplateSpace::new("a third")))).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Unanswered; 3], "that it named nobody would be no finding");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_whose_gallery_was_not_read_yet_answers_nothing() {
    let (told, _, verdicts) = shadowed(Trial { is_read: false, ..Trial::with(Swapped::of(other_space())) }).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Unanswered; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_visit_goes_on_in_the_shadow_alone_is_known_there_in_each_visit_in_force() {
    // In force nobody is ever alike enough to go on with a visit, or to be somebody; in the shadow whoever comes back is both.
    let mut in_force = scene();
    (in_force.policy, in_force.visit.threshold, in_force.visit.resume_within) = (Policy::fixed(1.5), 1.5, Duration::from_secs(60));
    let (told, uids, verdicts) = shadowed(Trial { in_force, visitors: 4, ..Trial::of(Policy::fixed(0.5)) }).await;
    assert_eq!(told, [EventKind::Unidentified; 4]);
    let would: Vec<_> = verdicts.iter().map(|verdict| verdict.shadow.as_ref().and_then(|shadow| shadow.subject)).collect();
    assert_eq!(would, [Some(uids[&1]), Some(uids[&2]), None, Some(uids[&1])], "{:?}", outcomes(&verdicts));
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_visit_goes_on_in_force_alone_has_one_verdict() {
    let mut in_force = scene();
    in_force.visit.resume_within = Duration::from_secs(60);
    let mut trial = Trial { in_force, visitors: 4, ..Trial::of(Policy::fixed(0.5)) };
    // Nobody comes back in the shadow.
    trial.policy = Policy::fixed(0.5);
    let (told, uids, verdicts) = shadowed(trial).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Agrees; 3]);
    assert_eq!(verdicts.iter().map(|verdict| verdict.in_force.subject).collect::<Vec<_>>(), [Some(uids[&1]), Some(uids[&2]), None]);
}
