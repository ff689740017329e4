//! What decides is changed while somebody is there under a name.

use super::*;
use crate::event::Candidate;

const RESUMING: VisitPolicy = VisitPolicy { resume_within: Duration::from_secs(60), ..POLICY };

/// A visit of subject 1, named by a narrow match, with `shots` shots.
fn named(policy: VisitPolicy, shots: i64) -> Visits {
    let mut visits = Visits::new("door", policy, Layout::default());
    for n in 0..shots {
        visits.sighted(look(0.5), at_ms(n * 100));
        let _ = fuse(&mut visits, &template(1.0, 0.0), at_ms(n * 100));
    }
    visits.decided(TRACK, (decision(Some(1), 0.41), |_: &Decision| true), at_ms(shots * 100));
    assert_eq!(visits.take_told().last().map(|event| event.kind), Some(EventKind::Identified));
    visits
}

/// What another threshold says of whoever is a little below it.
fn below(similarity: f32) -> Decision {
    Decision { threshold: similarity + 0.02, ..decision(None, similarity) }
}

#[test]
fn a_name_is_given_slack_by_the_threshold_that_gave_it_and_by_no_other() {
    for (is_changed, expected) in [(false, None), (true, Some(EventKind::IdentityRevised))] {
        let mut visits = named(POLICY, 3);
        if is_changed {
            visits.doubt(|_| below(0.41));
        }
        assert_eq!(visits.sighted(look(0.5), at_ms(400)), is_changed, "whoever is in doubt is looked at before the usual time");
        let told = decided(&mut visits, below(0.41), at_ms(1_000));
        assert_eq!(told.map(|event| event.kind), expected, "changed: {is_changed}");
    }
}

#[test]
fn a_name_that_the_new_threshold_gives_as_well_is_not_in_doubt() {
    let mut visits = named(POLICY, 3);
    visits.doubt(|_| decision(Some(1), 0.41));
    assert_eq!(decided(&mut visits, below(0.41), at_ms(1_000)), None, "the slack is that of noise again");
    visits.doubt(|_| below(0.41));
    decided(&mut visits, decision(Some(1), 0.41), at_ms(2_000));
    assert_eq!(decided(&mut visits, below(0.41), at_ms(3_000)), None, "nor once a look has given it again");
}

#[test]
fn somebody_out_of_sight_is_doubted_too() {
    let mut visits = named(RESUMING, 3);
    visits.ended(TRACK, Ending { reason: EndReason::Gone, time: at_ms(3_000) }, known);
    visits.doubt(|_| below(0.41));
    let next = TrackId(2);
    visits.sighted(Look { track: next, ..look(0.5) }, at_ms(5_000));
    let shot = template(1.0, 0.0);
    let _ = visits.fuse(next, EncodedShot { template: &shot, quality: 0.8, live_score: None, time: at_ms(5_000) });
    visits.take_told();
    visits.decided(next, (below(0.41), |_: &Decision| true), at_ms(5_010));
    assert_eq!(kinds(&visits.take_told()), [EventKind::IdentityRevised]);
}

#[test]
fn a_name_in_doubt_gives_way_to_another_without_a_lead() {
    let another =
        Decision { runner_up: Some(Candidate { subject: SubjectUid(Uuid::from_u128(1)), similarity: 0.51 }), ..decision(Some(2), 0.53) };
    for (is_changed, expected) in [(false, None), (true, Some(EventKind::IdentityRevised))] {
        let mut visits = named(POLICY, 3);
        if is_changed {
            visits.doubt(|_| another.clone());
        }
        assert_eq!(decided(&mut visits, another.clone(), at_ms(1_000)).map(|event| event.kind), expected, "changed: {is_changed}");
    }
}

#[test]
fn a_name_in_doubt_keeps_it_from_nobody_who_is_named_now() {
    for (is_changed, expected) in [(false, EventKind::Unidentified), (true, EventKind::Identified)] {
        let mut visits = named(POLICY, 3);
        let next = TrackId(2);
        for time in [350, 360] {
            visits.sighted(look(0.5), at_ms(time));
            visits.sighted(Look { track: next, ..look(0.5) }, at_ms(time));
        }
        if is_changed {
            visits.doubt(|_| below(0.41));
        }
        let shot = template(1.0, 0.0);
        for time in [370, 380] {
            let _ = visits.fuse(next, EncodedShot { template: &shot, quality: 0.8, live_score: None, time: at_ms(time) });
        }
        visits.take_told();
        visits.decided(next, (decision(Some(1), 0.44), |_: &Decision| true), at_ms(390));
        assert_eq!(visits.take_told().last().map(|event| event.kind), Some(expected), "changed: {is_changed}");
    }
}
