//! An operator says who it was, or was not.
//!
//! In: an event's cursor and the verdict. Out: a new event that says so; the past is not rewritten. On
//! request the event's best shot becomes a sample of whom it showed, a negative sample of whom it did
//! not show, or a new person.
//! Must not know: how photos are judged.

use tonic::{Code, Status};

use super::Shared;
use super::convert::subject::{fields, subject_id};
use super::convert::{request_id, request_key};
use super::page::{cursor, place};
use super::status::{Refusal, bad_field};
use crate::enrol::{Allowed, EnrolError, NewSample, NewSubject, SampleInput};
use crate::event::{Event, EventKind, LoggedEvent};
use crate::event_log::EventLogError;
use crate::pb::correct_event_request::Verdict;
use crate::pb::{self, CorrectEventRequest, CorrectEventResponse};
use crate::store::{RequestKey, StoreError};
use crate::subject::{SubjectId, SubjectUid};

/// The longest note.
const NOTE_BYTES_MAX: usize = 1_024;

/// What a correction says of the person, and what became of the gallery by it.
struct Corrected {
    subject: Option<SubjectUid>,
    subject_id: String,
    gallery_version: u64,
}

/// Carries out `request`, to the end though its caller may leave.
pub(super) async fn correct(shared: &Shared, mut request: CorrectEventRequest) -> Result<CorrectEventResponse, Status> {
    let id = std::mem::take(&mut request.request_id);
    let (key, id) = (request_key(("events", "CorrectEvent"), &id, &request)?, request_id(&id)?);
    if request.note.len() > NOTE_BYTES_MAX || request.note.chars().any(char::is_control) {
        return Err(bad_field("note", format!("has more than {NOTE_BYTES_MAX} bytes, or control characters")).into());
    }
    let original = original(shared, &request).await?;
    if let Some(key) = &key
        && shared.parts.store.request_answer(&key.key).await?.is_some()
    {
        // What is no repeat must not change the gallery.
        first_answer(shared, Some(key)).await?;
    }
    let corrected = apply(shared, &request, &original, &id).await?;
    let mut event = Event::new(EventKind::EventCorrected, &original.event.camera, shared.parts.clock.now());
    // It is about the picture of then, and opens no door.
    event.capture_time_us = original.event.capture_time_us;
    event.actionable_until_us = event.capture_time_us;
    (event.visit, event.track) = (original.event.visit, original.event.track);
    (event.subject, event.previous_subject) = (corrected.subject, original.event.subject);
    event.was_stranger = matches!(request.verdict, Some(Verdict::WasStranger(_)));
    (event.snapshot, event.corrects) = (original.event.snapshot, Some(original.sequence));
    event.message = Some(request.note).filter(|note| !note.is_empty());
    let sequence = match shared.parts.events.append_once(event, key.clone()).await {
        Err(EventLogError::Store(StoreError::RequestRepeated)) => first_answer(shared, key.as_ref()).await?,
        outcome => outcome.map_err(Refusal::from)?,
    };
    let logged = shared.parts.store.event(sequence).await?;
    Ok(CorrectEventResponse {
        event: logged.map(|logged| super::delivered(&logged, &shared.parts.gallery)),
        subject_id: corrected.subject_id,
        gallery_version: corrected.gallery_version,
    })
}

async fn original(shared: &Shared, request: &CorrectEventRequest) -> Result<LoggedEvent, Status> {
    let at = place(&request.cursor, "cursor")?;
    let is_of_the_named = match request.verdict {
        Some(Verdict::WasNot(_)) => true,
        Some(Verdict::WasStranger(_)) => request.use_snapshot,
        _ => false,
    };
    let store = &shared.parts.store;
    let mut found = if at.epoch == store.epoch() { store.event(at.sequence).await? } else { None };
    // What is said of a correction is said of the event that it was about.
    while let Some(first) = found.as_ref().and_then(|logged| logged.event.corrects) {
        // But for what concerns whom it names, who need not be whom that event names.
        if is_of_the_named {
            let message =
                format!("it is a correction itself: say who it was, or correct the event that it is about, {}", cursor(at.epoch, first));
            return Err(Refusal::new(Code::FailedPrecondition, "EVENT_IS_A_CORRECTION", message).field("cursor").into());
        }
        found = store.event(first).await?;
    }
    let found = found.filter(|logged| logged.event.visit.is_some());
    found.ok_or_else(|| {
        let message = "there is no such event of a visit, or it is no longer kept";
        Refusal::new(Code::NotFound, "EVENT_NOT_FOUND", message).with("sequence", at.sequence).into()
    })
}

/// What the gallery is to learn of it.
async fn apply(shared: &Shared, request: &CorrectEventRequest, original: &LoggedEvent, request_id: &str) -> Result<Corrected, Status> {
    let gallery = &shared.parts.gallery;
    let shot = || original.event.snapshot.map(SampleInput::Snapshot).ok_or_else(|| Status::from(no_picture()));
    let allowed = Allowed { duplicate: request.allow_duplicate, inconsistent: request.allow_inconsistent };
    match &request.verdict {
        None => {
            let message = "say who it was (was_subject_id), that it was not the one named (was_not) or nobody enrolled (was_stranger), or who to enrol";
            Err(bad_field("verdict", message).into())
        }
        Some(Verdict::WasSubjectId(id)) => {
            let id = subject_id(id, "was_subject_id")?;
            let subject = shared.parts.enrolment.subject(&id).await?.0;
            let version = if request.use_snapshot {
                sample(shared, (&id, shot()?, false), allowed, request_id).await?
            } else {
                gallery.current().version()
            };
            Ok(Corrected { subject: Some(subject.uid), subject_id: id.to_string(), gallery_version: version })
        }
        Some(verdict @ (Verdict::WasNot(_) | Verdict::WasStranger(_))) => {
            let named = original.event.subject.and_then(|uid| gallery.subject(uid));
            if let (None, Verdict::WasStranger(_), false) = (&named, verdict, request.use_snapshot) {
                return Ok(Corrected { subject: None, subject_id: String::new(), gallery_version: gallery.current().version() });
            }
            let Some(named) = named else {
                let message = "the event names nobody who is enrolled: there is nothing that it was not";
                return Err(Refusal::new(Code::FailedPrecondition, "EVENT_NAMES_NOBODY", message).field("was_not").into());
            };
            let version = if request.use_snapshot {
                sample(shared, (&named.id, shot()?, true), allowed, request_id).await?
            } else {
                gallery.current().version()
            };
            Ok(Corrected { subject: None, subject_id: named.id.to_string(), gallery_version: version })
        }
        Some(Verdict::NewSubject(wire)) => enrol(shared, wire.clone(), (shot()?, allowed), request_id).await,
    }
}

async fn sample(
    shared: &Shared,
    (id, shot, negative): (&SubjectId, SampleInput, bool),
    allowed: Allowed,
    request_id: &str,
) -> Result<u64, Status> {
    let new = NewSample { subject: id.clone(), sample: shot, negative, allowed, request_id: request_id.to_owned() };
    Ok(shared.parts.enrolment.create_sample(new).await?.version)
}

async fn enrol(shared: &Shared, wire: pb::Subject, (shot, allowed): (SampleInput, Allowed), request_id: &str) -> Result<Corrected, Status> {
    let id = if wire.id.is_empty() { None } else { Some(subject_id(&wire.id, "new_subject.id")?) };
    let new = NewSubject { id, fields: fields(wire, None)?, samples: vec![shot], allowed, request_id: request_id.to_owned() };
    let enrolled = shared.parts.enrolment.create_subject(new).await?;
    let subject = enrolled.subject.as_ref();
    Ok(Corrected {
        subject: subject.map(|subject| subject.uid),
        subject_id: subject.map(|subject| subject.id.to_string()).unwrap_or_default(),
        gallery_version: enrolled.version,
    })
}

fn no_picture() -> Refusal {
    let message = "no picture of the event was kept: enrol a photo instead, or correct it without use_snapshot";
    Refusal::new(Code::FailedPrecondition, "SNAPSHOT_NOT_FOUND", message).field("use_snapshot")
}

/// The event that the same request was answered with before.
async fn first_answer(shared: &Shared, request: Option<&RequestKey>) -> Result<u64, Status> {
    let reused = || Status::from(EnrolError::RequestReused);
    let request = request.ok_or_else(reused)?;
    let answer = shared.parts.store.request_answer(&request.key).await?.unwrap_or_default();
    let (sequence, asked) = answer.split_first_chunk().ok_or_else(reused)?;
    if asked == request.asked { Ok(u64::from_le_bytes(*sequence)) } else { Err(reused()) }
}
