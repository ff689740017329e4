//! Who is told, when that is revised, and how often it is told again.

use super::*;

const ENTRY: VisitPolicy =
    VisitPolicy { decide_after: Some(Duration::from_millis(500)), reassert_every: Some(Duration::from_secs(3)), ..POLICY };

fn runner_up(of: Decision, subject: u128, similarity: f32) -> Decision {
    let second = crate::event::Candidate { subject: SubjectUid(Uuid::from_u128(subject)), similarity };
    Decision { runner_up: Some(second), ..of }
}

fn subject(number: u128) -> Option<SubjectUid> {
    Some(SubjectUid(Uuid::from_u128(number)))
}

#[test]
fn who_was_told_is_revised_only_by_somebody_who_is_clearly_more_similar() {
    let mut visits = visit_with(3);
    decided(&mut visits, decision(Some(1), 0.55), at_ms(50)).expect("told");
    let nearly = runner_up(decision(Some(2), 0.58), 1, 0.55);
    assert_eq!(decided(&mut visits, nearly, at_ms(400)), None, "hysteresis");
    let clearly = runner_up(decision(Some(2), 0.62), 1, 0.55);
    let event = decided(&mut visits, clearly, at_ms(600)).expect("clearly another");
    assert_eq!((event.kind, event.subject, event.previous_subject), (EventKind::IdentityRevised, subject(2), subject(1)));
    assert!(event.actionable_until_us > event.capture_time_us);
    assert_eq!(decided(&mut visits, decision(Some(2), 0.7), at_ms(800)), None, "once");
}

#[test]
fn who_was_told_by_mistake_is_nobody_once_the_similarity_has_clearly_fallen() {
    let mut visits = visit_with(2);
    decided(&mut visits, decision(Some(1), 0.52), at_ms(50)).expect("told");
    assert_eq!(decided(&mut visits, decision(None, 0.1), at_ms(300)), None, "two shots are few");
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(400));
    assert_eq!(decided(&mut visits, decision(None, 0.37), at_ms(450)), None, "a little below the threshold");
    let event = decided(&mut visits, decision(None, 0.3), at_ms(500)).expect("well below");
    assert_eq!((event.kind, event.subject, event.previous_subject), (EventKind::IdentityRevised, None, subject(1)));
    let event = decided(&mut visits, decision(Some(1), 0.6), at_ms(900)).expect("named again");
    assert_eq!((event.kind, event.subject), (EventKind::Identified, subject(1)));
}

#[test]
fn an_entry_is_decided_half_a_second_after_the_first_usable_face_by_more_than_one_shot() {
    let mut visits = Visits::new("door", ENTRY, Layout::default());
    visits.sighted(look(0.5), at_ms(0));
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(200));
    assert_eq!(kinds(&overdue(&mut visits, at_ms(750), known)), [], "one shot never decides");
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(760));
    let events = overdue(&mut visits, at_ms(760), |_| decision(None, 0.38));
    assert_eq!(kinds(&events), [EventKind::Unidentified]);
    let mut elsewhere = visit_with(2);
    assert_eq!(kinds(&overdue(&mut elsewhere, at_ms(2_900), known)), [], "elsewhere the deadline counts");
}

#[test]
fn whoever_lingers_at_the_door_is_told_again_every_three_seconds_by_a_fresh_picture() {
    let mut visits = Visits::new("door", ENTRY, Layout::default());
    let mut told = Vec::new();
    for frame in 0..300_i64 {
        let time = at_ms(frame * 40);
        if visits.sighted(look(0.5), time) {
            let _ = fuse(&mut visits, &template(1.0, 0.0), time);
            visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), time);
        }
        visits.overdue(time, known);
        told.extend(visits.take_told());
    }
    let expected = [EventKind::VisitStarted, EventKind::Identified, EventKind::Reasserted, EventKind::Reasserted, EventKind::Reasserted];
    assert_eq!(kinds(&told), expected, "in twelve seconds");
    for (event, at) in told[1..].iter().zip([0, 3_000, 6_000, 9_000]) {
        assert_eq!((event.subject, event.capture_time_us), (subject(1), at * 1_000));
        assert_eq!(event.actionable_until_us, event.capture_time_us + 5_000_000);
    }
    assert_eq!(kinds(&overdue(&mut visits, at_ms(14_000), known)), [], "nobody is there any more");
}

#[test]
fn whoever_was_erased_is_not_told_again() {
    let mut visits = Visits::new("door", ENTRY, Layout::default());
    visits.sighted(look(0.5), at_ms(0));
    for n in 0..3 {
        let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(n * 100));
    }
    decided(&mut visits, decision(Some(1), 0.8), at_ms(300)).expect("told");
    assert!(visits.sighted(look(0.5), at_ms(3_400)), "it is time for another look");
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(3_400));
    let event = decided(&mut visits, decision(None, 0.1), at_ms(3_450)).expect("revised");
    assert_eq!((event.kind, event.subject), (EventKind::IdentityRevised, None));
}

const OTHER: TrackId = TrackId(2);

/// Two visitors in the same frames, of whom the first is told to be subject 1 with `similarity`.
fn two_visitors(similarity: f32) -> Visits {
    let mut visits = Visits::new("door", POLICY, Layout::default());
    for time in [0, 100] {
        visits.sighted(look(0.5), at_ms(time));
        visits.sighted(Look { track: OTHER, ..look(0.5) }, at_ms(time));
        let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(time));
        let shot = template(0.0, 1.0);
        let _ = visits.fuse(OTHER, EncodedShot { template: &shot, quality: 0.8, live_score: None, time: at_ms(time) });
    }
    decided(&mut visits, decision(Some(1), similarity), at_ms(120)).expect("told");
    visits
}

#[test]
fn two_visitors_at_once_are_never_the_same_subject_and_the_better_match_keeps_the_name() {
    let mut visits = two_visitors(0.7);
    visits.decided(OTHER, (decision(Some(1), 0.72), |_: &Decision| true), at_ms(150));
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::Unidentified], "a little better is not enough");
    assert_eq!(told[0].decision.as_ref().and_then(|d| d.rejection), Some(Rejection::Conflict));
    assert_eq!(told[0].conflicting_visit, visits.visit_of(TRACK));
    visits.decided(OTHER, (decision(Some(1), 0.72), |_: &Decision| true), at_ms(250));
    assert_eq!(visits.take_told(), [], "a conflict is told once");

    let mut visits = two_visitors(0.5);
    visits.decided(OTHER, (decision(Some(1), 0.72), |_: &Decision| true), at_ms(150));
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::IdentityRevised, EventKind::Identified]);
    assert_eq!((told[0].visit, told[0].subject, told[0].previous_subject), (visits.visit_of(TRACK), None, subject(1)));
    assert_eq!((told[1].visit, told[1].subject, told[1].conflicting_visit), (visits.visit_of(OTHER), subject(1), visits.visit_of(TRACK)));
}

#[test]
fn nobody_is_told_again_by_a_picture_that_does_not_show_them() {
    let mut visits = Visits::new("door", ENTRY, Layout::default());
    visits.sighted(look(0.5), at_ms(0));
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(0));
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(10));
    visits.take_told();
    // Somebody who is just similar enough to be taken for the same visitor.
    visits.sighted(look(0.5), at_ms(3_100));
    let _ = fuse(&mut visits, &template(0.35, 0.94), at_ms(3_100));
    visits.decided(TRACK, (decision(Some(1), 0.7), |_: &Decision| false), at_ms(3_150));
    assert_eq!(visits.take_told(), [], "the shots before are not enough");
}
