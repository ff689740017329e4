//! Photos of the enrolment folder that may show somebody else: they enrol all the same, since whoever
//! fills the folder may know twins apart, and are named with the reason.
//!
//! In: prepared photos, what is known. Out: remarks. Compared with the gallery that is in force and
//! with the other photos of the same reload; people who leave with it are nobody's double.
//! Must not know: files, what is committed.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;

use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::enrol::check::close_subjects;
use crate::enrol::doubt;
use crate::enrol::folder::Listing;
use crate::enrol::plan::{Known, PreparedPhotos, is_present};
use crate::enrol::register::{Register, stopped};
use crate::enrol::{EnrolError, FileRemark};
use crate::event::Candidate;
use crate::face::Template;
use crate::gallery::{Gallery, Row};
use crate::subject::{Origin, SampleId, SubjectId, SubjectUid};

/// A photo that will enrol somebody.
struct NewPhoto {
    path: String,
    subject: SubjectId,
    uid: SubjectUid,
    template: Template,
}

/// What may be wrong with the photos that are about to enrol somebody, by path.
pub(super) async fn doubts(
    register: &Register,
    (listing, known): (&Listing, &Known),
    prepared: &PreparedPhotos,
) -> Result<Vec<FileRemark>, EnrolError> {
    let mut photos = new_photos(listing, known, prepared);
    let mut remarks = inconsistent(register, known, &photos).await?;
    photos.extend(returning_photos(listing, known));
    let names: HashMap<SubjectUid, &SubjectId> = photos.iter().map(|photo| (photo.uid, &photo.subject)).collect();
    let close = close_to(register, &photos).await?;
    for (photo, close) in photos.iter().zip(close) {
        let name_of = |candidate: &Candidate| match names.get(&candidate.subject) {
            Some(name) => Some((*name).clone()),
            None => register.gallery.subject(candidate.subject).map(|subject| subject.id.clone()),
        };
        let stays = |id: &SubjectId| known.subjects.get(id).is_none_or(|subject| subject.origin == Origin::Rpc || is_present(listing, id));
        let other = close.iter().find_map(|candidate| {
            let name = name_of(candidate).filter(|name| *name != photo.subject && stays(name))?;
            Some((name, candidate.similarity))
        });
        if let Some((name, similarity)) = other {
            let message = format!("it looks like {name} as well (similarity {similarity:.3}); it was taken all the same");
            remarks.push(FileRemark { path: photo.path.clone(), reason: "POSSIBLE_DUPLICATE", message });
        }
    }
    remarks.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(remarks)
}

fn new_photos(listing: &Listing, known: &Known, prepared: &PreparedPhotos) -> Vec<NewPhoto> {
    let mut uids: HashMap<SubjectId, SubjectUid> = HashMap::new();
    let new = listing.photos.iter().filter_map(|photo| {
        let template = prepared.get(&photo.path)?.as_ref().ok()?.template.clone();
        let uid =
            known.uid(&photo.subject).unwrap_or_else(|| *uids.entry(photo.subject.clone()).or_insert_with(|| SubjectUid(Uuid::new_v4())));
        Some(NewPhoto { path: photo.path.clone(), subject: photo.subject.clone(), uid, template })
    });
    new.collect()
}

/// The photos of those who are there again: somebody else may have been enrolled by them meanwhile.
fn returning_photos(listing: &Listing, known: &Known) -> Vec<NewPhoto> {
    let there: HashSet<(&str, [u8; 32])> = listing.photos.iter().map(|photo| (photo.path.as_str(), photo.content_sha256)).collect();
    let samples =
        known.returning.values().flat_map(|person| person.samples.iter().map(move |(sample, template)| (person, sample, template)));
    let new = samples.filter_map(|(person, sample, template)| {
        let path = sample.folder_path.clone().filter(|path| there.contains(&(path.as_str(), sample.content_sha256)))?;
        Some(NewPhoto { path, subject: person.subject.id.clone(), uid: person.subject.uid, template: template.clone() })
    });
    new.collect()
}

/// Photos that look like none of their subject's, old or new.
async fn inconsistent(register: &Register, known: &Known, photos: &[NewPhoto]) -> Result<Vec<FileRemark>, EnrolError> {
    let mut remarks = Vec::new();
    // The photos of one subject lie together.
    for of_one in photos.chunk_by(|a, b| a.subject == b.subject) {
        let id = &of_one[0].subject;
        let mut others = match (known.subjects.get(id), known.returning.get(id)) {
            (Some(subject), _) => doubt::Known::of(register.store.samples(subject.uid).await?),
            (None, Some(person)) => doubt::Known::of(person.samples.clone()),
            (None, None) => doubt::Known::default(),
        };
        let before = others.own.len();
        others.own.extend(of_one.iter().map(|photo| photo.template.clone()));
        for (index, photo) in of_one.iter().enumerate() {
            let itself = others.own.remove(before + index);
            if let Err(EnrolError::Inconsistent { similarity }) = others.check_own(register.verifying_threshold(), &itself) {
                let message = format!(
                    "it does not look like the other photos of {id} (closest similarity {similarity:.3}); it was taken all the same"
                );
                remarks.push(FileRemark { path: photo.path.clone(), reason: "INCONSISTENT_SAMPLE", message });
            }
            others.own.insert(before + index, itself);
        }
    }
    Ok(remarks)
}

/// For each photo, who is close to it: in the gallery, then among the other new photos.
async fn close_to(register: &Register, photos: &[NewPhoto]) -> Result<Vec<Vec<Candidate>>, EnrolError> {
    let of_this_reload = Gallery::with_clock(register.gallery.space().clone(), register.clock.clone());
    let row =
        |photo: &NewPhoto| Row { subject: photo.uid, sample: SampleId(Uuid::new_v4()), negative: false, template: photo.template.clone() };
    let rows: Vec<Row> = photos.iter().map(row).collect();
    let templates: Vec<Template> = photos.iter().map(|photo| photo.template.clone()).collect();
    let (in_force, threshold) = (register.gallery.current(), register.identifying_threshold());
    let work = spawn_blocking(move || {
        let Ok(()) = of_this_reload.fill(1, Vec::new(), rows.into_iter().map(Ok::<_, Infallible>));
        let templates: Vec<&Template> = templates.iter().collect();
        let mut close = close_subjects(&in_force, &templates, threshold)?;
        let among_themselves = close_subjects(&of_this_reload.current(), &templates, threshold)?;
        close.iter_mut().zip(among_themselves).for_each(|(close, more)| close.extend(more));
        Ok(close)
    });
    work.await.map_err(stopped)?
}
