//! `CheckGallery`: the gallery is looked through while the client reads.
//!
//! In: a threshold. Out: findings, a page of subjects at a time; the next page is looked at when the
//! client has taken the one before, and not at all once it has left.
//! One check at a time takes a core; others wait, for a page.
//! Must not know: how likeness is found.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Request, Status};

use super::outgoing::Outgoing;
use super::status::stopping;
use super::{Shared, auth};
use crate::enrol::{EnrolError, Findings, LookAlike, Misfit};
use crate::pb::{self, CheckGalleryRequest, CheckGalleryResponse};

/// Begins a check.
pub(super) fn start(shared: &Arc<Shared>, request: Request<CheckGalleryRequest>) -> Outgoing<CheckGalleryResponse> {
    let (shared, admission) = (Arc::clone(shared), auth::admission(&request));
    let threshold = request.into_inner().threshold;
    Outgoing::spawn(|out| async move {
        tokio::select! {
            outcome = check(&shared, threshold, out) => outcome.map_or_else(Status::from, |()| Status::ok("")),
            () = shared.stopping.cancelled() => stopping().into(),
            () = auth::revoked(admission) => auth::no_longer_admitted(),
        }
    })
}

async fn check(shared: &Shared, threshold: Option<f32>, out: mpsc::Sender<CheckGalleryResponse>) -> Result<(), EnrolError> {
    let (enrolment, mut after, mut subjects_checked) = (&shared.parts.enrolment, None, 0);
    loop {
        // A turn each page: a client that does not read holds nobody up.
        let turn = shared.check_turn.lock().await;
        let Findings { look_alikes, misfits, subjects, last, .. } = enrolment.check(after, threshold).await?;
        drop(turn);
        subjects_checked += subjects as u64;
        let response = CheckGalleryResponse {
            look_alikes: look_alikes.iter().map(look_alike).collect(),
            misfits: misfits.into_iter().map(misfit).collect(),
            subjects_checked,
            // Those who were enrolled meanwhile are looked at as well, where their turn is still to come.
            subject_count: enrolment.subject_count().max(subjects_checked),
        };
        if out.send(response).await.is_err() || last.is_none() {
            return Ok(());
        }
        after = last;
    }
}

fn look_alike(found: &LookAlike) -> pb::LookAlike {
    pb::LookAlike {
        subject_id: found.subject.to_string(),
        sample_id: found.sample.0.to_string(),
        other_subject_id: found.other.to_string(),
        similarity: found.similarity,
    }
}

fn misfit(found: Misfit) -> pb::Misfit {
    pb::Misfit {
        subject_id: found.subject.to_string(),
        sample_id: found.sample.0.to_string(),
        folder_path: found.folder_path.unwrap_or_default(),
        similarity: found.similarity,
    }
}
