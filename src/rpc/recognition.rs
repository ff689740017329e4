//! `RecognitionService`: questions about one picture.
//!
//! In: a picture. Out: its faces, who they are or may be. Nothing is stored.
//! Must not know: how anything is found.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Shared;
use super::convert::policy::{wire_basis, wire_scope};
use super::convert::subject::subject_id;
use super::convert::{candidate, candidates_max, face, rejection};
use super::status::bad_field;
use crate::event::{Candidate, Decision};
use crate::pb;
use crate::pb::recognition_service_server::RecognitionService;
use crate::pb::{
    DetectFacesRequest, DetectFacesResponse, IdentifyRequest, IdentifyResponse, SearchRequest, SearchResponse, VerifyRequest,
    VerifyResponse,
};
use crate::photo::PhotoFace;
use crate::recognise::{Claim, Wanted};

const WATCHLISTS_MAX: usize = 1_000;

/// The service.
pub(super) struct RecognitionApi(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl RecognitionService for RecognitionApi {
    async fn detect_faces(&self, request: Request<DetectFacesRequest>) -> Result<Response<DetectFacesResponse>, Status> {
        let (size, faces) = self.0.parts.recogniser.detect(picture(&request.get_ref().image, "image")?).await?;
        let faces = faces.iter().map(face).collect();
        Ok(Response::new(DetectFacesResponse { faces, image_width: size.width, image_height: size.height }))
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        use pb::verify_request::Claim as Wire;
        let request = request.get_ref();
        let probe = picture(&request.image, "image")?;
        let claim = match &request.claim {
            Some(Wire::SubjectId(id)) => {
                let id = subject_id(id, "subject_id")?;
                let (subject, _) = self.0.parts.enrolment.subject(&id).await?;
                Claim::Subject(subject.uid, subject.id.to_string())
            }
            Some(Wire::OtherImage(image)) => Claim::OtherImage(picture(image, "other_image")?),
            None => return Err(bad_field("claim", "needs a subject_id or another picture").into()),
        };
        let verified = self.0.parts.recogniser.verify(probe, claim).await?;
        Ok(Response::new(VerifyResponse {
            r#match: verified.matched,
            similarity: verified.similarity,
            threshold: verified.in_force.threshold,
            target_fmr: verified.in_force.target_rate,
            expected_fmr: verified.in_force.expected_rate,
            basis: wire_basis(Some(verified.in_force.basis)).into(),
            scope: wire_scope(Some(verified.in_force.scope)).into(),
            head: verified.head.to_owned(),
            score: verified.score,
            templates_compared: verified.templates,
            face: Some(face(&verified.face)),
            template_space: verified.space.to_string(),
            gallery_version: verified.gallery_version,
            closer_to_negative: verified.is_somebody_else,
            suspected_attack: verified.suspected_attack,
        }))
    }

    async fn identify(&self, request: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        let request = request.get_ref();
        let count = candidates_max(request.candidates_max, 5, 100)?;
        let identified = self.0.parts.recogniser.identify(picture(&request.image, "image")?, count).await?;
        let expected_fpir = identified.faces.first().and_then(|(_, decision, _)| decision.expected_rate);
        Ok(Response::new(IdentifyResponse {
            identifications: identified
                .faces
                .iter()
                .map(|(face, decision, closest)| self.identification(face, decision, closest))
                .collect(),
            gallery_subject_count: identified.gallery_subjects,
            gallery_version: identified.gallery_version,
            expected_fpir,
            template_space: identified.space.to_string(),
            image_width: identified.size.width,
            image_height: identified.size.height,
        }))
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        let request = request.get_ref();
        let count = candidates_max(request.candidates_max, 10, 1_000)?;
        if request.watchlists.len() > WATCHLISTS_MAX {
            return Err(bad_field("watchlists", format!("has more than {WATCHLISTS_MAX} entries")).into());
        }
        let wanted = Wanted { candidates_max: count, watchlists: request.watchlists.iter().cloned().collect() };
        let found = self.0.parts.recogniser.search(picture(&request.image, "image")?, wanted).await?;
        Ok(Response::new(SearchResponse {
            face: Some(face(&found.face)),
            candidates: self.candidates(&found.candidates),
            gallery_version: found.gallery_version,
        }))
    }
}

impl RecognitionApi {
    fn candidates(&self, closest: &[Candidate]) -> Vec<pb::Candidate> {
        closest.iter().map(|c| candidate(c, &self.0.parts.gallery)).collect()
    }

    fn identification(&self, seen: &PhotoFace, decision: &Decision, closest: &[Candidate]) -> pb::Identification {
        let matched = decision.subject.map(|subject| Candidate { subject, similarity: decision.similarity.unwrap_or(0.0) });
        pb::Identification {
            face: Some(face(seen)),
            subject: matched.map(|m| candidate(&m, &self.0.parts.gallery)),
            rejection: rejection(decision.rejection).into(),
            candidates: self.candidates(closest),
            threshold: decision.threshold,
            target_fpir: decision.target_rate,
            expected_fpir: decision.expected_rate,
            basis: wire_basis(decision.basis).into(),
            scope: wire_scope(decision.scope).into(),
            head: decision.head.clone().unwrap_or_default(),
            suspected_attack: self.0.parts.recogniser.suspects(seen),
        }
    }
}

fn picture<'a>(image: &'a [u8], field: &str) -> Result<&'a [u8], Status> {
    if image.is_empty() { Err(bad_field(field, "is empty; give JPEG or PNG bytes").into()) } else { Ok(image) }
}
