//! `ReencodeGallery`: templates for another encoder, made from the kept photos while the old ones match.
//!
//! In: the name of an encoder. Out: a template of its space beside each sample's others, and for whom none
//! could be made. For the encoder in force they match at once; for another one they match from the start
//! of a daemon that has it in force: a start loads templates of one space, so nobody ever sees a mixture.
//! Whatever was made is kept: run again, it goes on with what is missing, and with who came meanwhile.
//! One photo at a time, on a session of its own, and only when cameras leave one idle; a photo that has
//! waited for a second goes all the same.
//! Must not know: how an encoder is opened, SQL.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;

use super::answer::Answer;
use super::register::{Register, stopped};
use super::request::Request;
use super::{EnrolError, Enrolment};
use crate::face::{Template, TemplateSpace};
use crate::infer::{Engine, SessionPermit};
use crate::mutation::Mutation;
use crate::photo::{PhotoAnalyst, PhotoError};
use crate::store::{Committed, Lacking};
use crate::subject::{SampleId, SubjectId};

/// Templates that are kept in one commit: as many are lost at most when the daemon is killed.
const KEPT_AT_ONCE: u32 = 16;
/// How often a photo looks whether cameras leave a session idle, and how long it waits for that at most.
const IDLE_POLL: Duration = Duration::from_millis(20);
const IDLE_WAIT_MAX: Duration = Duration::from_secs(1);

/// An encoder that was opened beside the one in force.
pub struct OtherEncoder {
    /// Looks at photos with it, on a session of its own.
    pub photos: PhotoAnalyst,
    /// The space that its templates live in.
    pub space: TemplateSpace,
}

/// Opens the encoder of this name, or the one in force for an empty name; blocks. The error says what to do.
pub type OpenEncoder = Arc<dyn Fn(&str) -> Result<OtherEncoder, String> + Send + Sync>;

/// What templates for other encoders are made with.
#[derive(Clone)]
pub(super) struct Encoders {
    open: OpenEncoder,
    /// The sessions that cameras are analysed on: they go first.
    live: Engine,
    turn: Arc<Mutex<()>>,
}

/// What is told while templates are made.
#[derive(Clone, Debug, PartialEq)]
pub enum ReencodeStep {
    /// How far it is.
    Progress(ReencodeProgress),
    /// For this sample no template could be made.
    Refused(RefusedTemplate),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReencodeProgress {
    /// Samples that were looked at.
    pub done: u64,
    /// Samples that lacked a template.
    pub total: u64,
    /// Samples a second so far.
    pub rate: f64,
    /// How long it will still take at this rate.
    pub left: Duration,
}

/// A sample without a template of the new space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedTemplate {
    /// Whose.
    pub subject: Option<SubjectId>,
    /// Which.
    pub sample: SampleId,
    /// A stable name.
    pub reason: &'static str,
    /// What is wrong, for a person.
    pub message: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReencodeReport {
    /// The space that the templates live in.
    pub space: TemplateSpace,
    /// Whether that space is in force: then they match already.
    pub is_in_force: bool,
    /// Templates that were made.
    pub made: u64,
    /// Samples that had one already.
    pub present: u64,
    /// Samples that none could be made for.
    pub refused: u64,
    /// Subjects without any template in that space: they match nothing there.
    pub subjects_lacking: u64,
}

impl Enrolment {
    /// The same, able to make templates for other encoders, giving way to what `live` does.
    #[must_use]
    pub fn with_encoders(mut self, open: OpenEncoder, live: Engine) -> Self {
        self.encoders = Some(Encoders { open, live, turn: Arc::default() });
        self
    }

    /// Makes what is missing of the templates for `encoder` (empty: the one in force), and tells `tell` how
    /// far it is; where nobody listens any more, it ends. One at a time.
    ///
    /// # Errors
    /// [`EnrolError::EncoderUnavailable`], [`EnrolError::ReencodeBusy`]; [`EnrolError::Photo`] when inference
    /// fails and [`EnrolError::Store`]: what was made is kept then.
    pub async fn reencode(&self, encoder: &str, tell: mpsc::Sender<ReencodeStep>) -> Result<ReencodeReport, EnrolError> {
        let encoders = self.encoders.clone().ok_or_else(|| EnrolError::EncoderUnavailable("no other encoder can be opened here".into()))?;
        let _alone = Arc::clone(&encoders.turn).try_lock_owned().map_err(|_| EnrolError::ReencodeBusy)?;
        let (open, name) = (encoders.open, encoder.to_owned());
        let other = spawn_blocking(move || open(&name)).await.map_err(stopped)?.map_err(EnrolError::EncoderUnavailable)?;
        self.make_templates(other, encoders.live, tell).await
    }

    /// The same with an encoder that is open already.
    ///
    /// # Errors
    /// As [`reencode`](Self::reencode).
    pub async fn reencode_by(&self, other: OtherEncoder, tell: mpsc::Sender<ReencodeStep>) -> Result<ReencodeReport, EnrolError> {
        let encoders = self.encoders.clone().ok_or_else(|| EnrolError::EncoderUnavailable("no other encoder can be opened here".into()))?;
        let _alone = Arc::clone(&encoders.turn).try_lock_owned().map_err(|_| EnrolError::ReencodeBusy)?;
        self.make_templates(other, encoders.live, tell).await
    }

    async fn make_templates(
        &self,
        other: OtherEncoder,
        live: Engine,
        tell: mpsc::Sender<ReencodeStep>,
    ) -> Result<ReencodeReport, EnrolError> {
        let photos = other.photos;
        let encode: Encode = Box::new(move |photo| {
            let (photos, live) = (photos.clone(), live.clone());
            Box::pin(async move {
                let _place = when_idle(&live).await;
                photos.only_template(&photo).await.map(|(_, template)| template)
            })
        });
        let outcome = Reencoding { register: &self.register, space: other.space, encode: &encode }.run(tell).await;
        // Its sessions end with it, which takes a moment.
        spawn_blocking(move || drop(encode)).await.map_err(stopped)?;
        outcome
    }
}

/// A place beside the cameras: when one is idle, or after a second in its turn.
async fn when_idle(live: &Engine) -> Option<SessionPermit> {
    let in_time = async {
        loop {
            match live.idle_session_now() {
                Some(permit) => return permit,
                None => tokio::time::sleep(IDLE_POLL).await,
            }
        }
    };
    match tokio::time::timeout(IDLE_WAIT_MAX, in_time).await {
        Ok(permit) => Some(permit),
        // Without sessions the daemon is ending, which this notices by itself.
        Err(_) => live.idle_session().await.ok(),
    }
}

/// Makes a template of a photo: an argument, so that the order of things can be tested without models.
type Encode = Box<dyn Fn(Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Template, PhotoError>> + Send>> + Send + Sync>;

struct Reencoding<'a> {
    register: &'a Arc<Register>,
    space: TemplateSpace,
    encode: &'a Encode,
}

impl Reencoding<'_> {
    async fn run(self, tell: mpsc::Sender<ReencodeStep>) -> Result<ReencodeReport, EnrolError> {
        let store = &self.register.store;
        let began = self.register.clock.now();
        let (lacking, all) = store.count_lacking(&self.space).await?;
        let mut report = ReencodeReport {
            space: self.space.clone(),
            is_in_force: self.space == *self.register.gallery.space(),
            made: 0,
            present: all.saturating_sub(lacking),
            refused: 0,
            subjects_lacking: 0,
        };
        // In the order of arrival: who is enrolled meanwhile comes last, and is looked at too.
        let (mut last, mut done) = (0, 0);
        loop {
            let page = store.samples_lacking(&self.space, last, KEPT_AT_ONCE).await?;
            let Some(newest) = page.last() else { break };
            last = newest.number;
            done += page.len() as u64;
            let mut steps = Vec::new();
            let mut made = Vec::with_capacity(page.len());
            for sample in page {
                match self.template_of(&sample).await? {
                    Ok(template) => made.push((sample, template)),
                    Err(refused) => steps.push(ReencodeStep::Refused(refused)),
                }
            }
            (report.made, report.refused) = (report.made + made.len() as u64, report.refused + steps.len() as u64);
            self.keep(made).await?;
            let elapsed = self.register.clock.now().since(began);
            steps.push(ReencodeStep::Progress(progress(done, lacking, elapsed)));
            for step in steps {
                if tell.send(step).await.is_err() {
                    return Ok(report);
                }
            }
        }
        report.subjects_lacking = store.subjects_lacking(&self.space).await?;
        Ok(report)
    }

    /// The new template of a sample, or why there is none.
    async fn template_of(&self, sample: &Lacking) -> Result<Result<Template, RefusedTemplate>, EnrolError> {
        let refused = |reason, message: &str| {
            Ok(Err(RefusedTemplate { subject: sample.subject.clone(), sample: sample.sample, reason, message: message.to_owned() }))
        };
        let Some(photo) = self.register.store.photo(sample.number).await? else {
            return refused("NO_PHOTO", "its photo is not kept: add a photo of this person with the new encoder in force");
        };
        match (self.encode)(photo).await {
            Ok(template) => Ok(Ok(template)),
            Err(error @ PhotoError::BadImage(_)) => refused("BAD_IMAGE", &error.to_string()),
            Err(error @ PhotoError::NoFace) => refused("NO_FACE", &error.to_string()),
            Err(error @ PhotoError::SeveralFaces(_)) => refused("SEVERAL_FACES", &error.to_string()),
            Err(error @ PhotoError::Infer(_)) => Err(error.into()),
        }
    }

    /// Keeps what was made. In the space in force it is a change of the gallery, since it begins to match.
    async fn keep(&self, made: Vec<(Lacking, Template)>) -> Result<(), EnrolError> {
        if self.space != *self.register.gallery.space() {
            let templates = made.into_iter().map(|(sample, template)| (sample.number, template));
            return Ok(self.register.store.keep_later_templates(templates.collect()).await?);
        }
        let take = |register: Arc<Register>, request| async move { let_match(&register, request, made).await };
        self.register.in_turn(Request::reencode(), take).await.map(|Matching| ())
    }
}

fn progress(done: u64, lacking: u64, elapsed: Duration) -> ReencodeProgress {
    let total = lacking.max(done);
    let rate = if elapsed.is_zero() { 0.0 } else { done as f64 / elapsed.as_secs_f64() };
    let left = if rate > 0.0 { Duration::try_from_secs_f64((total - done) as f64 / rate).unwrap_or_default() } else { Duration::ZERO };
    ReencodeProgress { done, total, rate, left }
}

/// What was made matches now. No call is repeated by it, so nothing is kept of this.
struct Matching;

impl Answer for Matching {
    type Record = ();

    fn to_record(&self) {}

    fn from_record((): ()) -> Option<Self> {
        None
    }
}

/// Lets templates match in their turn. Those of samples that are not in the gallery now are kept for when they come back: nobody
/// takes them out or brings them back before the turn has ended.
async fn let_match(register: &Register, request: Request, made: Vec<(Lacking, Template)>) -> Result<Matching, EnrolError> {
    let held = register.store.held_samples(made.iter().map(|(lacking, _)| lacking.sample).collect()).await?;
    let (mut mutations, mut later) = (Vec::new(), Vec::new());
    for ((lacking, template), sample) in made.into_iter().zip(held) {
        match sample {
            Some(sample) => mutations.push(Mutation::PutTemplate { sample, template }),
            None => later.push((lacking.number, template)),
        }
    }
    register.store.keep_later_templates(later).await?;
    if mutations.is_empty() {
        return Ok(Matching);
    }
    register.commit(request, mutations, |_: &Committed| Matching).await
}
