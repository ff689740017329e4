//! Who is enrolled: the half of enrolment that changes the store and the gallery, one change at a
//! time.
//!
//! In: prepared samples and checked fields. Out: changes that are on disk and matching. Each takes
//! its turn (callers wait in order, as many as the edges let in), is checked against what is there
//! now, committed, applied to the gallery, and answered.
//! Must not know: photos' pixels, inference.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinError;
use uuid::Uuid;

use super::answer::Answer;
use super::doubt::{self, similarities_to_rest};
use super::folder::Listing;
use super::plan::Known;
use super::prepare::Prepared;
use super::request::Request;
use super::{Allowed, EnrolError, Enrolled, Erased, GalleryFacts, SAMPLES_A_SUBJECT_MAX, SampleInfo, SubjectFields, SubjectUpdate};
use crate::clock::{Clock, Timestamp};
use crate::decide::{Policy, verify, visit_comparisons};
use crate::event::{Purpose, SnapshotId};
use crate::face::Template;
use crate::gallery::{Gallery, Row, Search};
use crate::mutation::Mutation;
use crate::store::{Call, Committed, Store, StoreError, StoredTemplate};
use crate::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};

/// From this many templates on, filling the gallery tells how far it is.
const PROGRESS_EVERY: usize = 100_000;

/// A subject to be enrolled, its photos prepared.
#[derive(Clone, Debug)]
pub(super) struct Creation {
    pub id: Option<SubjectId>,
    pub fields: SubjectFields,
    pub samples: Vec<Prepared>,
    pub allowed: Allowed,
}

/// A prepared photo to be added to a subject.
#[derive(Clone, Debug)]
pub(super) struct Addition {
    pub subject: SubjectId,
    pub sample: Prepared,
    pub negative: bool,
    pub allowed: Allowed,
}

/// Store and gallery, changed together.
pub(super) struct Register {
    pub store: Store,
    pub gallery: Gallery,
    pub clock: Arc<dyn Clock>,
    /// What decides.
    pub policy: Policy,
    turn: Arc<Mutex<()>>,
    /// Held by the one reload that is under way; its photos are encoded before its turn.
    pub reload_turn: Mutex<()>,
    /// The newest version.
    pub version_changes: watch::Sender<u64>,
}

impl Register {
    /// A register over a gallery that is still empty: it takes no change before it is
    /// [filled](Self::fill).
    pub fn new(store: Store, gallery: Gallery, clock: Arc<dyn Clock>, policy: Policy) -> Self {
        let (turn, version_changes) = (Arc::default(), watch::Sender::default());
        Self { store, gallery, clock, policy, turn, reload_turn: Mutex::default(), version_changes }
    }

    /// Fills the gallery from the store, and tells in the log how far it is.
    pub async fn fill(&self) -> Result<(), EnrolError> {
        let _turn = self.turn.lock().await;
        self.store.put_in_force(self.gallery.space());
        let version = self.store.gallery_version().await?;
        let newest = self.store.gallery_versions_before(None, 1).await?;
        let total = newest.first().map_or(0, |newest| newest.samples);
        let (subjects, gallery) = (self.store.subjects().await?, self.gallery.clone());
        let fill = move |rows: &mut dyn Iterator<Item = Result<StoredTemplate, StoreError>>| {
            let rows = rows.enumerate().map(|(done, row)| {
                if done > 0 && done % PROGRESS_EVERY == 0 {
                    tracing::info!(done, total, "filling the gallery");
                }
                row.map(|stored| {
                    let StoredTemplate { sample, subject, negative, template } = stored;
                    Row { subject, sample, negative, template }
                })
            });
            gallery.fill(version, subjects, rows)
        };
        self.store.read_templates(fill).await??;
        self.version_changes.send_replace(version);
        let (current, foreign) = (self.gallery.current(), self.gallery.foreign_template_count());
        tracing::info!(version, subjects = current.subject_count(), templates = current.template_count(), "the gallery is filled");
        if foreign > 0 {
            let subjects = self.store.subjects_lacking(self.gallery.space()).await?;
            tracing::warn!(
                templates = foreign,
                subjects,
                space = self.gallery.space().as_str(),
                "these samples have templates of another encoder only and match nothing, nor do subjects who have no others: \
                 `doorward gallery reencode` makes templates anew from their photos"
            );
        }
        Ok(())
    }

    /// Runs `change` when its turn has come, to its end even when the caller no longer waits: a
    /// change on disk must also reach the gallery. A repeat of `request` gets the first answer.
    pub async fn in_turn<T, F>(self: &Arc<Self>, request: Request, change: impl FnOnce(Arc<Self>, Request) -> F) -> Result<T, EnrolError>
    where
        T: Answer + Send + 'static,
        F: Future<Output = Result<T, EnrolError>> + Send + 'static,
    {
        self.alone(|register| {
            let change = change(Arc::clone(&register), request.clone());
            async move {
                if let Some(first) = register.first_answer(&request).await? {
                    return Ok(first);
                }
                change.await
            }
        })
        .await
    }

    /// [`in_turn`](Self::in_turn) for a change without a request id.
    pub async fn alone<T, F>(self: &Arc<Self>, change: impl FnOnce(Arc<Self>) -> F) -> Result<T, EnrolError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EnrolError>> + Send + 'static,
    {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let change = change(Arc::clone(self));
        let work = tokio::spawn(async move {
            let answer = change.await;
            drop(turn);
            answer
        });
        work.await.map_err(stopped)?
    }

    /// Commits `mutations` with the answer to `request`, then lets them match.
    pub async fn commit<T: Answer>(
        &self,
        request: Request,
        mutations: Vec<Mutation>,
        answer: impl Fn(&Committed) -> T + Send + Sync + 'static,
    ) -> Result<T, EnrolError> {
        let answer = Arc::new(answer);
        let call = Call { method: request.method().to_owned(), request_key: request.key.clone() };
        let stored = Arc::clone(&answer);
        let encode = Box::new(move |committed: &Committed| request.encode(&stored(committed)));
        let committed = self.store.mutate(mutations.clone(), call, encode).await?;
        self.gallery.apply(committed.version, &mutations);
        self.version_changes.send_replace(committed.version);
        Ok(answer(&committed))
    }

    /// The answer of an earlier call with this request id.
    pub async fn first_answer<T: Answer>(&self, request: &Request) -> Result<Option<T>, EnrolError> {
        let Some(key) = &request.key else { return Ok(None) };
        let stored = self.store.request_answer(key).await?;
        stored.map(|stored| request.decode(&stored)).transpose()
    }

    pub async fn create(self: &Arc<Self>, request: Request, new: Creation) -> Result<Enrolled, EnrolError> {
        self.in_turn(request, |register, request| async move { register.create_now(request, new).await }).await
    }

    async fn create_now(&self, request: Request, new: Creation) -> Result<Enrolled, EnrolError> {
        let now = self.clock.now();
        if let Some(id) = &new.id {
            self.check_free(id).await?;
        }
        if let Some(Some(expire_time)) = new.fields.expire_time
            && expire_time <= now
        {
            return Err(EnrolError::BadField { field: "expire_time", reason: "it lies in the past: the subject would never match".into() });
        }
        for (index, sample) in new.samples.iter().enumerate() {
            self.check_matchable(sample, None, new.allowed).map_err(|error| error.of_sample((index, new.samples.len())))?;
        }
        let mut subject = new_subject(new.id, Origin::Rpc, now)?;
        new.fields.write_to(&mut subject);
        for (index, sample) in new.samples.iter().enumerate().filter(|_| !new.allowed.inconsistent) {
            let others = new.samples.iter().enumerate().filter(|(other, _)| *other != index);
            let own = others.map(|(_, other)| other.template.clone()).collect();
            doubt::Known { own, ..doubt::Known::default() }
                .check_own(self.verifying_threshold(), &sample.template)
                .map_err(|error| error.of_sample((index, new.samples.len())))?;
        }
        let templates: Vec<(bool, &Template)> = new.samples.iter().map(|sample| (false, &sample.template)).collect();
        let similarities = similarities_to_rest(&templates);
        let mut mutations = vec![Mutation::PutSubject(subject.clone())];
        let mut samples = Vec::new();
        for (prepared, similarity_to_rest) in new.samples.into_iter().zip(similarities) {
            let sample = new_sample(&prepared, subject.uid, now);
            samples.push(SampleInfo { sample: sample.clone(), similarity_to_rest });
            mutations.push(Mutation::PutSample { sample, template: prepared.template, photo: prepared.photo });
        }
        let answer =
            move |committed: &Committed| Enrolled { subject: Some(subject.clone()), samples: samples.clone(), version: committed.version };
        self.commit(request, mutations, answer).await
    }

    pub async fn update(self: &Arc<Self>, request: Request, update: SubjectUpdate) -> Result<(Subject, u32), EnrolError> {
        self.in_turn(request, |register, request| async move {
            let (mut subject, samples) = register.subject_with_count(&update.id).await?;
            check_etag(&subject, &update.etag)?;
            update.fields.write_to(&mut subject);
            register.revise(&mut subject);
            let mutations = vec![Mutation::PutSubject(subject.clone())];
            register.commit(request, mutations, move |_| (subject.clone(), samples)).await
        })
        .await
    }

    pub async fn delete(self: &Arc<Self>, request: Request, id: SubjectId, etag: String) -> Result<Erased, EnrolError> {
        self.in_turn(request, |register, request| async move {
            let known = register.store.subject(&id).await?;
            known.as_ref().map_or(Ok(()), |subject| check_etag(subject, &etag))?;
            // Who is kept for a rollback is erased all the same, under the same name or alone.
            let mut people: Vec<SubjectUid> = known.iter().map(|subject| subject.uid).collect();
            people.extend(register.store.retired_subjects(&id).await?);
            register.add_other_names(&mut people).await?;
            // An etag is of somebody who is there.
            let uid = people.first().copied().filter(|_| known.is_some() || etag.is_empty());
            let Some(uid) = uid else { return Err(EnrolError::SubjectUnknown(id.to_string())) };
            let (mut mutations, mut seen) = (Vec::new(), HashSet::new());
            for uid in &people {
                // Where the person served as an example of whom somebody else is not: once, though two of these had the same photo, and
                // not where the example is their own, which goes with them.
                let negatives = register.store.negatives_showing(*uid).await?.into_iter();
                let negatives = negatives.filter(|(owner, sample)| !people.contains(owner) && seen.insert(*sample));
                mutations.extend(negatives.map(|(subject, sample)| Mutation::EraseSample { subject, sample }));
                mutations.push(Mutation::EraseSubject(*uid));
            }
            let time = register.clock.now();
            let answer = move |committed: &Committed| Erased { uid, committed: committed.clone(), time };
            register.commit(request, mutations, answer).await
        })
        .await
    }

    /// Adds whoever is kept for a rollback and is one of `people` under another name: what they had besides would bring them back.
    async fn add_other_names(&self, people: &mut Vec<SubjectUid>) -> Result<(), EnrolError> {
        let mut next = 0;
        while let Some(uid) = people.get(next) {
            let others = self.store.retired_with_photos_of(*uid).await?;
            people.extend(others.into_iter().filter(|other| !people.contains(other)).collect::<Vec<_>>());
            next += 1;
        }
        Ok(())
    }

    pub async fn add(self: &Arc<Self>, request: Request, new: Addition) -> Result<Enrolled, EnrolError> {
        self.in_turn(request, |register, request| async move { register.add_now(request, new).await }).await
    }

    async fn add_now(&self, request: Request, new: Addition) -> Result<Enrolled, EnrolError> {
        let mut subject = self.known(&new.subject).await?;
        let samples = self.store.samples(subject.uid).await?;
        if samples.len() >= SAMPLES_A_SUBJECT_MAX {
            let reason = format!("the subject has {}, and may have {SAMPLES_A_SUBJECT_MAX}; delete one first", samples.len());
            return Err(EnrolError::BadField { field: "sample", reason });
        }
        let template = &new.sample.template;
        let allowed = Allowed { duplicate: new.allowed.duplicate || new.negative, ..new.allowed };
        self.check_matchable(&new.sample, Some(subject.uid), allowed)?;
        let known = doubt::Known::of(samples);
        if !allowed.inconsistent {
            if new.negative { known.check_negative(template)? } else { known.check_own(self.verifying_threshold(), template)? }
        }
        let of_all: Vec<_> = known.own.iter().map(|own| (false, own)).chain([(new.negative, template)]).collect();
        let similarity_to_rest = similarities_to_rest(&of_all).pop().flatten();
        self.revise(&mut subject);
        let sample = Sample { negative: new.negative, ..new_sample(&new.sample, subject.uid, self.clock.now()) };
        let info = SampleInfo { sample: sample.clone(), similarity_to_rest };
        let Prepared { template, photo, .. } = new.sample;
        let mutations = vec![Mutation::PutSubject(subject.clone()), Mutation::PutSample { sample, template, photo }];
        let answer = move |committed: &Committed| Enrolled {
            subject: Some(subject.clone()),
            samples: vec![info.clone()],
            version: committed.version,
        };
        self.commit(request, mutations, answer).await
    }

    pub async fn remove(self: &Arc<Self>, request: Request, id: SubjectId, sample: SampleId) -> Result<u64, EnrolError> {
        self.in_turn(request, |register, request| async move {
            let mut subject = register.known(&id).await?;
            let samples = register.store.samples(subject.uid).await?;
            if !samples.iter().any(|(known, _)| known.id == sample) {
                return Err(EnrolError::SampleUnknown(sample.0.to_string()));
            }
            let is_another = |known: &Sample| known.id != sample && !known.negative;
            if !samples.iter().any(|(known, _)| is_another(known)) {
                return Err(EnrolError::NoSample);
            }
            register.revise(&mut subject);
            let erase = Mutation::EraseSample { subject: subject.uid, sample };
            register.commit(request, vec![Mutation::PutSubject(subject), erase], |committed| committed.version).await
        })
        .await
    }

    pub async fn subject_with_count(&self, id: &SubjectId) -> Result<(Subject, u32), EnrolError> {
        let subject = self.known(id).await?;
        let samples = own_count(&self.store.samples(subject.uid).await?);
        Ok((subject, samples))
    }

    pub async fn page(&self, after: Option<SubjectId>, watchlist: Option<String>, limit: usize) -> Result<Vec<(Subject, u32)>, EnrolError> {
        let mut page = Vec::new();
        for subject in self.store.subject_page(after, watchlist, limit).await? {
            let samples = own_count(&self.store.samples(subject.uid).await?);
            page.push((subject, samples));
        }
        Ok(page)
    }

    pub async fn samples(&self, id: &SubjectId) -> Result<Vec<SampleInfo>, EnrolError> {
        let subject = self.known(id).await?;
        let samples = self.store.samples(subject.uid).await?;
        let similarities = similarities_to_rest(&samples.iter().map(|(sample, template)| (sample.negative, template)).collect::<Vec<_>>());
        let infos = samples.into_iter().zip(similarities);
        Ok(infos.map(|((sample, _), similarity_to_rest)| SampleInfo { sample, similarity_to_rest }).collect())
    }

    /// The face of an event's best shot, as JPEG.
    pub async fn best_shot(&self, id: SnapshotId) -> Result<Arc<[u8]>, EnrolError> {
        let snapshot = self.store.snapshot(id).await?;
        let snapshot = snapshot.ok_or_else(|| EnrolError::SnapshotUnknown(id.0.to_string()))?;
        Ok(snapshot.crop_jpeg.into())
    }

    pub async fn facts(&self) -> Result<GalleryFacts, EnrolError> {
        let current = self.gallery.current();
        let space = self.gallery.space().clone();
        let foreign_templates = self.store.foreign_templates(&space).await?;
        Ok(GalleryFacts {
            version: current.version(),
            subjects: current.subject_count(),
            templates: current.template_count(),
            space,
            foreign_templates,
            thresholds: self.policy.overview(visit_comparisons(current.template_count())),
        })
    }

    /// What a reload compares the folder with.
    pub async fn known_for_reload(&self, listing: &Listing) -> Result<Known, EnrolError> {
        let subjects = self.store.subjects().await?;
        let mut known = Known::default();
        known.subjects.extend(subjects.into_iter().map(|subject| (subject.id.clone(), subject)));
        for sample in self.store.folder_samples().await? {
            known.samples.entry(sample.subject).or_default().push(sample);
        }
        known.other_samples = self.store.samples_beside_the_folder().await?;
        known.erased_ids = self.store.erased_ids().await?;
        known.take_returning(listing, self.store.retired_folder_people(known.new_ids(listing)).await?);
        Ok(known)
    }

    pub async fn check_free(&self, id: &SubjectId) -> Result<(), EnrolError> {
        match self.store.subject(id).await? {
            Some(subject) => Err(EnrolError::SubjectExists(subject.id)),
            None => Ok(()),
        }
    }

    /// Whether an import may enrol somebody by `id`, whom nobody has now: a photo that was never theirs says nothing of who is meant.
    pub async fn check_not_erased(&self, id: &SubjectId) -> Result<(), EnrolError> {
        if self.store.is_erased_id(id).await? { Err(EnrolError::ErasedId(id.clone())) } else { Ok(()) }
    }

    /// The similarity from which on two photos show one person.
    pub fn verifying_threshold(&self) -> f32 {
        self.policy.threshold(Purpose::Verify, 1)
    }

    /// The similarity from which on the closest of everybody is somebody.
    pub fn identifying_threshold(&self) -> f32 {
        self.policy.threshold(Purpose::Identify, self.gallery.current().template_count())
    }

    /// Whether the closest of everybody is, by this similarity, taken for the person.
    pub fn is_match(&self, similarity: f32) -> bool {
        verify(self.identifying_threshold(), similarity)
    }

    /// Marks the subject as changed now.
    pub fn revise(&self, subject: &mut Subject) {
        subject.revision += 1;
        subject.update_time = self.clock.now();
    }

    /// Whether the gallery can hold the sample, and nobody but `owner` looks like it.
    fn check_matchable(&self, sample: &Prepared, owner: Option<SubjectUid>, allowed: Allowed) -> Result<(), EnrolError> {
        // Two, since the owner's own photos may well be the closest.
        let closest = self.gallery.current().search_enrolled(&[&sample.template], &Search::best(2))?;
        let other = closest.into_iter().flatten().find(|candidate| Some(candidate.subject) != owner);
        let Some(other) = other.filter(|other| !allowed.duplicate && self.is_match(other.similarity)) else { return Ok(()) };
        match self.gallery.subject(other.subject) {
            Some(subject) => Err(EnrolError::PossibleDuplicate { other: subject.id.clone(), similarity: other.similarity }),
            None => Ok(()),
        }
    }

    async fn known(&self, id: &SubjectId) -> Result<Subject, EnrolError> {
        self.store.subject(id).await?.ok_or_else(|| EnrolError::SubjectUnknown(id.to_string()))
    }
}

/// How many samples a subject is recognised by.
fn own_count(samples: &[(Sample, Template)]) -> u32 {
    samples.iter().filter(|(sample, _)| !sample.negative).count() as u32
}

/// A subject with nothing stated of it yet, `id` made where there is none.
pub(super) fn new_subject(id: Option<SubjectId>, origin: Origin, now: Timestamp) -> Result<Subject, EnrolError> {
    let id = match id {
        Some(id) => id,
        None => SubjectId::parse(&Uuid::new_v4().to_string())
            .map_err(|invalid| EnrolError::BadField { field: "subject.id", reason: invalid.to_string() })?,
    };
    Ok(Subject {
        id,
        uid: SubjectUid(Uuid::new_v4()),
        display_name: String::new(),
        watchlists: Vec::new(),
        attributes: std::collections::BTreeMap::new(),
        consent_reference: String::new(),
        expire_time: None,
        origin,
        create_time: now,
        update_time: now,
        revision: 1,
    })
}

/// The sample that `prepared` becomes.
pub(super) fn new_sample(prepared: &Prepared, subject: SubjectUid, now: Timestamp) -> Sample {
    Sample {
        id: SampleId(Uuid::new_v4()),
        subject,
        quality: prepared.quality,
        content_sha256: prepared.content_sha256,
        create_time: now,
        folder_path: None,
        negative: false,
    }
}

/// A task's end without an answer: its panic goes on here, and else the daemon is stopping.
pub(super) fn stopped(ended: JoinError) -> EnrolError {
    match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => StoreError::Stopped.into(),
    }
}

/// An empty etag asks for nothing.
fn check_etag(subject: &Subject, etag: &str) -> Result<(), EnrolError> {
    let current = subject.etag();
    if etag.is_empty() || etag == current { Ok(()) } else { Err(EnrolError::StaleEtag { current }) }
}
