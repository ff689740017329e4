//! The story of a frame, from the camera's slot to the event log.
//!
//! ```text
//! batch ─▶ detect ─▶ track ─▶ encode ─▶ gallery ─▶ decide ─▶ visit ─▶ event_log
//! ```
//!
//! In: frames through [`Pipeline::watch`]'s sink. Out: events in the log, in frame order per camera.
//! A batch is taken only when a session is idle, so frames wait in their slots, where the newest
//! wins; a camera has one frame under way, so that order needs no sorting. A frame lost to a failed
//! inference, of all its faces or of some, is counted and its camera goes on; a log that cannot be
//! written ends the pipeline.
//! Must not know: GStreamer, ONNX Runtime, CUDA, the wire.

mod best_shots;
mod complaint;
mod copying;
mod cutting;
mod drawing;
mod in_shadow;
mod intake;
mod looking;
mod matching;
mod passage;
mod scene;
mod settings;
mod shadowing;
mod sweeping;
#[cfg(test)]
mod tests;
mod token;
mod unwritten;
mod watching;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::batch::{BatchPolicy, SlotSettings};
use crate::camera::CameraId;
use crate::clock::{Clock, Timestamp};
use crate::event_log::{EventLog, EventLogError};
use crate::face::{Detection, Rect, Template};
use crate::frame::Frame;
use crate::gallery::Gallery;
use crate::infer::{Engine, InferError, SessionPermit};

use complaint::Complaint;
use copying::{copied, show_onlookers};
use drawing::Undrawn;
use in_shadow::InShadow;
use intake::Intake;
use passage::Passage;
use scene::{Scene, Shot, Wanted};
pub use settings::SceneSettings;
pub use shadowing::{Shadow, ShadowEncoder, ShadowSettings};
pub use token::STUCK_AFTER;
use token::Work;
use unwritten::Unwritten;

pub use crate::visit::Layout;

/// A frame waits for others only so long that it is still analysed within this. On a CPU no frame waits.
const BATCH_LATENCY_MAX: Duration = Duration::from_millis(50);

/// The pipeline cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// Events cannot be kept: going on would lose them.
    #[error("the event log cannot be written: {0}")]
    Log(#[from] EventLogError),
    /// The sessions have ended.
    #[error("inference ended: {0}")]
    Infer(#[from] InferError),
    /// An analysis panicked.
    #[error("an analysis ended unexpectedly: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounts {
    /// Frames that were analysed.
    pub frames: u64,
    /// Faces that were found in them, weak detections left out.
    pub faces: u64,
    /// Faces that were encoded.
    pub encoded: u64,
}

/// A frame for a person to look at, with the faces found in it.
pub struct SeenFrame {
    /// A copy of the frame.
    pub frame: Frame,
    /// The faces, in its pixels.
    pub boxes: Vec<Rect>,
}

/// The pipeline. Clones share it.
#[derive(Clone)]
pub struct Pipeline(Arc<Shared>);

struct Shared {
    engine: Engine,
    gallery: Gallery,
    events: EventLog,
    clock: Arc<dyn Clock>,
    intake: Arc<Intake>,
    scenes: Mutex<HashMap<CameraId, Arc<SceneCell>>>,
    /// Since when work is under way, for the watchdog.
    under_way: Mutex<HashMap<Work, Timestamp>>,
    begun: AtomicU64,
    /// Holds no value: it wakes whoever waits for a round of sweeps to end.
    swept: Notify,
    /// How many batches were taken.
    batches: AtomicU64,
    frames: AtomicU64,
    faces: AtomicU64,
    encoded: AtomicU64,
    failed: Complaint,
    shadow: OnceLock<InShadow>,
    shadow_failed: Complaint,
    unplaced: Complaint,
}

/// A camera's scene, and the order in which its events reach the log.
struct SceneCell {
    scene: Mutex<Scene>,
    unwritten: tokio::sync::Mutex<Unwritten>,
    onlookers: Mutex<Vec<oneshot::Sender<SeenFrame>>>,
    /// Whether a sweep is writing what waits here.
    is_flushing: AtomicBool,
    score_min: f32,
}

impl SceneCell {
    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The faces of a batch that were to be encoded: for each, the index of its frame.
struct Encoded {
    /// Which frames of the batch were looked at.
    looked_at: Vec<bool>,
    shots: Vec<(usize, Shot)>,
    /// As many as shots; `None` where inference failed.
    templates: Vec<Option<Template>>,
    passage: Passage,
}

/// How a camera is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Which camera.
    pub camera: CameraId,
    /// How its frames wait and are served.
    pub slot: SlotSettings,
    /// How they are analysed.
    pub scene: SceneSettings,
}

impl Pipeline {
    /// A pipeline without cameras.
    pub fn new(engine: Engine, gallery: Gallery, events: EventLog, clock: Arc<dyn Clock>) -> Self {
        let policy = BatchPolicy { frames_max: engine.batch_max(), latency_max: BATCH_LATENCY_MAX };
        Self(Arc::new(Shared {
            intake: Intake::new(policy, Arc::clone(&clock)),
            engine,
            gallery,
            events,
            clock,
            scenes: Mutex::default(),
            under_way: Mutex::default(),
            begun: AtomicU64::new(0),
            swept: Notify::new(),
            batches: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            faces: AtomicU64::new(0),
            encoded: AtomicU64::new(0),
            failed: Complaint::of("inference failed; the frames are lost and counted as such"),
            shadow: OnceLock::new(),
            shadow_failed: Complaint::of("the shadow did not see faces; their visits count as unanswered unless it names somebody"),
            unplaced: Complaint::of("frames could not be brought to the GPU; they are analysed from the host, more slowly"),
        }))
    }

    /// Takes batches until told to stop, then finishes those under way.
    ///
    /// # Errors
    /// [`PipelineError`] when going on would lose events.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), PipelineError> {
        let mut tasks: JoinSet<Result<(), PipelineError>> = JoinSet::new();
        let (pipeline, stopped) = (self.clone(), stop.clone());
        tasks.spawn(async move { pipeline.run_sweeps(stopped).await });
        let shadow = tokio::spawn({
            let (pipeline, stop) = (self.clone(), stop.clone());
            async move { pipeline.run_shadow(stop).await }
        });
        loop {
            let next = async {
                let session = self.0.engine.idle_session().await?;
                Ok::<_, InferError>((session, self.0.intake.next_batch().await))
            };
            // Nothing else is waited for here: while a disk is slow, sessions go on.
            tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = tasks.join_next() => done??,
                taken = next => {
                    let (session, batch) = taken?;
                    self.0.batches.fetch_add(1, Ordering::Relaxed);
                    let pipeline = self.clone();
                    tasks.spawn(async move { pipeline.draw(pipeline.analyse(batch, session).await?).await });
                }
            }
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(shadow.await?)
    }

    /// One batch, from detection to the log. Answers whose pictures may be to be drawn.
    async fn analyse(&self, batch: Vec<Frame>, session: SessionPermit) -> Result<Vec<Arc<SceneCell>>, PipelineError> {
        let _under_way = self.begin(Work::Batch);
        let taken = self.0.clock.now();
        let cells: Vec<_> = batch.iter().map(|frame| self.cell(&frame.camera)).collect();

        let batch = self.place(batch).await;
        let (found, mut analysed) = self.detect(&batch, &cells).await;
        let detected = self.0.clock.now();
        if analysed.contains(&true) {
            let looked_at = analysed.clone();
            let wanted = self.track(&batch, &cells, (&found, &looked_at)).await;
            let (shots, uncut) = self.shoot(&batch, &cells, (&found, &wanted)).await;
            // Without its live score a shot could name a picture as a person: both come, or neither.
            let (shots, unscored) = self.score_liveness(&batch, shots).await;
            let templates = self.encode(&shots).await;
            let unknown = shots.iter().zip(&templates).filter(|(_, template)| template.is_none()).map(|((index, _), _)| *index);
            uncut.into_iter().chain(unscored).chain(unknown).for_each(|index| analysed[index] = false);
            self.0.encoded.fetch_add(templates.iter().flatten().count() as u64, Ordering::Relaxed);
            let encoded = self.0.clock.now();
            self.0.intake.observe(batch.len(), encoded.since(taken));
            let passage = Passage { taken, detected, encoded, ..Passage::default() };
            self.recognise(&batch, &cells, Encoded { looked_at, shots, templates, passage });
        }
        let frames: Vec<_> = batch.iter().map(|frame| (frame.camera.clone(), frame.capture_time)).collect();
        // A decoder waits for its surfaces, and other cameras for the session; the log may take long.
        drop((batch, session));
        let mut rest = cells.iter().cloned().zip(frames).zip(analysed);
        // A batch on a CPU is one frame, which needs no task of its own.
        let last = rest.next_back();
        let mut tellings = JoinSet::new();
        for ((cell, frame), analysed) in rest {
            let pipeline = self.clone();
            tellings.spawn(async move { pipeline.finish(cell, frame, analysed).await });
        }
        if let Some(((cell, frame), analysed)) = last {
            self.finish(cell, frame, analysed).await?;
        }
        while let Some(told) = tellings.join_next().await {
            told??;
        }
        Ok(cells.into_iter().flatten().collect())
    }

    /// What one frame showed is told, and the camera's next one may come: each camera waits for its own events alone.
    async fn finish(
        &self,
        cell: Option<Arc<SceneCell>>,
        (camera, capture_time): (CameraId, Timestamp),
        analysed: bool,
    ) -> Result<(), PipelineError> {
        if let Some(cell) = &cell {
            self.tell(cell).await?;
        }
        if let Some(shadow) = self.0.shadow.get() {
            shadow.take_over(std::slice::from_ref(&cell));
        }
        self.0.intake.done((&camera, capture_time), analysed);
        Ok(())
    }

    /// Brings the frames to where they are analysed; those that cannot be brought there are looked at from the host, as photos are.
    async fn place(&self, batch: Vec<Frame>) -> Vec<Frame> {
        match self.0.engine.place(batch.clone()).await {
            Ok(placed) => placed,
            Err(error) => {
                self.0.unplaced.tell(&error, batch.len(), self.0.clock.now());
                batch
            }
        }
    }

    /// Follows the faces and picks those worth a look: for each, the frame it is in. A frame that was not looked at shows nothing, not
    /// even that somebody has gone.
    async fn track(
        &self,
        batch: &[Frame],
        cells: &[Option<Arc<SceneCell>>],
        (found, looked_at): (&[Vec<Detection>], &[bool]),
    ) -> Vec<(usize, Wanted)> {
        let mut all = Vec::new();
        let watched = batch.iter().zip(cells).enumerate().filter_map(|(index, (frame, cell))| Some((index, frame, cell.as_ref()?)));
        for (index, frame, cell) in watched.filter(|(index, ..)| looked_at[*index]) {
            let detections = &found[index];
            let faces = detections.iter().filter(|detection| detection.score >= cell.score_min).count();
            self.0.frames.fetch_add(1, Ordering::Relaxed);
            self.0.faces.fetch_add(faces as u64, Ordering::Relaxed);
            all.extend(cell.scene().follow(frame, detections).into_iter().map(|wanted| (index, wanted)));
            show_onlookers(cell, frame, detections).await;
        }
        all
    }

    /// Cuts out the wanted faces and keeps those that are good enough: for each, the frame it is in; and the frames where that failed.
    async fn shoot(
        &self,
        batch: &[Frame],
        cells: &[Option<Arc<SceneCell>>],
        (found, wanted): (&[Vec<Detection>], &[(usize, Wanted)]),
    ) -> (Vec<(usize, Shot)>, Vec<usize>) {
        let faces: Vec<_> = wanted.iter().map(|(index, wanted)| (*index, found[*index][wanted.detection].landmarks)).collect();
        let (mut shots, mut lost) = (Vec::with_capacity(wanted.len()), Vec::new());
        for ((index, wanted), cut) in wanted.iter().zip(self.cut(batch, &faces).await) {
            let Some(cell) = &cells[*index] else { continue };
            let Some(cut) = cut else {
                lost.push(*index);
                continue;
            };
            let (frame, face) = (&batch[*index], (&found[*index][..], *wanted));
            // From a device it is copied while nobody waits for the scene.
            let is_copied = frame.device_pixels().is_some() && cell.scene().wants_picture(face, &cut.1);
            let picture = if is_copied { copied(frame).await } else { None };
            shots.extend(cell.scene().shoot((frame, picture), face, cut).map(|shot| (*index, shot)));
        }
        (shots, lost)
    }

    /// Looks the visitors up, decides, and ends what is over. The whole batch sees one gallery.
    fn recognise(&self, batch: &[Frame], cells: &[Option<Arc<SceneCell>>], encoded: Encoded) {
        let gallery = self.0.gallery.current();
        for ((index, mut shot), template) in encoded.shots.into_iter().zip(&encoded.templates) {
            let (Some(cell), Some(template)) = (&cells[index], template) else { continue };
            let frame = &batch[index];
            let mut passage = Passage { captured: frame.capture_time, decoded: frame.decode_time, ..encoded.passage };
            if let Err(error) = cell.scene().learn((&mut shot, template), &gallery, &mut passage) {
                tracing::error!(%error, camera = %frame.camera, "a face was not compared");
            }
        }
        for ((frame, cell), looked_at) in batch.iter().zip(cells).zip(encoded.looked_at) {
            if let (Some(cell), true) = (cell, looked_at) {
                cell.scene().sweep(frame.capture_time, &gallery);
            }
        }
    }

    /// Writes a scene's new events to the log, in order. While the disk is full they wait, and recognition goes on.
    async fn tell(&self, cell: &SceneCell) -> Result<(), PipelineError> {
        let _under_way = self.begin(Work::Telling);
        let mut unwritten = cell.unwritten.lock().await;
        let told = {
            let mut scene = cell.scene();
            if let Some(shadow) = self.0.shadow.get() {
                shadow.pass_on(scene.take_verdicts());
            }
            scene.take_outbox()
        };
        Ok(unwritten.tell(told, &self.0.events).await?)
    }

    /// Draws the pictures of events that were told, and keeps them. Holds up no event and no session.
    async fn draw(&self, cells: Vec<Arc<SceneCell>>) -> Result<(), PipelineError> {
        for cell in cells {
            loop {
                let undrawn = cell.unwritten.lock().await.begin_drawing();
                if undrawn.is_empty() {
                    break;
                }
                let drawn = tokio::task::spawn_blocking(|| undrawn.into_iter().filter_map(Undrawn::draw).collect()).await?;
                let has_told_all = cell.unwritten.lock().await.has_told_all();
                let unkept = if has_told_all { drawing::keep(drawn, &self.0.events).await? } else { drawn };
                cell.unwritten.lock().await.drawn(unkept);
                self.tell(&cell).await?;
            }
            // Between two pictures that waited for room the camera's events have their turn.
            while self.write_some(&cell).await? {
                self.tell(&cell).await?;
            }
        }
        Ok(())
    }
}

/// What can be asked of it, and how its parts find each other.
impl Pipeline {
    /// What was done since the start.
    pub fn counts(&self) -> PipelineCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PipelineCounts { frames: read(&self.0.frames), faces: read(&self.0.faces), encoded: read(&self.0.encoded) }
    }

    /// Whether no frame waits and none is being analysed, nor seen by a shadow.
    pub fn is_idle(&self) -> bool {
        self.0.intake.is_idle() && self.0.shadow.get().is_none_or(InShadow::is_idle)
    }

    fn scenes(&self) -> MutexGuard<'_, HashMap<CameraId, Arc<SceneCell>>> {
        self.0.scenes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, camera: &CameraId) -> Option<Arc<SceneCell>> {
        self.scenes().get(camera).cloned()
    }

    fn cells(&self) -> Vec<Arc<SceneCell>> {
        self.scenes().values().cloned().collect()
    }
}
