//! Says an event in one line for people.
//!
//! In: an event of the wire. Out: a line such as
//! `2026-11-23T19:00:01Z front-door IDENTIFIED anna "Anna K." similarity 0.71 ≥ 0.363 (of 2) 180 ms`.
//! Drops: what only programs need; `--json` has all of it.
//! Must not know: the stream.

use std::time::Duration;

use super::face_table::{liveness, who, why_unknown};
use super::output::{between, moment, span};
use crate::pb;
use crate::pb::EventType;

/// The event in one line, without the place of its picture.
pub fn line(event: &pb::Event) -> String {
    let name = event.r#type().as_str_name().trim_start_matches("EVENT_TYPE_");
    let mut words = vec![moment(event.capture_time.as_ref()), event.camera_id.clone(), name.to_owned()];
    words.extend(event.subject.as_ref().map(person));
    match event.r#type() {
        EventType::Unidentified => words.extend(event.decision.as_ref().map(|decision| why_unknown(decision.rejection()).to_owned())),
        EventType::GalleryChanged => words.push(format!("version {}", event.gallery_version)),
        EventType::EventCorrected if event.was_stranger => words.push("a stranger".into()),
        EventType::EventCorrected if event.subject.is_none() => {
            words.push(format!("not {}", event.previous_subject.as_ref().map(person).unwrap_or_default()));
        }
        EventType::IdentityRevised => words.push(format!("(was {})", event.previous_subject.as_ref().map(person).unwrap_or_default())),
        EventType::Entry | EventType::Exit if !event.region.is_empty() => words.push(format!("over {}", event.region)),
        EventType::ZoneEntered => words.push(event.region.clone()),
        EventType::ZoneLeft => {
            words.push(event.region.clone());
            words.extend(event.zone_dwell.and_then(|dwell| Duration::try_from(dwell).ok()).map(|dwell| format!("after {}", span(dwell))));
        }
        EventType::VisitEnded => {
            if event.subject.is_none() {
                words.push("unknown".into());
            }
            words.extend(ending(event));
        }
        _ => {}
    }
    words.extend(event.decision.as_ref().and_then(comparison));
    words.extend(event.live_score.map(|score| format!("live {}", liveness(Some(score), event.suspected_attack))));
    // For a decision the delay counts; a visit that begins or ends has none worth telling.
    if event.decision.is_some() {
        words.extend(between(event.capture_time.as_ref(), event.decision_time.as_ref()).map(span));
    }
    if !event.message.is_empty() {
        words.push(format!("({})", event.message));
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn person(subject: &pb::EventSubject) -> String {
    if subject.erased {
        return format!("(erased person {})", subject.uid);
    }
    who(&subject.id, &subject.display_name)
}

/// `similarity 0.71 ≥ 0.363 (of 2)`.
fn comparison(decision: &pb::Decision) -> Option<String> {
    let similarity = decision.similarity?;
    let sign = if similarity >= decision.threshold { '≥' } else { '<' };
    // Where the target is not kept, whoever only reads lines must know as well.
    let warning = if decision.basis() == pb::ThresholdBasis::Unsupported { ", target rate not supported" } else { "" };
    Some(format!("similarity {similarity:.2} {sign} {:.3} (of {}{warning})", decision.threshold, decision.gallery_subject_count))
}

fn ending(event: &pb::Event) -> Option<String> {
    let lasted =
        event.visit_duration.and_then(|duration| Duration::try_from(duration).ok()).map(|duration| format!("after {}", span(duration)));
    let reason = match event.visit_end_reason() {
        pb::VisitEndReason::Unspecified | pb::VisitEndReason::Gone => None,
        pb::VisitEndReason::Resumed => Some("(resumed)"),
        pb::VisitEndReason::CameraOffline => Some("(camera offline)"),
        pb::VisitEndReason::CameraRemoved => Some("(camera removed)"),
        pb::VisitEndReason::DaemonRestarted => Some("(daemon restarted)"),
    };
    let words: Vec<String> = lasted.into_iter().chain(reason.map(str::to_owned)).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    fn event(kind: EventType) -> pb::Event {
        pb::Event {
            r#type: kind.into(),
            camera_id: "front-door".into(),
            capture_time: Some(Timestamp { seconds: 1_795_460_401, nanos: 0 }),
            decision_time: Some(Timestamp { seconds: 1_795_460_401, nanos: 180_000_000 }),
            ..pb::Event::default()
        }
    }

    fn decision(similarity: f32, rejection: pb::IdentificationRejection) -> pb::Decision {
        let rejection = rejection.into();
        pb::Decision { similarity: Some(similarity), threshold: 0.363, gallery_subject_count: 2, rejection, ..pb::Decision::default() }
    }

    #[test]
    fn somebody_identified_is_told_with_what_the_decision_rests_on() {
        let subject = pb::EventSubject { id: "anna".into(), display_name: "Anna K.".into(), ..pb::EventSubject::default() };
        let decision = decision(0.713, pb::IdentificationRejection::Unspecified);
        let event = pb::Event { subject: Some(subject), decision: Some(decision), ..event(EventType::Identified) };
        assert_eq!(line(&event), "2026-11-23T19:00:01Z front-door IDENTIFIED anna \"Anna K.\" similarity 0.71 ≥ 0.363 (of 2) 180 ms");
    }

    #[test]
    fn a_stranger_is_told_with_the_reason() {
        let decision = decision(0.2, pb::IdentificationRejection::BelowThreshold);
        let told = line(&pb::Event { decision: Some(decision), ..event(EventType::Unidentified) });
        let expected = "UNIDENTIFIED unknown (nobody is close enough) similarity 0.20 < 0.363 (of 2) 180 ms";
        assert!(told.ends_with(expected), "{told}");
    }

    #[test]
    fn whoever_looks_like_a_picture_is_told_so_named_or_not() {
        let subject = Some(pb::EventSubject { id: "anna".into(), ..pb::EventSubject::default() });
        let decision = decision(0.713, pb::IdentificationRejection::Unspecified);
        let named = pb::Event { subject, decision: Some(decision.clone()), ..event(EventType::Identified) };
        let alive = line(&pb::Event { live_score: Some(0.953), ..named.clone() });
        assert!(alive.ends_with("IDENTIFIED anna similarity 0.71 ≥ 0.363 (of 2) live 0.95 180 ms"), "{alive}");
        let suspected = line(&pb::Event { live_score: Some(0.018), suspected_attack: true, ..named });
        assert!(suspected.ends_with("(of 2) live 0.02 (looks like a picture) 180 ms"), "{suspected}");
        let rejection = pb::IdentificationRejection::SuspectedAttack.into();
        let refused = pb::Decision { rejection, ..decision };
        let refused =
            pb::Event { decision: Some(refused), live_score: Some(0.018), suspected_attack: true, ..event(EventType::Unidentified) };
        assert!(
            line(&refused).contains("UNIDENTIFIED unknown (looks like a picture that is held up) similarity 0.71"),
            "{}",
            line(&refused)
        );
    }

    #[test]
    fn an_erased_person_has_no_name() {
        let subject = pb::EventSubject { uid: "u-1".into(), erased: true, ..pb::EventSubject::default() };
        let told = line(&pb::Event { subject: Some(subject), ..event(EventType::VisitEnded) });
        assert_eq!(told, "2026-11-23T19:00:01Z front-door VISIT_ENDED (erased person u-1)");
    }

    #[test]
    fn a_camera_that_is_gone_is_told_with_its_reason() {
        let told = line(&pb::Event { message: "nobody answers".into(), ..event(EventType::CameraOffline) });
        assert_eq!(told, "2026-11-23T19:00:01Z front-door CAMERA_OFFLINE (nobody answers)");
    }

    #[test]
    fn the_end_of_a_visit_says_how_long_it_was_and_why_it_ended() {
        let visit_duration = Some(prost_types::Duration { seconds: 4, nanos: 200_000_000 });
        let visit_end_reason = pb::VisitEndReason::CameraOffline.into();
        let told = line(&pb::Event { visit_duration, visit_end_reason, ..event(EventType::VisitEnded) });
        assert!(told.ends_with("VISIT_ENDED unknown after 4.2 s (camera offline)"), "{told}");
    }
}
