//! The photos of an import that share one commit.
//!
//! In: photos that were looked at, in order. Out: what became of each, in the same order. In one turn
//! they are checked against what is there now and against each other, and those that are taken are
//! committed together.
//! Must not know: where photos come from, who is told.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::super::doubt;
use super::super::prepare::Prepared;
use super::super::register::{Register, new_sample, new_subject, stopped};
use super::super::request::Request;
use super::super::{EnrolError, SAMPLES_A_SUBJECT_MAX};
use super::{ImportItem, ImportResult, Imported, Looked, Verdict, is_there};
use crate::clock::Timestamp;
use crate::event::Candidate;
use crate::face::Template;
use crate::gallery::Search;
use crate::mutation::Mutation;
use crate::store::KnownContent;
use crate::subject::{Origin, Subject, SubjectId, SubjectUid};

/// The most photos of a group.
pub(super) const PHOTOS_MAX: usize = 64;
/// The bytes of photos from which on a group is full: events wait behind its commit.
const BYTES_MAX: usize = 8 << 20;

/// Photos in the order in which they came.
#[derive(Default)]
pub(super) struct Group {
    photos: Vec<Looked>,
    bytes: usize,
}

impl Group {
    pub fn push(&mut self, mut looked: Looked) {
        if !matches!(looked.verdict, Verdict::Prepared(_)) {
            looked.item.photo = Arc::default();
        }
        self.bytes += looked.item.photo.len();
        self.photos.push(looked);
    }

    pub fn is_empty(&self) -> bool {
        self.photos.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.photos.len() >= PHOTOS_MAX || self.bytes >= BYTES_MAX
    }

    /// The bytes of the photos that are to be committed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Commits what can be taken. Waits for a turn only where something may have to be written.
    pub async fn settle(self, register: &Arc<Register>) -> Result<Vec<ImportResult>, EnrolError> {
        if self.photos.iter().any(|looked| matches!(looked.verdict, Verdict::Prepared(_))) {
            return register.alone(|register| self.commit(register)).await;
        }
        self.commit(Arc::clone(register)).await
    }

    /// Checks and commits, when the turn has come.
    async fn commit(self, register: Arc<Register>) -> Result<Vec<ImportResult>, EnrolError> {
        let mut planner = Planner::over(&register, &self.photos).await?;
        let mut outcomes = Vec::with_capacity(self.photos.len());
        for Looked { item, verdict } in self.photos {
            let (key, subject) = (item.key.clone(), item.subject.clone());
            let outcome = match verdict {
                Verdict::Unchanged => Ok(Imported::Unchanged),
                Verdict::Refused(refusal) => Err(refusal),
                Verdict::Prepared(prepared) => match planner.take(item, prepared).await {
                    Err(failure) if !failure.is_refusal() => return Err(failure),
                    outcome => outcome,
                },
            };
            outcomes.push((key, subject, outcome));
        }
        let mutations = planner.mutations;
        let version = if mutations.is_empty() {
            register.gallery.current().version()
        } else {
            register.commit(Request::import_subjects(), mutations, |committed| committed.version).await?
        };
        Ok(outcomes.into_iter().map(|(key, subject, outcome)| ImportResult { key, subject, outcome, version }).collect())
    }
}

/// Somebody whom the group has photos of.
struct Person {
    subject: Subject,
    known: doubt::Known,
    /// Whether the store knows the subject.
    is_stored: bool,
    /// Whether the mutations tell of the subject already.
    is_put: bool,
}

/// What is known of a photo's content and face, besides what the group itself adds.
struct Context {
    known: KnownContent,
    /// The two closest subjects of the gallery: the photo's own may well be among them.
    closest: Vec<Candidate>,
}

struct Planner<'a> {
    register: &'a Register,
    now: Timestamp,
    /// Of each prepared photo, the next one last.
    contexts: Vec<Context>,
    people: HashMap<SubjectId, Person>,
    /// What this group adds: whose, and its face.
    added: HashMap<[u8; 32], (SubjectUid, SubjectId, Template)>,
    mutations: Vec<Mutation>,
}

impl<'a> Planner<'a> {
    async fn over(register: &'a Register, photos: &[Looked]) -> Result<Self, EnrolError> {
        let prepared = photos.iter().filter_map(|looked| match &looked.verdict {
            Verdict::Prepared(prepared) => Some((prepared.content_sha256, prepared.template.clone())),
            Verdict::Unchanged | Verdict::Refused(_) => None,
        });
        let (contents, templates): (Vec<_>, Vec<_>) = prepared.unzip();
        let known = register.store.known_contents(contents).await?;
        let version = register.gallery.current();
        // On one core: the others are for live frames.
        let search = move || {
            let probes: Vec<&Template> = templates.iter().collect();
            version.search_enrolled(&probes, &Search { cores_max: Some(1), ..Search::best(2) })
        };
        let closest = spawn_blocking(search).await.map_err(stopped)??;
        let mut contexts: Vec<_> = known.into_iter().zip(closest).map(|(known, closest)| Context { known, closest }).collect();
        contexts.reverse();
        let (people, added) = (HashMap::new(), HashMap::new());
        Ok(Self { register, now: register.clock.now(), contexts, people, added, mutations: Vec::new() })
    }

    /// Takes the next prepared photo, or says why not.
    async fn take(&mut self, item: ImportItem, prepared: Prepared) -> Result<Imported, EnrolError> {
        let Some(Context { mut known, closest }) = self.contexts.pop() else { return Ok(Imported::Unchanged) };
        if let Some((_, owner, _)) = self.added.get(&prepared.content_sha256) {
            known.owners.push(owner.clone());
        }
        if is_there(&known, &item.subject)? {
            return Ok(Imported::Unchanged);
        }
        let id = item.subject.clone();
        let mut person = self.person(&item).await?;
        let checked = self.check(&item, &mut person, (&prepared, &closest));
        if checked.is_ok() {
            self.add(&mut person, prepared);
        }
        if person.is_stored || person.is_put {
            self.people.insert(id, person);
        }
        checked.map(|()| Imported::Added)
    }

    async fn person(&mut self, item: &ImportItem) -> Result<Person, EnrolError> {
        if let Some(person) = self.people.remove(&item.subject) {
            return Ok(person);
        }
        if let Some(subject) = self.register.store.subject(&item.subject).await? {
            let known = doubt::Known::of(self.register.store.samples(subject.uid).await?);
            return Ok(Person { subject, known, is_stored: true, is_put: false });
        }
        self.register.check_not_erased(&item.subject).await?;
        let mut subject = new_subject(Some(item.subject.clone()), Origin::Rpc, self.now)?;
        item.fields.clone().write_to(&mut subject);
        Ok(Person { subject, known: doubt::Known::default(), is_stored: false, is_put: false })
    }

    fn check(&self, item: &ImportItem, person: &mut Person, (prepared, closest): (&Prepared, &[Candidate])) -> Result<(), EnrolError> {
        let subject = &person.subject;
        if subject.origin == Origin::Folder {
            return Err(EnrolError::FromFolder(subject.id.clone()));
        }
        let samples = person.known.own.len() + person.known.negative.len();
        if samples >= SAMPLES_A_SUBJECT_MAX {
            return Err(EnrolError::TooManyPhotos(samples));
        }
        if !person.is_stored && subject.expire_time.is_some_and(|expire_time| expire_time <= self.now) {
            return Err(EnrolError::BadField { field: "expire_time", reason: "it lies in the past: the subject would never match".into() });
        }
        if !item.allowed.duplicate {
            self.check_nobody_else(subject.uid, (&prepared.template, closest))?;
        }
        if !item.allowed.inconsistent {
            person.known.check_own(self.register.verifying_threshold(), &prepared.template)?;
        }
        person.known.own.push(prepared.template.clone());
        Ok(())
    }

    /// Whether nobody else, in the gallery or in this group, looks like it.
    fn check_nobody_else(&self, owner: SubjectUid, (template, closest): (&Template, &[Candidate])) -> Result<(), EnrolError> {
        let in_gallery = closest.iter().filter(|candidate| candidate.subject != owner).filter_map(|candidate| {
            let subject = self.register.gallery.subject(candidate.subject)?;
            Some((subject.id.clone(), candidate.similarity))
        });
        let others = self.added.values().filter(|(uid, ..)| *uid != owner);
        let in_group = others.filter_map(|(_, id, other)| Some((id.clone(), other.similarity(template).ok()?)));
        match in_gallery.chain(in_group).max_by(|(_, a), (_, b)| a.total_cmp(b)) {
            Some((other, similarity)) if self.register.is_match(similarity) => Err(EnrolError::PossibleDuplicate { other, similarity }),
            _ => Ok(()),
        }
    }

    /// Adds a photo that was checked.
    fn add(&mut self, person: &mut Person, prepared: Prepared) {
        if !person.is_put {
            if person.is_stored {
                self.register.revise(&mut person.subject);
            }
            self.mutations.push(Mutation::PutSubject(person.subject.clone()));
            person.is_put = true;
        }
        let (uid, id) = (person.subject.uid, person.subject.id.clone());
        self.added.insert(prepared.content_sha256, (uid, id, prepared.template.clone()));
        let sample = new_sample(&prepared, uid, self.now);
        self.mutations.push(Mutation::PutSample { sample, template: prepared.template, photo: prepared.photo });
    }
}
