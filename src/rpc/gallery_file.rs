//! `ImportGallery`: an exported gallery comes in over the wire.
//!
//! In: the file in chunks. Out: progress, refusals, the report. The file is kept in a nameless file of the
//! data directory until the import ends, since it is read more than once and may be larger than memory.
//! Must not know: the file's inside.

use std::io;
use std::sync::Arc;

use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::auth;
use super::outgoing::Outgoing;
use super::status::{Refusal, bad_field, explained, stopping};
use super::{RpcParts, Shared};
use crate::enrol::{ImportOptions, ImportReport, ImportStep, RefusedImport};
use crate::pb;
use crate::pb::import_gallery_request::Part;
use crate::pb::import_gallery_response::Step;
use crate::pb::{ImportGalleryRequest, ImportGalleryResponse};

/// Steps that wait for the client to read them; the import waits when there are more.
const STEPS_WAITING_MAX: usize = 16;

/// Starts an import, which ends when its caller leaves.
pub(super) fn import(
    shared: &Arc<Shared>,
    request: Request<Streaming<ImportGalleryRequest>>,
) -> Result<Response<Outgoing<ImportGalleryResponse>>, Status> {
    let admission = auth::admission(&request);
    let place = shared.operator_place()?;
    let (shared, incoming) = (Arc::clone(shared), request.into_inner());
    Ok(Response::new(Outgoing::spawn(|out| async move {
        let _place = place;
        tokio::select! {
            outcome = run(&shared.parts, incoming, out) => outcome.err().unwrap_or_else(|| Status::ok("")),
            () = shared.stopping.cancelled() => stopping().into(),
            () = auth::revoked(admission) => auth::no_longer_admitted(),
        }
    })))
}

async fn run(
    parts: &RpcParts,
    mut incoming: Streaming<ImportGalleryRequest>,
    out: mpsc::Sender<ImportGalleryResponse>,
) -> Result<(), Status> {
    let (options, file) = receive(parts, &mut incoming).await?;
    let (tell, mut steps) = mpsc::channel(STEPS_WAITING_MAX);
    let forward = async {
        while let Some(step) = steps.recv().await {
            // A client that is gone ends the whole task.
            let _ = out.send(ImportGalleryResponse { step: Some(step_of(step)) }).await;
        }
    };
    let (report, ()) = tokio::join!(parts.enrolment.import_gallery(file, options, tell), forward);
    let _ = out.send(ImportGalleryResponse { step: Some(Step::Report(report_of(&report?))) }).await;
    Ok(())
}

/// Writes what comes to a nameless file.
async fn receive(parts: &RpcParts, incoming: &mut Streaming<ImportGalleryRequest>) -> Result<(ImportOptions, std::fs::File), Status> {
    let failed = |error: io::Error| Status::from(parts.store.scratch_failure(&error));
    let mut file = File::from_std(parts.store.scratch_file()?);
    let (mut import, mut is_first) = (ImportOptions::default(), true);
    while let Some(request) = incoming.message().await.map_err(|error| explained(&error))? {
        match request.part {
            Some(Part::Options(options)) if is_first => {
                import = ImportOptions { dry_run: options.dry_run, allow_duplicate: options.allow_duplicate };
            }
            Some(Part::Options(_)) => return Err(bad_field("options", "must come first, and once").into()),
            Some(Part::Chunk(bytes)) => file.write_all(&bytes).await.map_err(failed)?,
            None => return Err(Refusal::invalid("BAD_FIELD", "a message holds neither options nor a chunk").into()),
        }
        is_first = false;
    }
    file.flush().await.map_err(failed)?;
    Ok((import, file.into_std().await))
}

fn step_of(step: ImportStep) -> Step {
    match step {
        ImportStep::Progress { done, total } => Step::Progress(pb::ImportProgress { subjects_done: done, subjects_total: total }),
        ImportStep::Refused(RefusedImport { subject, sample, reason, message }) => Step::Refused(pb::RefusedImport {
            subject_id: subject.to_string(),
            sample_id: sample.map(|sample| sample.0.to_string()).unwrap_or_default(),
            reason: reason.to_owned(),
            message,
        }),
    }
}

fn report_of(report: &ImportReport) -> pb::ImportReport {
    pb::ImportReport {
        gallery_version: report.version,
        subjects_imported: report.subjects_imported,
        samples_imported: report.samples_imported,
        subjects_present: report.subjects_present,
        subjects_refused: report.subjects_refused,
        samples_refused: report.samples_refused,
        foreign_templates: report.foreign_templates,
    }
}
