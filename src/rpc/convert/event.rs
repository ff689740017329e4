//! Events as they are delivered: their place in the order and today's names joined to them.
//!
//! In: logged events, the gallery. Out: wire events. An event holds a subject's random uid only;
//! who it is called is looked up now, so after erasure it shows an erased subject, and the
//! pictures, which are gone, are no longer named.
//! Must not know: subscribers, filters.

use std::sync::Arc;
use std::time::Duration;

use super::super::page::cursor;
use super::camera::normalised_box;
use super::policy::{wire_basis, wire_purpose, wire_scope};
use super::{candidate, duration, rejection, time};
use crate::clock::Timestamp;
use crate::event::{Decision, EndReason, Event, EventKind, LoggedEvent, ShotCounts, StageTimes};
use crate::gallery::Gallery;
use crate::pb;
use crate::subject::{Subject, SubjectUid};

/// The wire's name of a kind of event.
pub(in super::super) fn event_type(kind: EventKind) -> pb::EventType {
    match kind {
        EventKind::VisitStarted => pb::EventType::VisitStarted,
        EventKind::Identified => pb::EventType::Identified,
        EventKind::Unidentified => pb::EventType::Unidentified,
        EventKind::IdentityRevised => pb::EventType::IdentityRevised,
        EventKind::Reasserted => pb::EventType::Reasserted,
        EventKind::Entry => pb::EventType::Entry,
        EventKind::Exit => pb::EventType::Exit,
        EventKind::ZoneEntered => pb::EventType::ZoneEntered,
        EventKind::ZoneLeft => pb::EventType::ZoneLeft,
        EventKind::VisitEnded => pb::EventType::VisitEnded,
        EventKind::EventCorrected => pb::EventType::EventCorrected,
        EventKind::GalleryChanged => pb::EventType::GalleryChanged,
        EventKind::InferenceFailed => pb::EventType::InferenceFailed,
        EventKind::InferenceRestored => pb::EventType::InferenceRestored,
        EventKind::CameraOnline => pb::EventType::CameraOnline,
        EventKind::CameraOffline => pb::EventType::CameraOffline,
    }
}

/// The kind that the wire's name stands for; `None` for those that no camera tells.
pub(in super::super) fn event_kind(wire: pb::EventType) -> Option<EventKind> {
    Some(match wire {
        pb::EventType::VisitStarted => EventKind::VisitStarted,
        pb::EventType::Identified => EventKind::Identified,
        pb::EventType::Reasserted => EventKind::Reasserted,
        pb::EventType::Unidentified => EventKind::Unidentified,
        pb::EventType::IdentityRevised => EventKind::IdentityRevised,
        pb::EventType::Entry => EventKind::Entry,
        pb::EventType::Exit => EventKind::Exit,
        pb::EventType::ZoneEntered => EventKind::ZoneEntered,
        pb::EventType::ZoneLeft => EventKind::ZoneLeft,
        pb::EventType::VisitEnded => EventKind::VisitEnded,
        pb::EventType::Unspecified
        | pb::EventType::CameraOnline
        | pb::EventType::CameraOffline
        | pb::EventType::GalleryChanged
        | pb::EventType::InferenceFailed
        | pb::EventType::InferenceRestored
        | pb::EventType::EventCorrected => return None,
    })
}

/// `logged` as it is delivered now; `subject` is what the gallery knows of its subject.
pub(in super::super) fn event(logged: &LoggedEvent, subject: Option<&Arc<Subject>>, gallery: &Gallery) -> pb::Event {
    let event = &*logged.event;
    let erased = event.subject.is_some() && subject.is_none();
    let lasted = event.duration_ms.map(|ms| duration(Duration::from_millis(ms)));
    pb::Event {
        sequence: logged.sequence,
        epoch: logged.epoch.to_string(),
        cursor: cursor(logged.epoch, logged.sequence),
        r#type: event_type(event.kind).into(),
        camera_id: event.camera.to_string(),
        visit_id: event.visit.map(|visit| visit.0.to_string()).unwrap_or_default(),
        track_id: event.track.map_or(0, |track| track.0),
        capture_time: Some(micros(event.capture_time_us)),
        decision_time: Some(micros(event.decision_time_us)),
        // Whoever was erased after the decision opens no door by it.
        actionable_until: Some(micros(if erased { event.capture_time_us } else { event.actionable_until_us })),
        subject: event.subject.map(|uid| event_subject(uid, subject)),
        previous_subject: event.previous_subject.map(|uid| event_subject(uid, gallery.subject(uid).as_ref())),
        conflicting_visit_id: event.conflicting_visit.map(|visit| visit.0.to_string()).unwrap_or_default(),
        decision: event.decision.as_ref().map(|made| decision(made, &event.shots, gallery)),
        box_in_frame: event.box_in_frame.map(normalised_box),
        detection_score: event.detection_score,
        quality: event.quality,
        snapshot_id: event.snapshot.filter(|_| !erased).map(|id| id.0.to_string()).unwrap_or_default(),
        live_score: event.live_score,
        suspected_attack: event.suspected_attack,
        stage_times: event.stage_times.map(|times| stage_times(times, logged, event)),
        visit_end_reason: end_reason(event.end_reason).into(),
        visit_duration: lasted.filter(|_| event.kind != EventKind::ZoneLeft),
        zone_dwell: lasted.filter(|_| event.kind == EventKind::ZoneLeft),
        gallery_version: event.gallery_version.unwrap_or_default(),
        corrected_cursor: event.corrects.map(|sequence| cursor(logged.epoch, sequence)).unwrap_or_default(),
        was_stranger: event.was_stranger,
        region: event.region.as_deref().unwrap_or_default().to_owned(),
        message: event.message.clone().unwrap_or_default(),
    }
}

fn micros(us: i64) -> prost_types::Timestamp {
    time(Timestamp::from_micros(us))
}

pub(in super::super) fn event_subject(uid: SubjectUid, known: Option<&Arc<Subject>>) -> pb::EventSubject {
    let uid = uid.0.to_string();
    match known {
        Some(subject) => pb::EventSubject {
            uid,
            id: subject.id.to_string(),
            display_name: subject.display_name.clone(),
            watchlists: subject.watchlists.clone(),
            erased: false,
        },
        None => pb::EventSubject { uid, erased: true, ..pb::EventSubject::default() },
    }
}

pub(in super::super) fn decision(decision: &Decision, shots: &ShotCounts, gallery: &Gallery) -> pb::Decision {
    pb::Decision {
        purpose: wire_purpose(decision.purpose).into(),
        similarity: decision.similarity,
        threshold: decision.threshold,
        target_rate: decision.target_rate,
        rejection: rejection(decision.rejection).into(),
        runner_up: decision.runner_up.map(|second| candidate(&second, gallery)),
        margin: decision.margin,
        gallery_subject_count: decision.gallery_subjects,
        gallery_version: decision.gallery_version,
        template_space: decision.space.clone(),
        shots_fused: shots.fused,
        shots_rejected: shots.rejected.clone().into_iter().collect(),
        expected_rate: decision.expected_rate,
        basis: wire_basis(decision.basis).into(),
        scope: wire_scope(decision.scope).into(),
        head: decision.head.clone().unwrap_or_default(),
    }
}

fn stage_times(times: StageTimes, logged: &LoggedEvent, event: &Event) -> pb::StageTimes {
    let published = logged.log_time.since(Timestamp::from_micros(event.decision_time_us));
    pb::StageTimes {
        decode_ms: times.decode_ms,
        wait_ms: times.wait_ms,
        detect_ms: times.detect_ms,
        encode_ms: times.encode_ms,
        match_ms: times.match_ms,
        decide_ms: times.decide_ms,
        publish_ms: published.as_secs_f32() * 1_000.0,
    }
}

fn end_reason(reason: Option<EndReason>) -> pb::VisitEndReason {
    match reason {
        None => pb::VisitEndReason::Unspecified,
        Some(EndReason::Gone) => pb::VisitEndReason::Gone,
        Some(EndReason::Resumed) => pb::VisitEndReason::Resumed,
        Some(EndReason::CameraOffline) => pb::VisitEndReason::CameraOffline,
        Some(EndReason::CameraRemoved) => pb::VisitEndReason::CameraRemoved,
        Some(EndReason::DaemonRestarted) => pb::VisitEndReason::DaemonRestarted,
    }
}
