//! Runs recordings through the pipeline on a simulated clock, as a camera of the daemon would see them.
//!
//! In: videos, a camera's settings, who is known. Out: events, the same from run to run: times are the
//! videos', frames wait instead of being dropped, measured durations are left out, and ids are counted.
//! The daemon's own data are read, never written: everything happens in a copy that is thrown away.
//! Must not know: how events are shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::batch::SlotPolicy;
use crate::camera::{Camera, CameraId, Role, Skipped};
use crate::cameras::as_configured;
use crate::clock::{Clock, SimulatedClock, Timestamp};
use crate::config::Config;
use crate::decide::Policy;
use crate::enrol::{Enrolment, EnrolmentParts};
use crate::event::{EndReason, LoggedEvent};
use crate::event_log::{EventLog, SubscriptionEnded};
use crate::frame::Frame;
use crate::gallery::Gallery;
use crate::infer::Engine;
use crate::ingest::{self, FrameSink};
use crate::photo::PhotoAnalyst;
use crate::pipeline::{Pipeline, SceneSettings};
use crate::shutdown::Signals;
use crate::store::{self, Store};
use crate::{device, telemetry};

/// What is replayed, and as what.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The videos, one after the other; visits end with each.
    pub videos: Vec<PathBuf>,
    /// The camera that they are of: with the daemon's own settings of it, if it has such a camera.
    pub camera: CameraId,
    /// What it looks at, in place of the daemon's own setting.
    pub role: Option<Role>,
    /// Smaller faces are ignored, in place of the daemon's own setting.
    pub face_pixels_min: Option<u32>,
    /// Who is known, as an enrolment folder, in place of the daemon's own gallery.
    pub people: Option<PathBuf>,
    /// When the first video begins.
    pub begin: Timestamp,
    /// Whether the videos are read as fast as they can be analysed, instead of at their own pace.
    pub as_fast_as_possible: bool,
}

/// A thrown-away daemon without cameras or clients.
struct Studio {
    pipeline: Pipeline,
    events: EventLog,
    gallery: Gallery,
    clock: Arc<SimulatedClock>,
    camera: Camera,
    policy: Policy,
    _data: Scratch,
}

/// Replays `recording` and tells each event, in order, with the gallery that knows the names.
///
/// # Errors
/// What could not be opened or read.
pub async fn replay(config: &Config, recording: &Recording, tell: impl Fn(&LoggedEvent, &Gallery) + Send + 'static) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    let studio = Studio::open(config, recording).await?;
    let (mut subscription, gallery) = (studio.events.subscribe(), studio.gallery.clone());
    let telling = tokio::spawn(async move {
        loop {
            match subscription.next().await {
                Ok(events) => events.iter().for_each(|logged| tell(logged, &gallery)),
                Err(SubscriptionEnded::Closed) => return Ok(()),
                Err(ended) => return Err(ended),
            }
        }
    });
    let stop = CancellationToken::new();
    let (pipeline, token) = (studio.pipeline.clone(), stop.clone());
    let running = tokio::spawn(async move { pipeline.run(token).await });
    let mut running = running;
    let signals = Signals::listen().context("cannot listen for signals")?.stop();
    let play = async {
        for video in &recording.videos {
            studio.play(video, config, recording).await?;
        }
        anyhow::Ok(())
    };
    // Whichever way it ends, the copy of the daemon's data is thrown away.
    tokio::select! {
        played = play => played?,
        ended = &mut running => {
            ended??;
            anyhow::bail!("the pipeline ended before the recording");
        }
        () = signals.cancelled() => anyhow::bail!("stopped before the end of the recording"),
    }
    stop.cancel();
    running.await??;
    studio.events.close();
    telling.await??;
    Ok(())
}

impl Studio {
    async fn open(config: &Config, recording: &Recording) -> anyhow::Result<Self> {
        ingest::init()?;
        let device = device::resolve(&config.infer.device)?;
        let data = Scratch::new()?;
        let copy = data.0.join("data");
        if recording.people.is_none() && config.data_dir.is_dir() {
            std::fs::create_dir(&copy)?;
            let (from, to) = (config.data_dir.clone(), copy.join("doorward.db"));
            tokio::task::spawn_blocking(move || store::back_up(&from, &to, &|| false)).await?.context("cannot copy the daemon's data")?;
        }
        let engine = {
            let (infer, models_dir) = (config.infer.clone(), config.models_dir.clone());
            tokio::task::spawn_blocking(move || Engine::open(&infer, &models_dir, &device)).await??
        };
        let clock = Arc::new(SimulatedClock::at(recording.begin));
        let store = Store::open_with_clock(&copy, clock.clone())?;
        let facts = engine.facts().clone();
        let policy = super::policy(config, &facts)?;
        let gallery = Gallery::with_clock(facts.space.clone(), clock.clone());
        let events = EventLog::open(store.clone(), config.events.recent_max).await?;
        let enrolment = Enrolment::new(EnrolmentParts {
            photos: PhotoAnalyst::new(engine.clone()),
            store: store.clone(),
            gallery: gallery.clone(),
            clock: clock.clone(),
            people_dir: recording.people.clone(),
            quality_min: config.recognition.enrol_quality_min,
            policy: policy.clone(),
        });
        enrolment.fill().await?;
        if let Some(people) = &recording.people {
            let report = enrolment.reload(false, false, "").await?;
            for file in &report.refused {
                tracing::warn!(file = %file.path, reason = file.reason, "{}", file.message);
            }
            anyhow::ensure!(report.added > 0, "nobody could be enrolled from {}", people.display());
        }
        // With people of its own the replay has a database of its own, and the daemon's is read where it may be.
        let cameras = if recording.people.is_some() { cameras_of(config.data_dir.clone()).await } else { store.cameras().await? };
        let known = cameras.into_iter().find(|camera| camera.id == recording.camera);
        if known.is_none() {
            tracing::warn!(camera = %recording.camera, "no such camera of the daemon is known: its settings are the defaults");
        }
        let mut camera = known.map_or_else(|| unknown_camera(&recording.camera), Ok)?;
        camera.role = recording.role.unwrap_or(camera.role);
        camera.face_pixels_min = recording.face_pixels_min.unwrap_or(camera.face_pixels_min);
        let pipeline = Pipeline::new(engine, gallery.clone(), events.clone(), clock.clone());
        Ok(Self { pipeline, events, gallery, clock, camera, policy, _data: data })
    }

    /// One video, from its first picture to the end of the last visit.
    async fn play(&self, video: &Path, config: &Config, recording: &Recording) -> anyhow::Result<()> {
        let mut defaults = SceneSettings::of(config, &self.policy);
        (defaults.measure, defaults.snapshots) = (false, false);
        let mut watch = as_configured(&self.camera, &defaults);
        watch.slot.policy = SlotPolicy::Wait;
        let sink = self.pipeline.watch(watch);
        let sink: Arc<dyn FrameSink> =
            if recording.as_fast_as_possible { sink } else { Arc::new(Paced { sink, began: Instant::now(), begin: self.clock.now() }) };
        let (file, camera, clock) = (video.to_owned(), self.camera.id.clone(), self.clock.clone());
        tokio::task::spawn_blocking(move || ingest::replay(&file, &camera, sink.as_ref(), &clock)).await??;
        while !self.pipeline.is_idle() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.pipeline.forget(&self.camera.id, EndReason::CameraOffline).await?;
        Ok(())
    }
}

/// The daemon's cameras; none where its data cannot be read, which is told.
async fn cameras_of(data_dir: PathBuf) -> Vec<Camera> {
    let dir = data_dir.clone();
    let read = tokio::task::spawn_blocking(move || store::cameras_in(&dir)).await.map_err(|error| error.to_string());
    let read = read.and_then(|cameras| cameras.map_err(|error| error.to_string()));
    read.inspect_err(|reason| tracing::warn!(data_dir = %data_dir.display(), reason, "the daemon's cameras cannot be read"))
        .unwrap_or_default()
}

/// A camera that the daemon does not have, with every setting at its default.
fn unknown_camera(id: &CameraId) -> anyhow::Result<Camera> {
    Ok(Camera {
        id: id.clone(),
        url: Url::parse("rtsp://recording.invalid/")?,
        has_credential: false,
        display_name: String::new(),
        role: Role::default(),
        transport: crate::camera::Transport::default(),
        lines: Vec::new(),
        zones: Vec::new(),
        analysis_fps_max: None,
        detector_side: None,
        region_of_interest: None,
        face_pixels_min: crate::camera::FACE_PIXELS_MIN_DEFAULT,
        threshold: None,
        target_fpir: None,
        telling: crate::telling::Telling::default(),
        enabled: true,
        create_time: Timestamp::default(),
        update_time: Timestamp::default(),
        revision: 0,
    })
}

/// Holds frames back until they would have come from a camera.
struct Paced {
    sink: Arc<dyn FrameSink>,
    began: Instant,
    begin: Timestamp,
}

impl FrameSink for Paced {
    fn offer(&self, frame: Frame) {
        let due = frame.capture_time.since(self.begin);
        // This is the recording's own thread, which waits for nothing else.
        std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        self.sink.offer(frame);
    }

    fn refused(&self) {
        self.sink.refused();
    }

    fn skipped(&self, why: Skipped) {
        self.sink.skipped(why);
    }
}

/// A folder that is thrown away.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("doorward-replay-{}", uuid::Uuid::new_v4()));
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the copy that was replayed in is still there; it holds faces: remove it");
        }
    }
}
