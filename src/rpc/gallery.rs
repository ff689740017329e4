//! `GalleryService`: who is known.
//!
//! In: requests about subjects and samples. Out: what enrolment answers.
//! Changes run to their end although their caller leaves.
//! Must not know: photos' insides, templates, the store.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::Shared;
use super::auth;
use super::check;
use super::convert::policy::{wire_calibration, wire_threshold};
use super::convert::subject::{fields, sample, sample_input, subject, subject_id};
use super::convert::{request_id, time, uuid};
use super::gallery_file;
use super::import;
use super::outgoing::{Outgoing, to_the_end};
use super::page::{Page, bad_token};
use super::reencode::reencode;
use super::status::{bad_field, stopping};
use crate::enrol::{Allowed, Enrolment, NewSample, NewSubject, ReloadReport, Rollback, SubjectUpdate};
use crate::pb::gallery_service_server::GalleryService;
use crate::pb::{
    CheckGalleryRequest, CheckGalleryResponse, CompareGalleryVersionsRequest, CompareGalleryVersionsResponse, CreateSampleRequest,
    CreateSampleResponse, CreateSubjectRequest, CreateSubjectResponse, DeleteSampleRequest, DeleteSampleResponse, DeleteSubjectRequest,
    DeleteSubjectResponse, DoubtfulFile, GalleryVersion, GetGalleryRequest, GetGalleryResponse, GetSubjectRequest, GetSubjectResponse,
    ImportGalleryRequest, ImportGalleryResponse, ImportSubjectsRequest, ImportSubjectsResponse, ListGalleryVersionsRequest,
    ListGalleryVersionsResponse, ListSamplesRequest, ListSamplesResponse, ListSubjectsRequest, ListSubjectsResponse,
    ReencodeGalleryRequest, ReencodeGalleryResponse, RefusedFile, ReloadGalleryRequest, ReloadGalleryResponse, RollbackGalleryRequest,
    RollbackGalleryResponse, SubjectChange, SubjectDifference, UpdateSubjectRequest, UpdateSubjectResponse, WatchGalleryRequest,
    WatchGalleryResponse,
};
use crate::store::{Difference, VersionInfo};
use crate::subject::{SampleId, Subject, SubjectUid};

/// Versions that one message tells at most.
const VERSIONS_AT_ONCE: usize = 100;

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
        let allowed = Allowed { duplicate: request.allow_duplicate, inconsistent: request.allow_inconsistent };
        let new = NewSubject { id, fields, samples, allowed, request_id };
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
        let allowed = Allowed { duplicate: request.allow_duplicate, inconsistent: request.allow_inconsistent };
        let new = NewSample { subject, sample: input, negative: request.negative, allowed, request_id };
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

    async fn list_gallery_versions(
        &self,
        request: Request<ListGalleryVersionsRequest>,
    ) -> Result<Response<ListGalleryVersionsResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token, "versions")?;
        let before = page.after.as_deref().map(str::parse).transpose().map_err(|_| bad_token())?;
        let mut found = self.0.parts.enrolment.versions(before, page.size + 1).await?;
        let next_page_token = page.cut(&mut found, "versions", |version| version.version.to_string());
        Ok(Response::new(ListGalleryVersionsResponse { versions: found.into_iter().map(version).collect(), next_page_token }))
    }

    async fn compare_gallery_versions(
        &self,
        request: Request<CompareGalleryVersionsRequest>,
    ) -> Result<Response<CompareGalleryVersionsResponse>, Status> {
        let CompareGalleryVersionsRequest { from_version: from, to_version: to, page_size, page_token } = request.into_inner();
        let query = format!("differences/{from}/{to}");
        let page = Page::read(page_size, &page_token, &query)?;
        let difference = self.0.parts.enrolment.difference(from, (to != 0).then_some(to)).await?;
        let subjects_erased = difference.subjects_erased;
        let mut differences = differences(difference);
        let key = |difference: &SubjectDifference| format!("{}/{}", difference.id, difference.uid);
        differences.sort_by_key(key);
        differences.retain(|difference| page.after.as_ref().is_none_or(|after| key(difference) > *after));
        let next_page_token = page.cut(&mut differences, &query, key);
        Ok(Response::new(CompareGalleryVersionsResponse { differences, next_page_token, subjects_erased }))
    }

    async fn rollback_gallery(&self, request: Request<RollbackGalleryRequest>) -> Result<Response<RollbackGalleryResponse>, Status> {
        let RollbackGalleryRequest { version, allow_mass_removal, dry_run, request_id: id } = request.into_inner();
        let request_id = request_id(&id)?;
        let enrolment = self.0.parts.enrolment.clone();
        let version = version.ok_or_else(|| bad_field("version", "say which version to go back to"))?;
        let rollback = Rollback { version, allow_mass_removal, dry_run };
        let report = to_the_end(async move { enrolment.roll_back(rollback, &request_id).await }).await?;
        Ok(Response::new(RollbackGalleryResponse {
            gallery_version: report.version,
            subjects_restored: report.subjects_restored,
            subjects_changed: report.subjects_changed,
            subjects_removed: report.subjects_removed,
            samples_restored: report.samples_restored,
            samples_removed: report.samples_removed,
            subjects_erased: report.subjects_erased,
        }))
    }

    type WatchGalleryStream = Outgoing<WatchGalleryResponse>;

    async fn watch_gallery(&self, request: Request<WatchGalleryRequest>) -> Result<Response<Self::WatchGalleryStream>, Status> {
        let admission = auth::admission(&request);
        let place = self.0.subscriber_place()?;
        let shared = self.0.clone();
        let changes = shared.parts.enrolment.version_changes();
        let after = match request.into_inner().after_version {
            Some(after) => {
                shared.parts.enrolment.check_kept_since(after).await?;
                after
            }
            None => *changes.borrow(),
        };
        Ok(Response::new(Outgoing::spawn(|out| async move {
            let _place = place;
            tokio::select! {
                status = watch_versions(&shared.parts.enrolment, changes, after, out) => status,
                () = shared.stopping.cancelled() => stopping().into(),
                () = auth::revoked(admission) => auth::no_longer_admitted(),
            }
        })))
    }

    type CheckGalleryStream = Outgoing<CheckGalleryResponse>;

    async fn check_gallery(&self, request: Request<CheckGalleryRequest>) -> Result<Response<Self::CheckGalleryStream>, Status> {
        Ok(Response::new(check::start(&self.0, request)))
    }

    type ImportGalleryStream = Outgoing<ImportGalleryResponse>;

    async fn import_gallery(
        &self,
        request: Request<Streaming<ImportGalleryRequest>>,
    ) -> Result<Response<Self::ImportGalleryStream>, Status> {
        gallery_file::import(&self.0, request)
    }

    type ReencodeGalleryStream = Outgoing<ReencodeGalleryResponse>;

    async fn reencode_gallery(&self, request: Request<ReencodeGalleryRequest>) -> Result<Response<Self::ReencodeGalleryStream>, Status> {
        reencode(&self.0, request)
    }

    type ImportSubjectsStream = Outgoing<ImportSubjectsResponse>;

    async fn import_subjects(
        &self,
        request: Request<Streaming<ImportSubjectsRequest>>,
    ) -> Result<Response<Self::ImportSubjectsStream>, Status> {
        import::begin(&self.0, request)
    }

    async fn get_gallery(&self, _: Request<GetGalleryRequest>) -> Result<Response<GetGalleryResponse>, Status> {
        let facts = self.0.parts.enrolment.facts().await?;
        let of_cameras = self.0.parts.cameras.thresholds(facts.templates);
        Ok(Response::new(GetGalleryResponse {
            version: facts.version,
            subject_count: facts.subjects,
            template_count: facts.templates,
            template_space: facts.space.to_string(),
            foreign_template_count: facts.foreign_templates,
            threshold: facts.thresholds.first().map_or(0.0, |identify| identify.in_force.threshold),
            thresholds: facts.thresholds.into_iter().chain(of_cameras).map(wire_threshold).collect(),
            calibration: self.0.parts.recogniser.calibration().map(wire_calibration),
        }))
    }
}

/// Tells the versions after `after` as they come; a slow client gets several at once.
async fn watch_versions(
    enrolment: &Enrolment,
    mut changes: watch::Receiver<u64>,
    mut after: u64,
    out: mpsc::Sender<WatchGalleryResponse>,
) -> Status {
    loop {
        // Marked as seen before the question, so that no change after it goes unnoticed.
        changes.borrow_and_update();
        let versions = match enrolment.versions_after(after, VERSIONS_AT_ONCE).await {
            Ok(versions) => versions,
            Err(error) => return error.into(),
        };
        if let Some(newest) = versions.last() {
            after = newest.version;
            if out.send(WatchGalleryResponse { versions: versions.into_iter().map(version).collect() }).await.is_err() {
                return Status::cancelled("the client has gone");
            }
        } else if changes.changed().await.is_err() {
            return stopping().into();
        }
    }
}

fn version(info: VersionInfo) -> GalleryVersion {
    GalleryVersion {
        version: info.version,
        commit_time: Some(time(info.time)),
        cause: info.cause,
        subjects_added: info.change.subjects_added,
        subjects_changed: info.change.subjects_changed,
        subjects_removed: info.change.subjects_removed,
        samples_added: info.change.samples_added,
        samples_removed: info.change.samples_removed,
        subject_count: info.subjects,
        sample_count: info.samples,
    }
}

fn differences(difference: Difference) -> Vec<SubjectDifference> {
    let (mut come, mut gone) = (HashMap::<SubjectUid, u32>::new(), HashMap::<SubjectUid, u32>::new());
    difference.samples_come.iter().for_each(|(owner, _)| *come.entry(*owner).or_default() += 1);
    difference.samples_gone.iter().for_each(|(sample, _)| *gone.entry(sample.subject).or_default() += 1);
    let tell = |(uid, (then, now)): (SubjectUid, (Option<Subject>, Option<Subject>))| {
        let change = match (&then, &now) {
            (None, _) => SubjectChange::Added,
            (_, None) => SubjectChange::Removed,
            (Some(_), Some(_)) => SubjectChange::Changed,
        };
        SubjectDifference {
            id: now.or(then).map(|subject| subject.id.to_string()).unwrap_or_default(),
            uid: uid.0.to_string(),
            change: change.into(),
            samples_added: come.get(&uid).copied().unwrap_or_default(),
            samples_removed: gone.get(&uid).copied().unwrap_or_default(),
        }
    };
    difference.subjects.into_iter().map(tell).collect()
}

fn reloaded(report: ReloadReport) -> ReloadGalleryResponse {
    let (refused, doubtful) = (report.refused.into_iter(), report.doubtful.into_iter());
    ReloadGalleryResponse {
        gallery_version: report.version,
        subjects_added: report.added,
        subjects_changed: report.changed,
        subjects_removed: report.removed,
        samples_unchanged: report.unchanged_samples,
        refused_files: refused.map(|file| RefusedFile { path: file.path, reason: file.reason.to_owned(), message: file.message }).collect(),
        doubtful_files: doubtful
            .map(|file| DoubtfulFile { path: file.path, reason: file.reason.to_owned(), message: file.message })
            .collect(),
    }
}
