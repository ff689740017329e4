//! `ReencodeGallery`: templates for another encoder, with their progress.
//!
//! In: an encoder's name. Out: what enrolment tells. It ends when its caller leaves; what was made is kept.
//! Must not know: encoders.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::Shared;
use super::auth;
use super::convert::duration;
use super::outgoing::Outgoing;
use super::status::stopping;
use crate::enrol::{Enrolment, ReencodeStep};
use crate::pb;
use crate::pb::reencode_gallery_response::Step;
use crate::pb::{ReencodeGalleryRequest, ReencodeGalleryResponse};

/// Steps that wait for the client to read them; the work waits when there are more.
const STEPS_WAITING_MAX: usize = 16;

/// Starts the making of templates.
pub(super) fn reencode(
    shared: &Arc<Shared>,
    request: Request<ReencodeGalleryRequest>,
) -> Result<Response<Outgoing<ReencodeGalleryResponse>>, Status> {
    let admission = auth::admission(&request);
    let place = shared.operator_place()?;
    let (shared, encoder) = (Arc::clone(shared), request.into_inner().encoder);
    Ok(Response::new(Outgoing::spawn(|out| async move {
        let _place = place;
        tokio::select! {
            outcome = run(&shared.parts.enrolment, &encoder, out) => outcome.err().unwrap_or_else(|| Status::ok("")),
            () = shared.stopping.cancelled() => stopping().into(),
            () = auth::revoked(admission) => auth::no_longer_admitted(),
        }
    })))
}

async fn run(enrolment: &Enrolment, encoder: &str, out: mpsc::Sender<ReencodeGalleryResponse>) -> Result<(), Status> {
    let (tell, mut steps) = mpsc::channel(STEPS_WAITING_MAX);
    let forward = async {
        while let Some(step) = steps.recv().await {
            // A client that is gone ends the whole task.
            let _ = out.send(ReencodeGalleryResponse { step: Some(step_of(step)) }).await;
        }
    };
    let (report, ()) = tokio::join!(enrolment.reencode(encoder, tell), forward);
    let report = report?;
    let step = Step::Report(pb::ReencodeReport {
        template_space: report.space.to_string(),
        in_force: report.is_in_force,
        templates_made: report.made,
        templates_present: report.present,
        samples_refused: report.refused,
        subjects_lacking: report.subjects_lacking,
    });
    let _ = out.send(ReencodeGalleryResponse { step: Some(step) }).await;
    Ok(())
}

fn step_of(step: ReencodeStep) -> Step {
    match step {
        ReencodeStep::Progress(progress) => Step::Progress(pb::ReencodeProgress {
            samples_done: progress.done,
            samples_total: progress.total,
            samples_per_second: progress.rate,
            time_left: Some(duration(progress.left)),
        }),
        ReencodeStep::Refused(refused) => Step::Refused(pb::RefusedTemplate {
            subject_id: refused.subject.map(|id| id.to_string()).unwrap_or_default(),
            sample_id: refused.sample.0.to_string(),
            reason: refused.reason.to_owned(),
            message: refused.message,
        }),
    }
}
