//! Nobody arrives twice, and nobody who arrives is missed.

use super::*;
use crate::camera::NormalisedPoint;

const RESUMING: VisitPolicy =
    VisitPolicy { resume_within: Duration::from_secs(60), reassert_every: Some(Duration::from_secs(3)), ..POLICY };
const NEXT: TrackId = TrackId(2);

fn gone(ms: i64) -> Ending {
    Ending { reason: EndReason::Gone, time: at_ms(ms) }
}

fn on(track: TrackId) -> Look {
    Look { track, ..look(0.5) }
}

fn shoot(visits: &mut Visits, track: TrackId, template: &Template, time: Timestamp) {
    let fused = visits.fuse(track, EncodedShot { template, quality: 0.8, live_score: None, time });
    assert!(matches!(fused, Ok(Some(Fused::Same(_)))), "{fused:?}");
}

/// Subject 1 was here from 0 to 1,000 ms and has gone out of sight.
fn visitor_away() -> (Visits, VisitId) {
    let mut visits = Visits::new("door", RESUMING, Layout::default());
    visits.sighted(look(0.5), at_ms(0));
    shoot(&mut visits, TRACK, &template(1.0, 0.0), at_ms(0));
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(10));
    visits.sighted(look(0.5), at_ms(1_000));
    visits.ended(TRACK, gone(3_000), known);
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified], "the end is not told yet");
    (visits, told[0].visit.expect("a visit"))
}

#[test]
fn whoever_comes_back_within_a_minute_goes_on_with_the_visit_and_is_not_told_as_arriving() {
    let (mut visits, visit) = visitor_away();
    visits.sighted(on(NEXT), at_ms(20_000));
    visits.overdue(at_ms(20_000), known);
    assert_eq!(visits.take_told(), [], "it may be the same visitor");
    shoot(&mut visits, NEXT, &template(0.95, 0.1), at_ms(20_100));
    visits.decided(NEXT, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(20_150));
    let told = visits.take_told();
    assert_eq!((kinds(&told), told[0].visit), (vec![EventKind::Reasserted], Some(visit)), "still there, and an entry says so");
    visits.ended(NEXT, gone(30_000), known);
    visits.overdue(at_ms(80_000), known);
    assert_eq!(visits.take_told(), []);
    visits.overdue(at_ms(80_001), known);
    let told = visits.take_told();
    assert_eq!((kinds(&told), told[0].visit), (vec![EventKind::VisitEnded], Some(visit)));
    assert_eq!((told[0].capture_time_us, told[0].duration_ms), (20_000_000, Some(20_000)), "until it was last seen");
}

/// A line across the middle of the picture, and a zone below it.
fn hall() -> Layout {
    let region = |name: &str, points: &[(f32, f32)]| Region {
        name: name.into(),
        points: points.iter().map(|&(x, y)| NormalisedPoint { x, y }).collect(),
    };
    let (line, zone) = (region("line", &[(0.0, 0.5), (1.0, 0.5)]), region("zone", &[(0.0, 0.55), (1.0, 0.55), (1.0, 1.0), (0.0, 1.0)]));
    Layout { role: Role::Entry, lines: vec![line], zones: vec![zone] }
}

/// As far down in the picture on the way to the bottom, of a tenth each 100 ms, as at `ms`.
fn on_the_way(track: TrackId, ms: i64) -> Look {
    Look { box_in_frame: BoxInFrame { x: 0.45, y: ms as f32 / 1_000.0 - 0.05, width: 0.1, height: 0.1 }, ..on(track) }
}

/// Subject 1 was in the upper half and is out of sight; somebody walks down through the picture since 20 s, and has not been shot yet.
fn walks_withheld(resumed: impl Fn(i64) -> bool) -> Visits {
    let mut visits = Visits::new("door", RESUMING, hall());
    visits.sighted(on_the_way(TRACK, 200), at_ms(0));
    shoot(&mut visits, TRACK, &template(1.0, 0.0), at_ms(0));
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(10));
    visits.ended(TRACK, gone(3_000), known);
    visits.take_told();
    for ms in (200..=900).step_by(100) {
        visits.sighted(Look { resumed: resumed(ms), ..on_the_way(NEXT, ms) }, at_ms(20_000 + ms));
        visits.overdue(at_ms(20_000 + ms), known);
    }
    assert_eq!(visits.take_told(), [], "it may be somebody who was here");
    visits
}

/// What was told of lines and zones, and of which moment.
fn passed(told: &[Event]) -> Vec<(EventKind, i64)> {
    let passed = told.iter().filter(|event| event.region.is_some());
    passed.map(|event| (event.kind, event.capture_time_us / 1_000)).collect()
}

const ON_THE_WAY: [(EventKind, i64); 2] = [(EventKind::Entry, 20_600), (EventKind::ZoneEntered, 20_700)];

#[test]
fn what_was_crossed_and_entered_before_a_visit_could_be_told_is_told_after_its_start() {
    // By somebody else, whom the first usable shot tells.
    let mut visits = walks_withheld(|_| false);
    shoot(&mut visits, NEXT, &template(0.0, 1.0), at_ms(20_900));
    visits.decided(NEXT, (decision(Some(2), 0.8), |_: &Decision| true), at_ms(20_950));
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified, EventKind::Entry, EventKind::ZoneEntered]);
    assert_eq!((passed(&told), told[2].subject), (ON_THE_WAY.into(), Some(SubjectUid(Uuid::from_u128(2)))));
    assert_eq!((told[2].box_in_frame, told[2].actionable_until_us), (Some(on_the_way(NEXT, 600).box_in_frame), 25_600_000));
    // By somebody without a usable shot, whom time tells.
    let mut visits = walks_withheld(|_| false);
    let told = overdue(&mut visits, at_ms(21_200), known);
    assert_eq!(kinds(&told)[0], EventKind::VisitStarted);
    assert_eq!((passed(&told), told[1].subject), (ON_THE_WAY.into(), None));
    // By somebody who has gone before.
    let mut visits = walks_withheld(|_| false);
    visits.ended(NEXT, gone(21_000), undecidable);
    let told = visits.take_told();
    assert_eq!((kinds(&told)[0], passed(&told)), (EventKind::VisitStarted, ON_THE_WAY.into()));
    // Whoever goes on is told from there, and nothing twice.
    let mut visits = walks_withheld(|_| false);
    shoot(&mut visits, NEXT, &template(0.0, 1.0), at_ms(20_900));
    visits.decided(NEXT, (decision(Some(2), 0.8), |_: &Decision| true), at_ms(20_950));
    visits.take_told();
    visits.sighted(on_the_way(NEXT, 950), at_ms(20_950));
    visits.sighted(on_the_way(NEXT, 300), at_ms(21_000));
    assert_eq!(passed(&visits.take_told()), [(EventKind::Exit, 21_000)]);
}

#[test]
fn what_a_visitor_crossed_before_it_was_seen_that_the_visit_goes_on_is_told_of_that_visit() {
    let mut visits = walks_withheld(|_| false);
    shoot(&mut visits, NEXT, &template(1.0, 0.0), at_ms(20_900));
    visits.decided(NEXT, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(20_950));
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::Reasserted, EventKind::Entry, EventKind::ZoneEntered]);
    assert_eq!((passed(&told), told[1].subject), (ON_THE_WAY.into(), Some(SubjectUid(Uuid::from_u128(1)))));
}

#[test]
fn where_frames_are_few_the_way_before_the_start_is_told_once_a_shot_has_shown_whose_it_is() {
    let mut visits = walks_withheld(|ms| ms > 200);
    shoot(&mut visits, NEXT, &template(0.0, 1.0), at_ms(20_900));
    visits.decided(NEXT, (decision(Some(2), 0.8), |_: &Decision| true), at_ms(20_950));
    let told = visits.take_told();
    assert_eq!((passed(&told), told[2].subject), (ON_THE_WAY.into(), Some(SubjectUid(Uuid::from_u128(2)))));
    // Without any shot it is nobody's, and told at the end.
    let mut visits = walks_withheld(|ms| ms > 200);
    visits.ended(NEXT, gone(21_000), undecidable);
    let told = visits.take_told();
    assert_eq!((passed(&told), told.last().and_then(|event| event.subject)), (ON_THE_WAY.into(), None));
}

#[test]
fn a_way_before_the_start_is_told_by_the_name_where_the_first_shot_does_not_decide_it() {
    let narrow = |visits: &mut Visits, ms: i64| {
        shoot(visits, NEXT, &template(0.0, 1.0), at_ms(ms));
        visits.decided(NEXT, (decision(Some(2), 0.4), |_: &Decision| true), at_ms(ms + 10));
        visits.sighted(on_the_way(NEXT, ms + 20 - 20_000), at_ms(ms + 20));
        visits.overdue(at_ms(ms + 30), known);
    };
    let mut visits = walks_withheld(|_| false);
    narrow(&mut visits, 20_900);
    assert_eq!(kinds(&visits.take_told()), [EventKind::VisitStarted], "one narrow shot is not sure");
    narrow(&mut visits, 21_000);
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::Identified, EventKind::Entry, EventKind::ZoneEntered]);
    assert_eq!((passed(&told), told[1].subject), (ON_THE_WAY.into(), Some(SubjectUid(Uuid::from_u128(2)))));
    // Without another shot by the deadline.
    let mut visits = walks_withheld(|_| false);
    narrow(&mut visits, 20_900);
    visits.take_told();
    let told = overdue(&mut visits, at_ms(23_200), undecidable);
    assert_eq!((kinds(&told)[0], passed(&told), told[1].subject), (EventKind::Unidentified, ON_THE_WAY.into(), None));
    // On another track, to which the visit went on meanwhile.
    let mut visits = walks_withheld(|_| false);
    narrow(&mut visits, 20_900);
    visits.take_told();
    let third = TrackId(NEXT.0 + 1);
    visits.sighted(on_the_way(third, 950), at_ms(21_300));
    shoot(&mut visits, third, &template(0.0, 1.0), at_ms(21_300));
    visits.decided(third, (decision(Some(2), 0.8), |_: &Decision| true), at_ms(21_350));
    let told = visits.take_told();
    assert_eq!((kinds(&told)[0], passed(&told)), (EventKind::Identified, ON_THE_WAY.into()));
    // At the end of the visit.
    let mut visits = walks_withheld(|_| false);
    narrow(&mut visits, 20_900);
    visits.take_told();
    visits.ended(NEXT, gone(21_000), |_| decision(Some(2), 0.4));
    let told = visits.take_told();
    assert_eq!((kinds(&told)[0], passed(&told), told[1].subject), (EventKind::Identified, ON_THE_WAY.into(), told[0].subject));
}

#[test]
fn whoever_comes_back_beyond_a_line_has_crossed_it_only_if_they_were_away_for_a_moment() {
    for (away_ms, expected) in [(1_900, vec![EventKind::Entry]), (20_000, vec![])] {
        let mut visits = Visits::new("door", RESUMING, hall());
        visits.sighted(on_the_way(TRACK, 200), at_ms(0));
        shoot(&mut visits, TRACK, &template(1.0, 0.0), at_ms(0));
        visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(10));
        visits.overdue(at_ms(10), known);
        visits.ended(TRACK, gone(1_000), known);
        let visit = visits.take_told()[0].visit;
        visits.sighted(on_the_way(NEXT, 800), at_ms(away_ms));
        shoot(&mut visits, NEXT, &template(1.0, 0.0), at_ms(away_ms));
        visits.decided(NEXT, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(away_ms + 10));
        visits.sighted(on_the_way(NEXT, 810), at_ms(away_ms + 40));
        let told = visits.take_told();
        let crossed: Vec<_> = told.iter().map(|event| event.kind).filter(|kind| *kind == EventKind::Entry).collect();
        assert_eq!((crossed, visits.visit_of(NEXT)), (expected, visit), "away for {away_ms} ms");
        // And from there on lines are crossed as ever.
        visits.sighted(on_the_way(NEXT, 300), at_ms(away_ms + 80));
        assert_eq!(kinds(&visits.take_told()), [EventKind::Exit], "away for {away_ms} ms");
    }
}

#[test]
fn a_way_before_an_absence_is_not_that_of_whoever_comes_then() {
    let mut visits = Visits::new("door", RESUMING, hall());
    visits.sighted(on_the_way(TRACK, 200), at_ms(0));
    shoot(&mut visits, TRACK, &template(1.0, 0.0), at_ms(0));
    visits.ended(TRACK, gone(3_000), known);
    visits.sighted(on_the_way(NEXT, 300), at_ms(20_000));
    visits.sighted(Look { resumed: true, ..on_the_way(NEXT, 800) }, at_ms(20_800));
    shoot(&mut visits, NEXT, &template(0.0, 1.0), at_ms(20_800));
    visits.decided(NEXT, (decision(Some(2), 0.8), |_: &Decision| true), at_ms(20_850));
    assert_eq!(passed(&visits.take_told()), []);
}

#[test]
fn one_sighting_in_a_zone_is_none_and_a_long_way_before_a_start_is_told_though_not_each_step_is_kept() {
    let mut visits = Visits::new("door", RESUMING, hall());
    visits.sighted(on_the_way(TRACK, 700), at_ms(0));
    shoot(&mut visits, TRACK, &template(1.0, 0.0), at_ms(0));
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(10));
    visits.overdue(at_ms(20), known);
    assert_eq!(passed(&visits.take_told()), []);
    visits.ended(TRACK, gone(3_000), known);
    for n in 0..1_000 {
        visits.sighted(on_the_way(NEXT, 200 + n * 7 / 10), at_ms(20_000 + n));
    }
    let withheld = &visits.open[&NEXT].withheld;
    assert!(withheld.len() <= 128, "{}", withheld.len());
    visits.overdue(at_ms(21_000), known);
    assert_eq!(passed(&visits.take_told()).iter().map(|(kind, _)| *kind).next(), Some(EventKind::Entry));
}

#[test]
fn whoever_comes_back_later_begins_another_visit() {
    let (mut visits, visit) = visitor_away();
    visits.overdue(at_ms(61_001), known);
    assert_eq!(kinds(&visits.take_told()), [EventKind::VisitEnded]);
    visits.sighted(on(NEXT), at_ms(62_000));
    visits.overdue(at_ms(62_000), known);
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::VisitStarted]);
    assert_ne!(told[0].visit, Some(visit));
}

#[test]
fn somebody_else_begins_a_visit_with_the_first_usable_shot_or_after_a_second_without() {
    let (mut visits, visit) = visitor_away();
    visits.sighted(on(NEXT), at_ms(20_000));
    shoot(&mut visits, NEXT, &template(0.0, 1.0), at_ms(20_100));
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::VisitStarted]);
    assert!(told[0].visit != Some(visit) && told[0].capture_time_us == 20_000_000, "since it was first seen");

    let (mut visits, _) = visitor_away();
    visits.sighted(on(NEXT), at_ms(20_000));
    assert_eq!(overdue(&mut visits, at_ms(20_999), known), []);
    assert_eq!(kinds(&overdue(&mut visits, at_ms(21_000), known)), [EventKind::VisitStarted]);
}

#[test]
fn a_track_that_breaks_goes_on_before_the_old_one_is_known_to_be_lost() {
    let mut visits = Visits::new("door", RESUMING, Layout::default());
    visits.sighted(look(0.5), at_ms(0));
    shoot(&mut visits, TRACK, &template(1.0, 0.0), at_ms(0));
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(10));
    let visit = visits.visit_of(TRACK);
    visits.take_told();
    // Behind the pillar and out on the other side: another track in the next frames.
    visits.sighted(on(NEXT), at_ms(400));
    visits.overdue(at_ms(400), known);
    shoot(&mut visits, NEXT, &template(1.0, 0.0), at_ms(440));
    visits.decided(NEXT, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(450));
    assert_eq!((visits.take_told(), visits.visit_of(NEXT)), (vec![], visit));
    visits.ended(TRACK, gone(2_000), known);
    assert_eq!(visits.take_told(), [], "the old track is nobody's any more");
}

#[test]
fn whoever_is_recognised_only_later_ends_the_visit_that_was_begun_for_nothing() {
    let (mut visits, visit) = visitor_away();
    visits.sighted(on(NEXT), at_ms(20_000));
    // A poor shot, unlike the ones before.
    shoot(&mut visits, NEXT, &template(0.4, 0.9), at_ms(20_100));
    assert_eq!(kinds(&visits.take_told()), [EventKind::VisitStarted]);
    shoot(&mut visits, NEXT, &template(0.9, 0.4), at_ms(20_300));
    visits.decided(NEXT, (decision(Some(1), 0.6), |_: &Decision| true), at_ms(20_350));
    let told = visits.take_told();
    assert_eq!((kinds(&told), told[0].end_reason), (vec![EventKind::VisitEnded], Some(EndReason::Resumed)));
    assert!(told[0].message.as_ref().is_some_and(|message| message.contains(&visit.0.to_string())));
    assert_eq!(visits.visit_of(NEXT), Some(visit));
    shoot(&mut visits, NEXT, &template(0.9, 0.4), at_ms(20_900));
    visits.decided(NEXT, (decision(Some(1), 0.6), |_: &Decision| true), at_ms(20_950));
    assert_eq!(kinds(&visits.take_told()), [EventKind::Reasserted], "and is told again at an entry");
}

#[test]
fn a_second_visitor_beside_one_who_is_in_sight_begins_at_once() {
    let mut visits = Visits::new("door", RESUMING, Layout::default());
    visits.sighted(look(0.5), at_ms(0));
    visits.overdue(at_ms(0), undecidable);
    visits.sighted(on(NEXT), at_ms(40));
    visits.sighted(look(0.5), at_ms(40));
    visits.overdue(at_ms(40), undecidable);
    assert_eq!(kinds(&visits.take_told()), [EventKind::VisitStarted, EventKind::VisitStarted]);
}

#[test]
fn everybody_is_told_as_gone_when_the_camera_shows_nothing_any_more() {
    let (mut visits, visit) = visitor_away();
    visits.sighted(on(NEXT), at_ms(20_000));
    visits.end_all(Ending { reason: EndReason::CameraOffline, time: at_ms(20_500) }, undecidable);
    let told = visits.take_told();
    let expected = [EventKind::VisitStarted, EventKind::Unidentified, EventKind::VisitEnded, EventKind::VisitEnded];
    assert_eq!(kinds(&told), expected);
    assert!(told[2..].iter().all(|event| event.end_reason == Some(EndReason::CameraOffline)));
    assert_eq!(told[3].visit, Some(visit));
}

#[test]
fn whoever_was_told_as_somebody_else_before_is_revised_before_the_earlier_visit_goes_on() {
    let (mut visits, visit) = visitor_away();
    visits.sighted(on(NEXT), at_ms(20_000));
    shoot(&mut visits, NEXT, &template(0.4, 0.9), at_ms(20_100));
    visits.decided(NEXT, (decision(Some(2), 0.6), |_: &Decision| true), at_ms(20_150));
    visits.take_told();
    shoot(&mut visits, NEXT, &template(0.9, 0.4), at_ms(20_300));
    visits.decided(NEXT, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(20_350));
    let told = visits.take_told();
    assert_eq!(kinds(&told), [EventKind::IdentityRevised, EventKind::VisitEnded]);
    assert_eq!((told[0].subject, told[0].previous_subject), (None, Some(SubjectUid(Uuid::from_u128(2)))));
    assert_eq!((told[1].subject, visits.visit_of(NEXT)), (None, Some(visit)));
}

#[test]
fn one_missed_detection_hands_nobodys_visit_to_a_lookalike() {
    let mut visits = Visits::new("door", RESUMING, Layout::default());
    visits.sighted(look(0.5), at_ms(0));
    shoot(&mut visits, TRACK, &template(1.0, 0.0), at_ms(0));
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(10));
    let visit = visits.visit_of(TRACK);
    visits.sighted(look(0.5), at_ms(40));
    // Somebody alike in a frame in which the visitor was not detected.
    visits.sighted(on(NEXT), at_ms(80));
    shoot(&mut visits, NEXT, &template(0.9, 0.3), at_ms(80));
    assert_ne!(visits.visit_of(NEXT), visit);
    visits.sighted(look(0.5), at_ms(120));
    assert_eq!(visits.visit_of(TRACK), visit);
}

#[test]
fn a_camera_that_delays_its_pictures_still_has_its_visitors_in_sight() {
    let mut visits = Visits::new("door", RESUMING, Layout::default());
    for track in [TRACK, NEXT] {
        visits.sighted(on(track), at_ms(0));
        shoot(&mut visits, track, &template(1.0, if track == TRACK { 0.0 } else { 0.2 }), at_ms(0));
    }
    // Decided four seconds after the picture: both are in it all the same.
    visits.decided(TRACK, (decision(Some(1), 0.8), |_: &Decision| true), at_ms(4_000));
    visits.decided(NEXT, (decision(Some(1), 0.7), |_: &Decision| true), at_ms(4_000));
    let told = visits.take_told();
    assert_eq!(kinds(&told)[2..], [EventKind::Identified, EventKind::Unidentified]);
    assert_eq!(told[3].decision.as_ref().and_then(|d| d.rejection), Some(Rejection::Conflict));
}
