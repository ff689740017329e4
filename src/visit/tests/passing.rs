//! Who comes in and goes out.

use super::*;
use crate::camera::NormalisedPoint;

fn region(name: &str, points: &[(f32, f32)]) -> Region {
    Region { name: name.into(), points: points.iter().map(|&(x, y)| NormalisedPoint { x, y }).collect() }
}

fn at(y: f32) -> Look {
    Look { box_in_frame: BoxInFrame { x: 0.45, y: y - 0.05, width: 0.1, height: 0.1 }, ..look(0.5) }
}

/// A visitor who is subject 1 walks down through the picture in a second, and goes.
fn walk(layout: Layout) -> Vec<Event> {
    let mut visits = Visits::new("door", POLICY, layout);
    for n in 0..10_i64 {
        let time = at_ms(n * 100);
        if visits.sighted(at(0.1 * n as f32), time) {
            let _ = fuse(&mut visits, &template(1.0, 0.0), time);
            visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), time);
        }
        visits.overdue(time, known);
    }
    visits.ended(TRACK, Ending { reason: EndReason::Gone, time: at_ms(3_000) }, known);
    visits.take_told()
}

#[test]
fn whoever_crosses_the_line_of_an_entry_has_entered_there_and_not_by_being_decided() {
    let line = region("door", &[(0.2, 0.5), (0.8, 0.5)]);
    let told = walk(Layout { role: Role::Entry, lines: vec![line], zones: Vec::new() });
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified, EventKind::Entry, EventKind::VisitEnded]);
    let entry = &told[2];
    assert_eq!((entry.region.as_deref(), entry.capture_time_us), (Some("door"), 600_000));
    assert_eq!(entry.subject, Some(SubjectUid(Uuid::from_u128(1))));
    assert_eq!(entry.actionable_until_us, 5_600_000, "a door may act on it as on a decision");
}

#[test]
fn a_line_that_is_drawn_the_other_way_round_is_left_by_the_same_walk() {
    let line = region("door", &[(0.8, 0.5), (0.2, 0.5)]);
    let told = walk(Layout { role: Role::Interior, lines: vec![line], zones: Vec::new() });
    assert!(kinds(&told).contains(&EventKind::Exit) && !kinds(&told).contains(&EventKind::Entry));
}

#[test]
fn without_a_line_an_entry_and_an_exit_are_passed_by_being_decided_once() {
    for (role, kind) in [(Role::Entry, EventKind::Entry), (Role::Exit, EventKind::Exit)] {
        let told = walk(Layout { role, ..Layout::default() });
        assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified, kind, EventKind::VisitEnded]);
        assert_eq!((told[2].capture_time_us, told[2].actionable_until_us), (told[1].capture_time_us, told[1].actionable_until_us));
    }
    assert_eq!(walk(Layout::default()).len(), 3, "and the interior of a building is not");
}

#[test]
fn a_stay_in_a_zone_is_told_with_its_length() {
    let zone = region("hall", &[(0.0, 0.25), (1.0, 0.25), (1.0, 0.65), (0.0, 0.65)]);
    let told = walk(Layout { zones: vec![zone], ..Layout::default() });
    let zones: Vec<_> = told.iter().filter(|event| event.region.as_deref() == Some("hall")).collect();
    assert_eq!(zones.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::ZoneEntered, EventKind::ZoneLeft]);
    assert_eq!(zones[1].duration_ms, Some(300));
}

#[test]
fn whoever_vanishes_in_a_zone_has_left_it_before_the_visit_ends() {
    let zone = region("hall", &[(0.0, 0.25), (1.0, 0.25), (1.0, 1.0), (0.0, 1.0)]);
    let told = walk(Layout { zones: vec![zone], ..Layout::default() });
    assert_eq!(kinds(&told)[told.len() - 2..], [EventKind::ZoneLeft, EventKind::VisitEnded]);
}

#[test]
fn nobody_crosses_a_line_under_the_name_of_somebody_who_may_have_been_swapped() {
    let line = region("door", &[(0.2, 0.5), (0.8, 0.5)]);
    let mut visits = Visits::new("door", POLICY, Layout { role: Role::Entry, lines: vec![line], zones: Vec::new() });
    visits.sighted(at(0.2), at_ms(0));
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(0));
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(10));
    visits.overdue(at_ms(10), known);
    visits.sighted(at(0.2), at_ms(40));
    visits.take_told();
    // Out of sight, and somebody beyond the line when it is seen again.
    visits.sighted(Look { resumed: true, ..at(0.8) }, at_ms(1_000));
    assert_eq!(visits.take_told(), []);
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(1_000));
    assert_eq!(visits.take_told(), [], "nor before that shot has decided");
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(1_010));
    assert_eq!(kinds(&visits.take_told()), [EventKind::Entry], "once a shot has shown that it is the same visitor");
}

#[test]
fn whoever_is_named_beyond_the_line_by_the_first_shot_after_a_gap_has_crossed_it_by_that_name() {
    let line = region("door", &[(0.2, 0.5), (0.8, 0.5)]);
    let mut visits = Visits::new("door", POLICY, Layout { role: Role::Entry, lines: vec![line], zones: Vec::new() });
    visits.sighted(at(0.2), at_ms(0));
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(0));
    visits.decided(TRACK, (decision(None, 0.1), |_: &Decision| true), at_ms(10));
    visits.overdue(at_ms(10), known);
    visits.sighted(at(0.2), at_ms(40));
    visits.take_told();
    visits.sighted(Look { resumed: true, ..at(0.8) }, at_ms(1_000));
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(1_000));
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(1_010));
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::Identified, EventKind::Entry]);
    assert_eq!(told[1].subject, Some(SubjectUid(Uuid::from_u128(1))));
}

#[test]
fn lines_and_zones_hold_where_frames_are_so_few_that_nobody_is_in_sight_from_one_to_the_next() {
    let line = region("door", &[(0.2, 0.5), (0.8, 0.5)]);
    let zone = region("hall", &[(0.0, 0.25), (1.0, 0.25), (1.0, 0.65), (0.0, 0.65)]);
    let mut visits = Visits::new("door", POLICY, Layout { role: Role::Entry, lines: vec![line], zones: vec![zone] });
    for n in 0..10_i64 {
        let time = at_ms(n * 1_000);
        assert!(visits.sighted(Look { resumed: n > 0, ..at(0.1 * n as f32) }, time));
        let _ = fuse(&mut visits, &template(1.0, 0.0), time);
        visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), time);
        visits.overdue(time, known);
    }
    // A zone takes two sightings; the stay is from the first within it to the last.
    let told = visits.take_told();
    let passed = told.iter().filter(|event| event.region.is_some());
    let passed: Vec<_> = passed.map(|event| (event.kind, event.capture_time_us / 1_000, event.duration_ms)).collect();
    assert_eq!(passed, [(EventKind::ZoneEntered, 4_000, None), (EventKind::Entry, 6_000, None), (EventKind::ZoneLeft, 8_000, Some(3_000))]);
}

#[test]
fn whoever_crosses_a_line_while_a_name_may_no_longer_hold_is_told_without_it() {
    let line = region("door", &[(0.2, 0.5), (0.8, 0.5)]);
    let mut visits = Visits::new("door", POLICY, Layout { role: Role::Entry, lines: vec![line], zones: Vec::new() });
    let named = |visits: &mut Visits, at_time: i64| {
        visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(at_time));
        visits.take_told();
    };
    visits.sighted(at(0.2), at_ms(0));
    let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(0));
    named(&mut visits, 10);
    visits.sighted(at(0.2), at_ms(20));
    visits.doubt(undecidable);
    visits.sighted(at(0.8), at_ms(40));
    let told = visits.take_told();
    assert_eq!((kinds(&told), told[0].subject, &told[0].decision), (vec![EventKind::Entry], None, &None));
    named(&mut visits, 50);
    visits.sighted(at(0.2), at_ms(80));
    let told = visits.take_told();
    assert_eq!((kinds(&told), told[0].subject), (vec![EventKind::Exit], Some(SubjectUid(Uuid::from_u128(1)))), "it holds");
}
