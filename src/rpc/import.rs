//! `ImportSubjects`: photos come in a stream and what became of each goes out in another.
//!
//! In: photos with whose they are. Out: results, as enrolment tells them.
//! At most [`IMPORTS_MAX`] imports at once, since each holds photos; one more is refused. Queues: one
//! photo to enrolment, one list of results from it; a full one waits, and with it the client.
//! Must not know: how photos are taken, the store.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt;

use super::Shared;
use super::auth;
use super::convert::subject::{fields, subject_id};
use super::outgoing::Outgoing;
use super::status::{Refusal, bad_field, explained, stopping};
use crate::enrol::{Allowed, Enrolment, ImportItem, ImportResult, Imported};
use crate::pb;
use crate::photo::PHOTO_BYTES_MAX;
use crate::subject::SUBJECT_ID_BYTES_MAX;

/// Imports at once.
pub(super) const IMPORTS_MAX: usize = 4;
/// The longest name of an item, in bytes: the longest path.
const KEY_BYTES_MAX: usize = 4096;
/// What a message may have beside its image: its key, all that can be stated of a subject, and framing.
const BESIDE_IMAGE_BYTES: usize = 96 << 10;

/// What goes out.
type Answers = mpsc::Sender<pb::ImportSubjectsResponse>;

/// Begins an import, or refuses it when there are too many.
pub(super) fn begin(
    shared: &Arc<Shared>,
    request: Request<Streaming<pb::ImportSubjectsRequest>>,
) -> Result<Response<Outgoing<pb::ImportSubjectsResponse>>, Status> {
    let place = shared.imports.clone().try_acquire_owned().map_err(|_| {
        let message = format!("there are {IMPORTS_MAX} imports already; try again when one has ended");
        Refusal::new(Code::ResourceExhausted, "TOO_MANY_IMPORTS", message)
    })?;
    let (shared, admission, photos) = (shared.clone(), auth::admission(&request), request.into_inner());
    Ok(Response::new(Outgoing::spawn(|answers| async move {
        let _place = place;
        let beside = BESIDE_IMAGE_BYTES.min(shared.message_bytes_max / 2);
        let image_bytes_max = PHOTO_BYTES_MAX.min(shared.message_bytes_max - beside) as u64;
        let first = pb::ImportSubjectsResponse { results: Vec::new(), image_bytes_max: Some(image_bytes_max) };
        if answers.send(first).await.is_err() {
            return Status::cancelled("the client has gone");
        }
        tokio::select! {
            status = import(&shared.parts.enrolment, photos, answers) => status,
            () = shared.stopping.cancelled() => stopping().into(),
            () = auth::revoked(admission) => auth::no_longer_admitted(),
        }
    })))
}

/// Takes photos until the client sends no more, and answers what was received, whyever it sends no more.
async fn import(enrolment: &Enrolment, photos: Streaming<pb::ImportSubjectsRequest>, answers: Answers) -> Status {
    let (items, received) = mpsc::channel(1);
    let (results, told) = mpsc::channel(1);
    let mut reading = pin!(read(photos, items, answers.clone()));
    let mut taking = pin!(async { tokio::join!(enrolment.import(received, results), tell(told, answers)).0 });
    let (read, taken) = tokio::select! {
        taken = &mut taking => (Ok(()), taken),
        read = &mut reading => (read, taking.await),
    };
    match (taken, read) {
        (Err(failed), _) => failed.into(),
        (Ok(()), Err(bad)) => bad,
        (Ok(()), Ok(())) => Status::ok(""),
    }
}

/// Hands photos over until there are no more. What cannot be understood is answered here.
async fn read(mut photos: Streaming<pb::ImportSubjectsRequest>, items: mpsc::Sender<ImportItem>, answers: Answers) -> Result<(), Status> {
    loop {
        let request = match photos.message().await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(broken) => return Err(explained(&broken)),
        };
        if request.item_key.len() > KEY_BYTES_MAX {
            return Err(bad_field("item_key", format!("it has {} bytes; give at most {KEY_BYTES_MAX}", request.item_key.len())).into());
        }
        // An id that is none may be of any length.
        let id = request.subject.iter().flat_map(|subject| subject.id.chars()).take(SUBJECT_ID_BYTES_MAX).collect();
        let named = (request.item_key.clone(), id);
        let goes_on = match item(request) {
            Ok(item) => items.send(item).await.is_ok(),
            Err(bad) => answers.send(answer(vec![refused(named, &bad)])).await.is_ok(),
        };
        if !goes_on {
            return Ok(());
        }
    }
}

fn item(request: pb::ImportSubjectsRequest) -> Result<ImportItem, Status> {
    let wire = request.subject.unwrap_or_default();
    let subject = subject_id(&wire.id, "subject.id")?;
    if request.image.is_empty() {
        return Err(bad_field("image", "is empty; give JPEG or PNG bytes").into());
    }
    let allowed = Allowed { duplicate: request.allow_duplicate, inconsistent: request.allow_inconsistent };
    Ok(ImportItem { key: request.item_key, subject, fields: fields(wire, None)?, photo: request.image.into(), allowed })
}

async fn tell(mut told: mpsc::Receiver<Vec<ImportResult>>, answers: Answers) {
    while let Some(results) = told.recv().await {
        if answers.send(answer(results.into_iter().map(result).collect())).await.is_err() {
            return;
        }
    }
}

fn answer(results: Vec<pb::ImportResult>) -> pb::ImportSubjectsResponse {
    pb::ImportSubjectsResponse { results, image_bytes_max: None }
}

fn result(result: ImportResult) -> pb::ImportResult {
    let (item_key, subject_id, gallery_version) = (result.key, result.subject.to_string(), result.version);
    let status = match result.outcome {
        Ok(Imported::Added) => pb::ImportStatus::Added,
        Ok(Imported::Unchanged) => pb::ImportStatus::Unchanged,
        Err(refusal) => return refused((item_key, subject_id), &refusal.into()),
    };
    pb::ImportResult { item_key, subject_id, status: status.into(), gallery_version, ..Default::default() }
}

fn refused((item_key, subject_id): (String, String), status: &Status) -> pb::ImportResult {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let (status, message) = (pb::ImportStatus::Refused.into(), status.message().to_owned());
    pb::ImportResult { item_key, subject_id, status, reason, message, gallery_version: 0 }
}
