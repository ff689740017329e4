//! Visits under a simulated clock, with templates made by hand.

use super::*;

mod doubted;
mod identity;
mod liveness;
mod passing;
mod presence;
use crate::event::Rejection;
use crate::face::TemplateSpace;

const POLICY: VisitPolicy = VisitPolicy {
    decision_deadline: Duration::from_secs(3),
    decide_after: None,
    reassert_every: None,
    resume_within: Duration::ZERO,
    threshold: 0.363,
    actionable: Duration::from_secs(5),
    live: LivePolicy { score_min: 0.5, refuses: false },
};
const TRACK: TrackId = TrackId(1);

fn at_ms(ms: i64) -> Timestamp {
    Timestamp::from_micros(ms * 1_000)
}

fn look(promise: f32) -> Look {
    let frames_apart = Duration::ZERO;
    Look { track: TRACK, resumed: false, frames_apart, promise, box_in_frame: BoxInFrame::default(), detection_score: 0.9 }
}

fn template(x: f32, y: f32) -> Template {
    Template::normalised(TemplateSpace::new("s"), &[x, y]).expect("it has a direction")
}

fn decision(subject: Option<u128>, similarity: f32) -> Decision {
    let rejection = subject.is_none().then_some(Rejection::BelowThreshold);
    Decision { rejection, similarity: Some(similarity), ..Decision::made_up(subject.map(|n| SubjectUid(Uuid::from_u128(n)))) }
}

/// What a gallery in which nobody is like anybody says.
fn undecidable(_: Option<&Probe>) -> Decision {
    Decision { similarity: None, rejection: Some(Rejection::NoUsableShot), ..decision(None, 0.0) }
}

/// A visit that began at 0 ms and has `shots` shots of one face.
fn visit_with(shots: u32) -> Visits {
    let mut visits = Visits::new("door", POLICY, Layout::default());
    visits.sighted(look(0.5), at_ms(0));
    for n in 0..shots {
        let fused = fuse(&mut visits, &template(1.0, 0.0), at_ms(i64::from(n) * 100));
        assert!(matches!(fused, Ok(Some(Fused::Same(_)))));
    }
    visits
}

fn fuse(visits: &mut Visits, template: &Template, time: Timestamp) -> Result<Option<Fused>, TemplateError> {
    visits.fuse(TRACK, EncodedShot { template, quality: 0.8, live_score: None, time })
}

/// What a decision of the visit on `TRACK` tells.
fn decided(visits: &mut Visits, decision: Decision, time: Timestamp) -> Option<Event> {
    visits.take_told();
    visits.decided(TRACK, (decision, |_: &Decision| true), time);
    let mut told = visits.take_told();
    assert!(told.len() <= 1, "{told:?}");
    told.pop()
}

fn overdue(visits: &mut Visits, now: Timestamp, judge: impl Fn(Option<&Probe>) -> Decision) -> Vec<Event> {
    visits.take_told();
    visits.overdue(now, judge);
    visits.take_told()
}

fn ended(visits: &mut Visits, ending: Ending, judge: impl Fn(Option<&Probe>) -> Decision) -> Vec<Event> {
    visits.take_told();
    visits.ended(TRACK, ending, judge);
    visits.take_told()
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

#[test]
fn a_visit_starts_once() {
    let mut visits = Visits::new("door", POLICY, Layout::default());
    assert!(visits.sighted(look(0.5), at_ms(0)));
    let started = overdue(&mut visits, at_ms(0), undecidable);
    assert_eq!(started.iter().map(|e| (e.kind, e.visit.is_some())).collect::<Vec<_>>(), [(EventKind::VisitStarted, true)]);
    visits.sighted(look(0.5), at_ms(40));
    assert_eq!(overdue(&mut visits, at_ms(40), undecidable), []);
}

#[test]
fn a_clear_match_is_told_at_the_first_shot_and_only_once() {
    let mut visits = visit_with(1);
    let event = decided(&mut visits, decision(Some(1), 0.7), at_ms(50)).expect("it is clear");
    assert_eq!(event.kind, EventKind::Identified);
    assert_eq!(event.subject, Some(SubjectUid(Uuid::from_u128(1))));
    assert_eq!(event.actionable_until_us, 5_000_000, "five seconds after the picture, not after the decision");
    assert_eq!(decided(&mut visits, decision(Some(1), 0.8), at_ms(90)), None);
}

#[test]
fn a_narrow_match_needs_a_second_shot() {
    let mut visits = visit_with(1);
    assert_eq!(decided(&mut visits, decision(Some(1), 0.45), at_ms(50)), None);
    let mut visits = visit_with(2);
    assert!(decided(&mut visits, decision(Some(1), 0.45), at_ms(150)).is_some());
}

#[test]
fn a_clear_stranger_is_told_after_three_shots_and_may_still_be_named_by_a_better_one() {
    let mut visits = visit_with(2);
    assert_eq!(decided(&mut visits, decision(None, 0.1), at_ms(150)), None);
    let mut visits = visit_with(3);
    let event = decided(&mut visits, decision(None, 0.1), at_ms(250)).expect("three shots are enough");
    assert_eq!(event.kind, EventKind::Unidentified);
    let event = decided(&mut visits, decision(Some(2), 0.6), at_ms(900)).expect("a better shot names the visitor");
    assert_eq!(event.kind, EventKind::Identified);
}

#[test]
fn a_visitor_that_cannot_be_seen_is_unidentified_at_the_deadline() {
    let mut visits = Visits::new("door", POLICY, Layout::default());
    visits.sighted(look(0.1), at_ms(0));
    overdue(&mut visits, at_ms(0), undecidable);
    visits.rejected(TRACK, "too_small", at_ms(0));
    assert!(overdue(&mut visits, at_ms(2_999), undecidable).is_empty());
    let events = overdue(&mut visits, at_ms(3_000), undecidable);
    assert_eq!(kinds(&events), [EventKind::Unidentified]);
    assert_eq!(events[0].decision.as_ref().and_then(|d| d.rejection), Some(Rejection::NoUsableShot));
    assert_eq!(events[0].shots.rejected["too_small"], 1);
    assert!(overdue(&mut visits, at_ms(9_000), undecidable).is_empty(), "it is told once");
}

#[test]
fn a_visit_never_ends_without_an_answer() {
    let mut visits = visit_with(1);
    assert_eq!(decided(&mut visits, decision(None, 0.35), at_ms(50)), None);
    let events = ended(&mut visits, Ending { reason: EndReason::Gone, time: at_ms(2_500) }, undecidable);
    assert_eq!(kinds(&events), [EventKind::Unidentified, EventKind::VisitEnded]);
    assert_eq!(events[1].end_reason, Some(EndReason::Gone));
    assert!(ended(&mut visits, Ending { reason: EndReason::Gone, time: at_ms(2_600) }, undecidable).is_empty());
}

#[test]
fn a_narrow_match_that_waits_for_a_second_shot_is_told_when_the_visitor_leaves() {
    let mut visits = visit_with(1);
    assert_eq!(decided(&mut visits, decision(Some(1), 0.45), at_ms(50)), None);
    visits.sighted(look(0.5), at_ms(280));
    let events = ended(&mut visits, Ending { reason: EndReason::Gone, time: at_ms(300) }, known);
    assert_eq!(kinds(&events), [EventKind::Identified, EventKind::VisitEnded]);
    assert_eq!((events[0].capture_time_us, events[0].actionable_until_us), (0, 5_000_000), "of the picture that told");
}

#[test]
fn whoever_was_erased_before_the_deadline_is_not_named_at_it() {
    let mut visits = visit_with(1);
    assert_eq!(decided(&mut visits, decision(Some(1), 0.45), at_ms(50)), None);
    let events = overdue(&mut visits, at_ms(3_000), |_| decision(None, 0.1));
    assert_eq!((kinds(&events), events[0].subject), (vec![EventKind::Unidentified], None));
}

#[test]
fn a_decision_at_the_deadline_is_about_the_picture_that_it_rests_on() {
    let mut visits = visit_with(1);
    decided(&mut visits, decision(Some(1), 0.45), at_ms(50));
    let elsewhere = BoxInFrame { x: 0.7, ..BoxInFrame::default() };
    visits.sighted(Look { box_in_frame: elsewhere, ..look(0.1) }, at_ms(2_900));
    let events = overdue(&mut visits, at_ms(3_000), known);
    assert_eq!(kinds(&events), [EventKind::Identified]);
    assert_eq!((events[0].capture_time_us, events[0].actionable_until_us), (0, 5_000_000));
    assert_eq!((events[0].box_in_frame, events[0].decision_time_us), (Some(BoxInFrame::default()), 3_000_000));
}

#[test]
fn nobody_is_named_by_an_earlier_shot_when_somebody_else_may_stand_there() {
    let mut resumed = visit_with(1);
    resumed.sighted(Look { resumed: true, ..look(0.1) }, at_ms(1_500));
    let events = overdue(&mut resumed, at_ms(3_000), known);
    assert_eq!((kinds(&events), events[0].subject), (vec![EventKind::Unidentified], None), "out of sight, and not seen since");

    let mut swapped = visit_with(1);
    assert_eq!(fuse(&mut swapped, &template(0.0, 1.0), at_ms(500)), Ok(Some(Fused::Other)));
    let events = ended(&mut swapped, Ending { reason: EndReason::Gone, time: at_ms(500) }, known);
    assert_eq!((kinds(&events)[0], events[0].subject), (EventKind::Unidentified, None), "another face stands there");
}

/// What a gallery says that knows the visitor by a narrow match.
fn known(fused: Option<&Probe>) -> Decision {
    fused.map_or_else(|| undecidable(None), |_| decision(Some(1), 0.45))
}

#[test]
fn a_better_shot_weighs_more() {
    let fused_of = |qualities: [f32; 2]| {
        let mut visits = visit_with(0);
        let mut fused = None;
        for (quality, shot) in qualities.into_iter().zip([template(1.0, 0.0), template(0.6, 0.8)]) {
            fused = visits.fuse(TRACK, EncodedShot { template: &shot, quality, live_score: None, time: at_ms(0) }).expect("one space");
        }
        let Some(Fused::Same(fused)) = fused else { panic!("one person: {fused:?}") };
        fused.template.similarity(&template(1.0, 0.0)).expect("one space")
    };
    assert!(fused_of([0.9, 0.1]) > fused_of([0.5, 0.5]) && fused_of([0.5, 0.5]) > fused_of([0.1, 0.9]));
}

#[test]
fn another_face_on_the_same_track_is_noticed() {
    let mut visits = visit_with(3);
    assert_eq!(fuse(&mut visits, &template(0.0, 1.0), at_ms(500)), Ok(Some(Fused::Other)));
}

#[test]
fn a_decided_face_is_encoded_rarely_and_an_undecided_one_often() {
    let mut visits = visit_with(1);
    let count = |visits: &mut Visits, from_ms: i64| {
        let mut looks = 0;
        for n in 0..100_i64 {
            let time = at_ms(from_ms + n * 40);
            if visits.sighted(look(0.5), time) {
                looks += 1;
                let _ = fuse(visits, &template(1.0, 0.0), time);
            }
        }
        looks
    };
    let undecided = count(&mut visits, 1_000);
    decided(&mut visits, decision(Some(1), 0.9), at_ms(5_000));
    let decided = count(&mut visits, 5_040);
    assert!(undecided >= 30 && decided <= 3, "in four seconds: {undecided} while undecided, {decided} once decided");
}

#[test]
fn whoever_stands_where_a_visitor_was_out_of_sight_is_looked_at_until_a_usable_shot_tells() {
    let mut visits = visit_with(1);
    decided(&mut visits, decision(Some(1), 0.9), at_ms(10));
    assert!(visits.sighted(Look { resumed: true, ..look(0.5) }, at_ms(1_000)));
    visits.rejected(TRACK, "blurred", at_ms(1_000));
    assert!(visits.sighted(look(0.5), at_ms(1_100)), "a blurred look has told nothing");
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(1_100));
    assert!(!visits.sighted(look(0.5), at_ms(1_200)), "now it is known to be the same face");
}

#[test]
fn a_face_that_was_out_of_sight_is_looked_at_again_at_once() {
    let mut visits = visit_with(1);
    decided(&mut visits, decision(Some(1), 0.9), at_ms(10));
    assert!(!visits.sighted(look(0.5), at_ms(50)));
    assert!(visits.sighted(Look { resumed: true, ..look(0.5) }, at_ms(90)));
}
