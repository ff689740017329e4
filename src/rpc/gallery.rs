//! `GalleryService`: who is known.
//!
//! In: requests about subjects and samples. Out: what enrolment answers.
//! Changes run to their end although their caller leaves.
//! Must not know: photos' insides, templates, the store.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Shared;
use super::convert::subject::{fields, sample, sample_input, subject, subject_id};
use super::convert::{request_id, time, uuid};
use super::outgoing::to_the_end;
use super::page::{Page, bad_token};
use crate::enrol::{NewSample, NewSubject, ReloadReport, SubjectUpdate};
use crate::pb::gallery_service_server::GalleryService;
use crate::pb::{
    CreateSampleRequest, CreateSampleResponse, CreateSubjectRequest, CreateSubjectResponse, DeleteSampleRequest, DeleteSampleResponse,
    DeleteSubjectRequest, DeleteSubjectResponse, GetGalleryRequest, GetGalleryResponse, GetSubjectRequest, GetSubjectResponse,
    ListSamplesRequest, ListSamplesResponse, ListSubjectsRequest, ListSubjectsResponse, RefusedFile, ReloadGalleryRequest,
    ReloadGalleryResponse, UpdateSubjectRequest, UpdateSubjectResponse,
};
use crate::subject::SampleId;

/// The service.
pub(super) struct GalleryApi(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl GalleryService for GalleryApi {
    async fn create_subject(&self, request: Request<CreateSubjectRequest>) -> Result<Response<CreateSubjectResponse>, Status> {
        let request = request.into_inner();
        let wire = request.subject.unwrap_or_default();
        let id = if wire.id.is_empty() { None } else { Some(subject_id(&wire.id, "subject.id")?) };
        let samples = request.samples.into_iter().enumerate();
        let samples = samples.map(|(n, source)| sample_input(Some(source), &format!("samples[{n}]"))).collect::<Result<_, _>>()?;
        let (fields, request_id) = (fields(wire, None)?, request_id(&request.request_id)?);
        let new = NewSubject { id, fields, samples, allow_duplicate: request.allow_duplicate, request_id };
        let enrolment = self.0.parts.enrolment.clone();
        let enrolled = to_the_end(async move { enrolment.create_subject(new).await }).await?;
        let count = u32::try_from(enrolled.samples.len()).unwrap_or(u32::MAX);
        Ok(Response::new(CreateSubjectResponse {
            subject: enrolled.subject.as_ref().map(|s| subject(s, count)),
            samples: enrolled.samples.iter().map(sample).collect(),
            gallery_version: enrolled.version,
        }))
    }

    async fn get_subject(&self, request: Request<GetSubjectRequest>) -> Result<Response<GetSubjectResponse>, Status> {
        let id = subject_id(&request.get_ref().id, "id")?;
        let (found, samples) = self.0.parts.enrolment.subject(&id).await?;
        Ok(Response::new(GetSubjectResponse { subject: Some(subject(&found, samples)) }))
    }

    async fn list_subjects(&self, request: Request<ListSubjectsRequest>) -> Result<Response<ListSubjectsResponse>, Status> {
        let request = request.into_inner();
        let query = format!("subjects/{}", request.watchlist);
        let page = Page::read(request.page_size, &request.page_token, &query)?;
        let after = page.after.as_deref().map(|id| subject_id(id, "page_token")).transpose()?;
        let watchlist = (!request.watchlist.is_empty()).then_some(request.watchlist);
        let mut found = self.0.parts.enrolment.subjects(after, watchlist, page.size + 1).await?;
        let next_page_token = page.cut(&mut found, &query, |(subject, _)| subject.id.to_string());
        Ok(Response::new(ListSubjectsResponse {
            subjects: found.iter().map(|(s, samples)| subject(s, *samples)).collect(),
            next_page_token,
        }))
    }

    async fn update_subject(&self, request: Request<UpdateSubjectRequest>) -> Result<Response<UpdateSubjectResponse>, Status> {
        let request = request.into_inner();
        let wire = request.subject.unwrap_or_default();
        let (id, etag) = (subject_id(&wire.id, "subject.id")?, wire.etag.clone());
        let (fields, request_id) = (fields(wire, request.update_mask)?, request_id(&request.request_id)?);
        let update = SubjectUpdate { id, fields, etag, request_id };
        let enrolment = self.0.parts.enrolment.clone();
        let (changed, samples) = to_the_end(async move { enrolment.update_subject(update).await }).await?;
        Ok(Response::new(UpdateSubjectResponse { subject: Some(subject(&changed, samples)) }))
    }

    async fn delete_subject(&self, request: Request<DeleteSubjectRequest>) -> Result<Response<DeleteSubjectResponse>, Status> {
        let request = request.into_inner();
        let (id, request_id) = (subject_id(&request.id, "id")?, request_id(&request.request_id)?);
        let enrolment = self.0.parts.enrolment.clone();
        let erased = to_the_end(async move { enrolment.delete_subject(&id, &request.etag, &request_id).await }).await?;
        Ok(Response::new(DeleteSubjectResponse {
            uid: erased.uid.0.to_string(),
            templates_erased: erased.committed.templates_erased,
            samples_erased: erased.committed.samples_erased,
            snapshots_erased: erased.committed.snapshots_erased,
            gallery_version: erased.committed.version,
            erase_time: Some(time(erased.time)),
        }))
    }

    async fn create_sample(&self, request: Request<CreateSampleRequest>) -> Result<Response<CreateSampleResponse>, Status> {
        let request = request.into_inner();
        let (subject, request_id) = (subject_id(&request.subject_id, "subject_id")?, request_id(&request.request_id)?);
        let input = sample_input(request.sample, "sample")?;
        let new = NewSample { subject, sample: input, allow_duplicate: request.allow_duplicate, request_id };
        let enrolment = self.0.parts.enrolment.clone();
        let enrolled = to_the_end(async move { enrolment.create_sample(new).await }).await?;
        Ok(Response::new(CreateSampleResponse { sample: enrolled.samples.first().map(sample), gallery_version: enrolled.version }))
    }

    async fn list_samples(&self, request: Request<ListSamplesRequest>) -> Result<Response<ListSamplesResponse>, Status> {
        let request = request.into_inner();
        let id = subject_id(&request.subject_id, "subject_id")?;
        let query = format!("samples/{id}");
        let page = Page::read(request.page_size, &request.page_token, &query)?;
        let mut found = self.0.parts.enrolment.samples(&id).await?;
        if let Some(after) = &page.after {
            // A sample that was erased between two pages leaves no place to go on from.
            let last = Uuid::try_parse(after).map_err(|_| bad_token())?;
            let place = found.iter().position(|info| info.sample.id.0 == last).ok_or_else(bad_token)?;
            found.drain(..=place);
        }
        let next_page_token = page.cut(&mut found, &query, |info| info.sample.id.0.to_string());
        Ok(Response::new(ListSamplesResponse { samples: found.iter().map(sample).collect(), next_page_token }))
    }

    async fn delete_sample(&self, request: Request<DeleteSampleRequest>) -> Result<Response<DeleteSampleResponse>, Status> {
        let request = request.into_inner();
        let (id, request_id) = (subject_id(&request.subject_id, "subject_id")?, request_id(&request.request_id)?);
        let sample = SampleId(uuid(&request.sample_id, "sample_id")?);
        let enrolment = self.0.parts.enrolment.clone();
        let gallery_version = to_the_end(async move { enrolment.delete_sample(&id, sample, &request_id).await }).await?;
        Ok(Response::new(DeleteSampleResponse { gallery_version }))
    }

    async fn reload_gallery(&self, request: Request<ReloadGalleryRequest>) -> Result<Response<ReloadGalleryResponse>, Status> {
        let ReloadGalleryRequest { allow_mass_removal, dry_run, request_id: id } = request.into_inner();
        let request_id = request_id(&id)?;
        let enrolment = self.0.parts.enrolment.clone();
        let report = to_the_end(async move { enrolment.reload(allow_mass_removal, dry_run, &request_id).await }).await?;
        Ok(Response::new(reloaded(report)))
    }

    async fn get_gallery(&self, _: Request<GetGalleryRequest>) -> Result<Response<GetGalleryResponse>, Status> {
        let facts = self.0.parts.enrolment.facts().await?;
        Ok(Response::new(GetGalleryResponse {
            version: facts.version,
            subject_count: facts.subjects,
            template_count: facts.templates,
            template_space: facts.space.to_string(),
            foreign_template_count: facts.foreign_templates,
            threshold: facts.threshold,
        }))
    }
}

fn reloaded(report: ReloadReport) -> ReloadGalleryResponse {
    let refused = report.refused.into_iter();
    ReloadGalleryResponse {
        gallery_version: report.version,
        subjects_added: report.added,
        subjects_changed: report.changed,
        subjects_removed: report.removed,
        samples_unchanged: report.unchanged_samples,
        refused_files: refused.map(|file| RefusedFile { path: file.path, reason: file.reason.to_owned(), message: file.message }).collect(),
    }
}
