//! `ImportGallery`: people of an exported file come into the gallery while recognition goes on.
//!
//! In: a file as `portable` describes it. Out: who came in, and why somebody did not.
//! The whole file is checked first: one that is cut, altered or wrong changes nothing. Then people come
//! in a few at a time, each whole or not at all, so that a million of them need neither memory nor one
//! commit that events wait behind. An import that ended early is run again: who is there is passed over.
//! Memory: two batches of at most [`BATCH_BYTES_MAX`], one person, and 16 bytes for each person of the file.
//! Drops: nobody in silence; each refusal is told.
//! Must not know: how the file lies on the disk.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::answer::Answer;
use super::register::{Register, stopped};
use super::request::Request;
use super::{EnrolError, Enrolment, SAMPLES_A_SUBJECT_MAX, SubjectFields};
use crate::gallery::{GalleryVersion, Search};
use crate::mutation::Mutation;
use crate::portable::{Person, Portable, PortableError, PortableSample};
use crate::store::{Candidature, Committed, Findings, Standing, StoreError};
use crate::subject::{SampleId, SubjectId, SubjectUid};

/// The most people, samples and bytes of photos of one commit.
const BATCH_PEOPLE_MAX: usize = 256;
const BATCH_SAMPLES_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 16 << 20;
/// The closest people that are looked at for a stranger among them.
const CLOSEST: usize = 16;
/// Batches that are read ahead; the reader waits when there is one.
const BATCHES_AHEAD: usize = 1;

/// How a file is imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportOptions {
    /// Only say what it would do.
    pub dry_run: bool,
    /// Take people who look like somebody who was there before.
    pub allow_duplicate: bool,
}

/// What an import tells while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum ImportStep {
    /// So many of all people were looked at.
    Progress {
        /// Looked at.
        done: u64,
        /// In the file.
        total: u64,
    },
    /// Somebody, or one sample, was not taken.
    Refused(RefusedImport),
}

/// Somebody, or one sample, that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedImport {
    /// Who.
    pub subject: SubjectId,
    /// Which sample, where the others were taken.
    pub sample: Option<SampleId>,
    /// A stable name.
    pub reason: &'static str,
    /// What is wrong, for a person.
    pub message: String,
}

/// What an import did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// The gallery version that matches them.
    pub version: u64,
    /// Subjects that came in.
    pub subjects_imported: u64,
    /// Samples that came in.
    pub samples_imported: u64,
    /// Subjects that were there already, as after an import that ended early.
    pub subjects_present: u64,
    /// Subjects that were refused.
    pub subjects_refused: u64,
    /// Samples that were refused, of subjects who came in.
    pub samples_refused: u64,
    /// Samples that came in and match nothing, since their template is of another encoder.
    pub foreign_templates: u64,
}

impl Enrolment {
    /// Takes the people of `file` in, and tells `tell` how far it is; where nobody listens any more, it
    /// ends after what is under way. One import or reload at a time.
    ///
    /// # Errors
    /// [`EnrolError::Portable`], and nothing was changed; [`EnrolError::ImportBusy`];
    /// [`EnrolError::Store`], and who came in before stays.
    pub async fn import_gallery(
        &self,
        file: File,
        import: ImportOptions,
        tell: mpsc::Sender<ImportStep>,
    ) -> Result<ImportReport, EnrolError> {
        import_into(&self.register, file, (import, tell)).await
    }
}

async fn import_into(
    register: &Arc<Register>,
    file: File,
    (import, tell): (ImportOptions, mpsc::Sender<ImportStep>),
) -> Result<ImportReport, EnrolError> {
    let _alone = register.reload_turn.try_lock().map_err(|_| EnrolError::ImportBusy)?;
    let open = move || {
        let portable = Portable::open(file)?;
        let in_file = portable.uids()?;
        Ok::<_, PortableError>((portable, in_file))
    };
    let (portable, in_file) = spawn_blocking(open).await.map_err(stopped)??;
    let total = portable.manifest().subjects;
    let (ahead, mut batches) = mpsc::channel(BATCHES_AHEAD);
    let reader = spawn_blocking(move || read_batches(&portable, &ahead));
    let before = register.gallery.current();
    let (mut report, mut done) = (ImportReport { version: before.version(), ..ImportReport::default() }, 0);
    let strangers = Arc::new(Strangers { before, in_file });
    while let Some(batch) = batches.recv().await {
        done += batch.people.len() as u64;
        let looked_at = look_at(register, batch, (!import.allow_duplicate).then(|| Arc::clone(&strangers))).await?;
        let taken = if import.dry_run {
            admit(register, looked_at).await?
        } else {
            let take = |register: Arc<Register>, request| async move { commit(&register, request, looked_at).await };
            register.in_turn(Request::import_gallery(), take).await?
        };
        report.add(&taken);
        let refusals = taken.refused.into_iter().map(ImportStep::Refused);
        for step in refusals.chain([ImportStep::Progress { done, total }]) {
            if tell.send(step).await.is_err() {
                return Ok(report);
            }
        }
    }
    reader.await.map_err(stopped)??;
    Ok(report)
}

/// People who are committed together.
#[derive(Default)]
struct Batch {
    people: Vec<Person>,
    samples: usize,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.people.len() >= BATCH_PEOPLE_MAX || self.samples >= BATCH_SAMPLES_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

/// Reads all people and gives them on; ends early when nobody wants them.
fn read_batches(portable: &Portable, ahead: &mpsc::Sender<Batch>) -> Result<(), EnrolError> {
    let mut batch = Batch::default();
    let gone = |_| EnrolError::Store(StoreError::Stopped);
    portable.each_person(|person| {
        batch.samples += person.samples.len();
        batch.bytes += person.samples.iter().filter_map(|sample| sample.photo.as_ref()).map(|photo| photo.len()).sum::<usize>();
        batch.people.push(person);
        if batch.is_full() { ahead.blocking_send(std::mem::take(&mut batch)).map_err(gone) } else { Ok(()) }
    })?;
    if batch.people.is_empty() { Ok(()) } else { ahead.blocking_send(batch).map_err(gone) }
}

/// People of a batch who may come in, as far as they themselves tell, and refusals.
#[derive(Default)]
struct LookedAt {
    people: Vec<Person>,
    refused: Vec<RefusedImport>,
}

/// What came of a batch.
#[derive(Clone, Default)]
struct Taken {
    mutations: Vec<Mutation>,
    refused: Vec<RefusedImport>,
    report: ImportReport,
}

/// A batch is no call that is repeated: nothing is kept of its answer.
impl Answer for Taken {
    type Record = ();

    fn to_record(&self) {}

    fn from_record((): ()) -> Option<Self> {
        None
    }
}

impl ImportReport {
    fn add(&mut self, taken: &Taken) {
        let refused_whole = taken.refused.iter().filter(|refused| refused.sample.is_none()).count() as u64;
        self.version = self.version.max(taken.report.version);
        self.subjects_imported += taken.report.subjects_imported;
        self.samples_imported += taken.report.samples_imported;
        self.subjects_present += taken.report.subjects_present;
        self.subjects_refused += refused_whole;
        self.samples_refused += taken.report.samples_refused;
        self.foreign_templates += taken.report.foreign_templates;
    }
}

/// Whom people of the file are compared with: those who were there before and are not in the file. So an
/// import that goes on compares with the same people as one that was never interrupted.
struct Strangers {
    before: Arc<GalleryVersion>,
    in_file: HashSet<SubjectUid>,
}

/// Checks what is stated of each person and, where `strangers` are given, whether one of them looks the same.
async fn look_at(register: &Arc<Register>, batch: Batch, strangers: Option<Arc<Strangers>>) -> Result<LookedAt, EnrolError> {
    // Who is there already, or cannot come in at all, need not be compared: that takes long.
    let findings = register.store.standings(candidatures(&batch.people)).await?;
    let register = Arc::clone(register);
    let work = spawn_blocking(move || {
        let mut looked_at = LookedAt::default();
        for (mut person, findings) in batch.people.into_iter().zip(findings) {
            let fault = fault_of(&mut person);
            let fault = match &strangers {
                Some(strangers) if fault.is_none() && findings.standing == Standing::Free => duplicate(&register, strangers, &person)?,
                _ => fault,
            };
            match fault {
                Some((reason, message)) => looked_at.refused.push(refused(&person.subject.id, reason, message)),
                None => looked_at.people.push(person),
            }
        }
        Ok(looked_at)
    });
    work.await.map_err(stopped)?
}

fn candidatures(people: &[Person]) -> Vec<Candidature> {
    let candidature = |person: &Person| Candidature {
        uid: person.subject.uid,
        id: person.subject.id.clone(),
        samples: person.samples.iter().map(|taken| (taken.sample.id, taken.sample.content_sha256)).collect(),
    };
    people.iter().map(candidature).collect()
}

fn refused(subject: &SubjectId, reason: &'static str, message: impl Into<String>) -> RefusedImport {
    RefusedImport { subject: subject.clone(), sample: None, reason, message: message.into() }
}

/// What of a person is beyond the limits that enrolment has; else the person, its lists in order.
fn fault_of(person: &mut Person) -> Option<(&'static str, String)> {
    if person.samples.is_empty() {
        return Some(("TOO_LARGE", "the photos have more than 256 MiB together: enrol the person from some of them".into()));
    }
    if person.samples.len() > SAMPLES_A_SUBJECT_MAX {
        return Some(("TOO_MANY_SAMPLES", format!("there are {}; a subject may have {SAMPLES_A_SUBJECT_MAX}", person.samples.len())));
    }
    let subject = &person.subject;
    let fields = SubjectFields {
        display_name: Some(subject.display_name.clone()),
        watchlists: Some(subject.watchlists.clone()),
        attributes: Some(subject.attributes.clone()),
        consent_reference: Some(subject.consent_reference.clone()),
        expire_time: None,
    };
    match fields.checked() {
        Ok(fields) => {
            fields.write_to(&mut person.subject);
            None
        }
        Err(error) => Some(("BAD_FIELD", error.to_string())),
    }
}

/// Whether one of the strangers looks like the person.
fn duplicate(register: &Register, strangers: &Strangers, person: &Person) -> Result<Option<(&'static str, String)>, EnrolError> {
    let before = &strangers.before;
    if before.template_count() == 0 {
        return Ok(None);
    }
    let templates = person.samples.iter().filter(|known| !known.sample.negative).flat_map(|known| &known.templates);
    let probes: Vec<_> = templates.filter(|template| template.space() == before.space()).collect();
    let is_stranger = |uid| !strangers.in_file.contains(&uid);
    // One core: cameras search meanwhile.
    let closest = before.search_enrolled(&probes, &Search { k: CLOSEST, admits: &|_| true, cores_max: Some(1) })?;
    for (probe, closest) in probes.into_iter().zip(closest) {
        // Nearly always nobody is close. To ask for strangers alone takes longer, where there are none.
        let mut similar: Vec<_> = closest.into_iter().filter(|found| register.is_match(found.similarity)).collect();
        if similar.len() == CLOSEST && !similar.iter().any(|found| is_stranger(found.subject)) {
            let strangers_alone = Search { k: 1, admits: &is_stranger, cores_max: Some(1) };
            similar = before.search_enrolled(&[probe], &strangers_alone)?.into_iter().flatten().collect();
        }
        for found in similar.into_iter().filter(|found| is_stranger(found.subject) && register.is_match(found.similarity)) {
            if let Some(other) = register.gallery.subject(found.subject) {
                let message = format!("the face is already enrolled as {} (similarity {:.3})", other.id, found.similarity);
                return Ok(Some(("POSSIBLE_DUPLICATE", message)));
            }
        }
    }
    Ok(None)
}

/// Looks up who of them can come in now, and makes the mutations that take them in.
async fn admit(register: &Register, looked_at: LookedAt) -> Result<Taken, EnrolError> {
    let findings = register.store.standings(candidatures(&looked_at.people)).await?;
    let mut taken = Taken { refused: looked_at.refused, ..Taken::default() };
    // What the store cannot know yet: who stands twice in one batch.
    let mut seen = HashSet::new();
    for (person, findings) in looked_at.people.into_iter().zip(findings) {
        let standing = if seen.insert(person.subject.uid.0) { findings.standing } else { Standing::UidTaken };
        let fault = match standing {
            Standing::Free => None,
            Standing::Present => {
                taken.report.subjects_present += 1;
                continue;
            }
            Standing::IdTaken => Some(("SUBJECT_EXISTS", "somebody else has this id")),
            Standing::UidTaken => Some(("SUBJECT_EXISTS", "the same person is there under another id")),
            Standing::Retired => {
                Some(("SUBJECT_RETIRED", "the person was taken out and is kept: `doorward gallery rollback` brings them back"))
            }
            Standing::Erased => Some(("ERASED_PERSON", "the person was erased here: enrol them from a photo to bring them back")),
        };
        match fault {
            Some((reason, message)) => taken.refused.push(refused(&person.subject.id, reason, message)),
            None => take(register, person, (&findings, &mut seen), &mut taken),
        }
    }
    Ok(taken)
}

/// Takes a person in with the samples that can come in, if there is one.
fn take(register: &Register, person: Person, (findings, seen): (&Findings, &mut HashSet<uuid::Uuid>), taken: &mut Taken) {
    let (subject, mut samples) = (person.subject, Vec::new());
    let mut refusals = Vec::new();
    for (known, (is_erased, is_taken)) in person.samples.into_iter().zip(&findings.samples) {
        let fault = if *is_erased {
            Some(("ERASED_PERSON", "the photo was erased here with its person"))
        } else if *is_taken || !seen.insert(known.sample.id.0) {
            Some(("SAMPLE_EXISTS", "a sample with this id is there already"))
        } else {
            None
        };
        match fault {
            Some((reason, message)) => {
                refusals.push(RefusedImport { sample: Some(known.sample.id), ..refused(&subject.id, reason, message) });
            }
            None => samples.push(known),
        }
    }
    if samples.iter().all(|known| known.sample.negative) {
        let none = || ("NO_SAMPLE", "none of the samples shows the person: the others are negative".to_owned());
        let (reason, message) = refusals.pop().map_or_else(none, |last| (last.reason, last.message));
        taken.refused.push(refused(&subject.id, reason, message));
        return;
    }
    let space = register.gallery.space();
    taken.report.foreign_templates +=
        samples.iter().filter(|sample| sample.templates.iter().all(|one| one.space() != space)).count() as u64;
    taken.report.subjects_imported += 1;
    taken.report.samples_imported += samples.len() as u64;
    taken.report.samples_refused += refusals.len() as u64;
    taken.refused.append(&mut refusals);
    taken.mutations.push(Mutation::PutSubject(subject));
    for PortableSample { sample, mut templates, photo } in samples {
        // The one that matches here first; those of other spaces beside it.
        templates.sort_by_key(|template| template.space() != space);
        let mut templates = templates.into_iter();
        if let Some(template) = templates.next() {
            taken.mutations.push(Mutation::PutSample { sample: sample.clone(), template, photo: photo.unwrap_or_default() });
        }
        taken.mutations.extend(templates.map(|template| Mutation::PutTemplate { sample: sample.clone(), template }));
    }
}

/// Takes a batch in, in its turn.
async fn commit(register: &Register, request: Request, looked_at: LookedAt) -> Result<Taken, EnrolError> {
    let mut taken = admit(register, looked_at).await?;
    let mutations = std::mem::take(&mut taken.mutations);
    if mutations.is_empty() {
        return Ok(taken);
    }
    let told = taken.clone();
    let answer = move |committed: &Committed| {
        let report = ImportReport { version: committed.version, ..told.report };
        Taken { report, ..told.clone() }
    };
    register.commit(request, mutations, answer).await
}

impl From<PortableError> for EnrolError {
    fn from(error: PortableError) -> Self {
        Self::Portable(error)
    }
}
