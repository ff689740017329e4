//! What a shadow would have decided is known, visit by visit, and nothing of it is told.

use tokio::sync::{mpsc, watch};

use super::*;
use crate::shadow::Outcome;

/// An encoder of another space that takes person 1 for 2 and the other way round, and sees nobody where it fails.
struct Swapped {
    fails: bool,
}

fn other_space() -> TemplateSpace {
    TemplateSpace::new("other")
}

fn swapped(number: usize) -> Template {
    let person = [0, 2, 1, 3, 4, 5, 6][number];
    Template::normalised(other_space(), template(person).values()).expect("it has a direction")
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
        Ok(faces.iter().map(|face| swapped(person_of(blue(face)))).collect())
    }
}

/// Persons 1, 2 and a stranger walk past with a shadow of this policy. Answers what was told, the subjects, and the verdicts.
async fn shadowed(policy: Policy, encoder: Option<Swapped>) -> (Vec<EventKind>, BTreeMap<usize, SubjectUid>, Vec<Verdict>) {
    let mut house = House::open(Faults::default(), 1).await;
    let (sender, mut verdicts) = mpsc::channel(16);
    house.shadow = Some(ShadowSettings { policy, is_same_space: encoder.is_none() });
    let encoder = encoder.map(|encoder| {
        let gallery = Gallery::with_clock(other_space(), house.clock.clone());
        house.uids.iter().for_each(|(number, uid)| {
            let template = Template::normalised(other_space(), template(*number).values()).expect("it has a direction");
            enrol_as(&gallery, (*uid, *number), template);
        });
        let engine = Engine::of_sessions(vec![encoder], facts(1)).expect("a thread");
        ShadowEncoder { engine, gallery: watch::channel(Some(gallery.current())).1 }
    });
    let _ = house.pipeline.clone().with_shadow(Shadow { encoder, verdicts: sender });
    let (uids, (camera, feeding)) = (house.uids.clone(), walk_past(&house, "door", 3 * CYCLE_FRAMES));
    until("all frames are analysed", || feeding.is_finished() && house.pipeline.is_idle()).await;
    let told = house.told(std::slice::from_ref(&camera)).await;
    let told = told.iter().map(|logged| logged.event.kind).filter(|kind| matches!(kind, EventKind::Identified | EventKind::Unidentified));
    let told = told.collect();
    let mut kept = Vec::new();
    while let Ok(verdict) = verdicts.try_recv() {
        kept.push(verdict);
    }
    (told, uids, kept)
}

fn outcomes(verdicts: &[Verdict]) -> Vec<Outcome> {
    verdicts.iter().map(Verdict::outcome).collect()
}

const TOLD: [EventKind; 3] = [EventKind::Identified, EventKind::Identified, EventKind::Unidentified];

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_decides_alike_agrees() {
    let (told, uids, verdicts) = shadowed(Policy::fixed(0.6), None).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Agrees; 3]);
    let named: Vec<_> = verdicts.iter().map(|verdict| verdict.in_force.subject).collect();
    assert_eq!(named, [Some(uids[&1]), Some(uids[&2]), None]);
    assert!(verdicts.iter().all(|verdict| verdict.shadow.as_ref().is_some_and(|shadow| shadow.threshold == 0.6)));
    assert!(verdicts.iter().all(|verdict| verdict.capture_time_us > 0 && &*verdict.camera == "door"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_is_stricter_or_laxer_flips_decisions_and_changes_nothing_that_is_told() {
    let (told, _, verdicts) = shadowed(Policy::fixed(1.5), None).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::WouldNotName, Outcome::WouldNotName, Outcome::Agrees]);

    let (told, _, verdicts) = shadowed(Policy::fixed(-0.5), None).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Agrees, Outcome::Agrees, Outcome::WouldName]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_in_the_shadow_is_compared_with_its_own_gallery() {
    let (told, uids, verdicts) = shadowed(Policy::fixed(0.5), Some(Swapped { fails: false })).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::WouldRename, Outcome::WouldRename, Outcome::Agrees]);
    let would: Vec<_> = verdicts.iter().map(|verdict| verdict.shadow.as_ref().and_then(|shadow| shadow.subject)).collect();
    assert_eq!(would, [Some(uids[&2]), Some(uids[&1]), None]);
    assert!(verdicts.iter().all(|verdict| verdict.shadow.as_ref().is_some_and(|shadow| shadow.space == "other")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_whose_inference_fails_answers_nothing_and_disturbs_nobody() {
    let (told, _, verdicts) = shadowed(Policy::fixed(0.5), Some(Swapped { fails: true })).await;
    assert_eq!(told, TOLD);
    assert_eq!(outcomes(&verdicts), [Outcome::Unanswered; 3]);
}
