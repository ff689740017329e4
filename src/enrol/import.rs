//! `ImportSubjects`: any number of photos in a stream, each taken or refused on its own.
//!
//! In: photos, each with whose it is. Out: what became of each, once it is on disk and matching. What is
//! there already is known by its content and not looked at again, so that an import that was killed is
//! resumed by repeating it. Photos are looked at a few at a time and committed in groups, in the order in
//! which they came.
//! Bounds: [`UNDER_WAY_MAX`] photos are looked at or wait for the first of them, [`group::PHOTOS_MAX`]
//! wait for their commit, [`BYTES_HELD_MAX`] in all; then no more are received, and the sender waits. So
//! it does while nobody takes the results.
//! Drops: what was received and is not committed when the import is dropped or fails; nobody was told
//! of it.
//! Must not know: the wire, how photos are encoded.

mod group;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::prepare::{Prepared, sha256};
use super::register::{Register, stopped};
use super::reload::{Prepare, patiently};
use super::{Allowed, EnrolError, SubjectFields};
use crate::store::KnownContent;
use crate::subject::{Origin, SubjectId};
use group::Group;

/// The photos that are looked at or wait for the first of them: enough that a large one in front leaves
/// no session idle, few enough that questions about single pictures do not wait long.
const UNDER_WAY_MAX: usize = 8;
/// The bytes of photos from which on no more are received: one import holds as much and one photo.
const BYTES_HELD_MAX: usize = 32 << 20;
/// How long the first photo of a group waits for others to share its commit.
pub(super) const GROUP_WAIT: Duration = Duration::from_millis(200);

/// A photo to be imported.
#[derive(Clone, Debug)]
pub struct ImportItem {
    /// What the caller calls it; it comes back with the result.
    pub key: String,
    /// Whose photo it is.
    pub subject: SubjectId,
    /// What is stated of the subject, where it is new. One that is there stays as it is.
    pub fields: SubjectFields,
    /// The photo's bytes.
    pub photo: Arc<[u8]>,
    /// What is taken all the same.
    pub allowed: Allowed,
}

/// What became of a photo.
#[derive(Debug)]
pub struct ImportResult {
    /// The item's.
    pub key: String,
    /// The item's.
    pub subject: SubjectId,
    /// Or why it was refused: only errors that are about this one photo.
    pub outcome: Result<Imported, EnrolError>,
    /// A gallery version that holds the photo, where it was taken.
    pub version: u64,
}

/// How a photo was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is a sample of the subject now, on disk and matching.
    Added,
    /// It was one before.
    Unchanged,
}

/// One import.
pub(super) struct Import {
    pub register: Arc<Register>,
    pub prepare: Prepare,
    /// How long a photo waits when inference has no room for it.
    pub busy_wait: Duration,
    pub group_wait: Duration,
}

/// A photo that was looked at.
struct Looked {
    item: ImportItem,
    verdict: Verdict,
}

/// What is known of a photo before its turn.
enum Verdict {
    Unchanged,
    Refused(EnrolError),
    Prepared(Prepared),
}

/// How many photos were told of.
#[derive(Default)]
struct Counts {
    added: u64,
    unchanged: u64,
    refused: u64,
}

impl Import {
    /// Takes `items` until there are no more, and tells `results`, several at once where they come thick.
    /// Ends early, without an error, when nobody takes results any more.
    ///
    /// # Errors
    /// What is about no single photo: the store or inference failed. What was told stays.
    pub async fn run(self, mut items: mpsc::Receiver<ImportItem>, results: mpsc::Sender<Vec<ImportResult>>) -> Result<(), EnrolError> {
        let mut under_way: VecDeque<AbortOnDropHandle<Result<Looked, EnrolError>>> = VecDeque::new();
        let (mut group, mut bytes_under_way, mut is_open) = (Group::default(), 0, true);
        let (mut due, mut counts) = (Instant::now(), Counts::default());
        while is_open || !under_way.is_empty() || !group.is_empty() {
            let has_room = under_way.len() < UNDER_WAY_MAX && bytes_under_way + group.bytes() < BYTES_HELD_MAX;
            let mut is_due = false;
            tokio::select! {
                biased;
                looked = async { (&mut under_way[0]).await }, if !under_way.is_empty() => {
                    under_way.pop_front();
                    let looked = looked.map_err(stopped)??;
                    bytes_under_way -= looked.item.photo.len();
                    if group.is_empty() {
                        due = Instant::now() + self.group_wait;
                    }
                    group.push(looked);
                }
                item = items.recv(), if is_open && has_room => match item {
                    Some(item) => {
                        bytes_under_way += item.photo.len();
                        under_way.push_back(self.begin(item));
                    }
                    None => is_open = false,
                },
                () = sleep_until(due), if !group.is_empty() => is_due = true,
                else => {}
            }
            if is_due || group.is_full() || (!is_open && under_way.is_empty() && !group.is_empty()) {
                let told = std::mem::take(&mut group).settle(&self.register).await?;
                counts.add(&told);
                if results.send(told).await.is_err() {
                    break;
                }
            }
        }
        tracing::info!(added = counts.added, unchanged = counts.unchanged, refused = counts.refused, "an import has ended");
        Ok(())
    }

    /// Looks at a photo beside others; it is dropped with the import.
    fn begin(&self, item: ImportItem) -> AbortOnDropHandle<Result<Looked, EnrolError>> {
        let (register, prepare, busy_wait) = (Arc::clone(&self.register), Arc::clone(&self.prepare), self.busy_wait);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut item = item;
            let verdict = match look(&register, &mut item, (&prepare, busy_wait)).await {
                Ok(verdict) => verdict,
                Err(refusal) if refusal.is_refusal() => Verdict::Refused(refusal),
                Err(failure) => return Err(failure),
            };
            Ok(Looked { item, verdict })
        }))
    }
}

impl Counts {
    fn add(&mut self, told: &[ImportResult]) {
        for result in told {
            match result.outcome {
                Ok(Imported::Added) => self.added += 1,
                Ok(Imported::Unchanged) => self.unchanged += 1,
                Err(_) => self.refused += 1,
            }
        }
    }
}

/// Asks first what needs no look at the picture: most photos of a repeated import end here.
async fn look(register: &Register, item: &mut ImportItem, (prepare, busy_wait): (&Prepare, Duration)) -> Result<Verdict, EnrolError> {
    item.fields = std::mem::take(&mut item.fields).checked()?;
    let photo = Arc::clone(&item.photo);
    let content = spawn_blocking(move || sha256(&photo)).await.map_err(stopped)?;
    let known = register.store.known_contents(vec![content]).await?.pop().unwrap_or_default();
    if is_there(&known, &item.subject)? {
        return Ok(Verdict::Unchanged);
    }
    match register.store.subject(&item.subject).await? {
        Some(subject) if subject.origin == Origin::Folder => return Err(EnrolError::FromFolder(subject.id)),
        Some(_) => {}
        None => register.check_not_erased(&item.subject).await?,
    }
    patiently(prepare, Arc::clone(&item.photo), busy_wait).await.map(Verdict::Prepared)
}

/// Whether the content is a sample of `subject` already.
///
/// # Errors
/// It shows somebody else, or somebody who was erased.
fn is_there(known: &KnownContent, subject: &SubjectId) -> Result<bool, EnrolError> {
    if known.owners.contains(subject) {
        return Ok(true);
    }
    match known.owners.first() {
        Some(other) => Err(EnrolError::PhotoOfAnother(other.clone())),
        None if known.is_erased => Err(EnrolError::ErasedPerson),
        None => Ok(false),
    }
}
