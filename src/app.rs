//! The composition root: opens every stage, starts it, and ends it in the order of the data.
//!
//! In: a checked configuration. Out: a running daemon, until a signal or a failure ends it.
//! This is the only place that constructs stages.
//! Must not know: how any stage works.

mod decoding_fact;
mod embedder;
mod gallery_events;
mod inference;
mod inference_events;
mod last_run;
mod reloads;
mod replay;
mod shadow;
mod targets;
#[cfg(test)]
mod tests;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::cameras::{CameraDefaults, Cameras};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{Config, DecodeChoice, EventsConfig, InferConfig};
use crate::device::{Device, ResolvedDevice};
use crate::enrol::{EnrolError, Enrolment, EnrolmentParts, FolderWatch, OpenEncoder, OtherEncoder, ReloadReport};
use crate::event_log::EventLog;
use crate::gallery::Gallery;
use crate::infer::{Engine, EngineFacts};
use crate::ingest;
use crate::ingest::Decode;
use crate::liveness::LivePolicy;
use crate::photo::PhotoAnalyst;
use crate::pipeline::{Pipeline, SceneSettings};
use crate::recognise::Recogniser;
use crate::rpc::{RpcParts, Server, ServerHandle};
use crate::shutdown::{self, Signals, Tasks};
use crate::store::{Retention, Store};
use crate::telling;

pub use decoding_fact::decoding_fact;
pub use embedder::embedder;
use inference::Opened;
pub use replay::{Recording, replay};
use shadow::OpenShadow;
pub use shadow::check as check_shadow;
pub use targets::policy;

/// How often what is past its retention is deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
const SECONDS_A_DAY: u64 = 86_400;
/// What the end of a task means that should run as long as the daemon does.
const ENDED: &str = "the daemon cannot go on";

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// What kept it from starting, or what ended it.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut tasks = Tasks::default();
    let daemon = tokio::select! {
        daemon = Daemon::open(&config, clock, &mut tasks) => daemon?,
        () = signals.stop().cancelled_owned() => return Ok(()),
    };
    daemon.start(&config, &mut tasks).await?;
    notify(&[NotifyState::Ready]);
    tracing::info!(listen = %daemon.server.local_address(), "ready");

    let stop = signals.stop();
    let mut people = FolderWatch::over(config.people_dir.clone(), Duration::from_secs(config.gallery.watch_people_s.into()));
    let read_people = async |wanted: &Notify| {
        tokio::select! {
            () = wanted.notified() => {}
            () = people.changed() => {}
        }
        let outcome = daemon.reload_people().await;
        people.note(&outcome);
    };
    let reloads = reloads::run(async || signals.reload().await, || daemon.reload_credentials(), read_people);
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        end = tasks.first_end() => Some(end),
        never = reloads => match never {},
    };
    notify(&[NotifyState::Stopping]);
    let unfinished = daemon.stop(&mut tasks).await;
    match failed {
        Some(end) => Err(anyhow::Error::new(end).context(ENDED)),
        None if unfinished => anyhow::bail!("not everything ended within {:?}", shutdown::DEADLINE),
        None => {
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// Every stage, opened.
struct Daemon {
    stages: RpcParts,
    pipeline: Pipeline,
    server: ServerHandle,
    /// Ends what makes events; and, once they are told, what delivers them.
    stop_work: CancellationToken,
    stop_serving: CancellationToken,
}

impl Daemon {
    /// Opens every stage in the order of what it needs, and fills the gallery. The server is the first: models may take minutes
    /// to open, and it says meanwhile that the daemon is starting. Where it ends in those minutes, so does the daemon.
    async fn open(config: &Config, clock: Arc<dyn Clock>, tasks: &mut Tasks) -> anyhow::Result<Self> {
        let start_time = clock.now();
        let (stop_work, stop_serving) = (CancellationToken::new(), CancellationToken::new());
        let server = open_server(config, stop_serving.clone(), tasks).await?;
        ingest::init()?;
        config.cameras.ca_file.as_deref().map_or(Ok(()), ingest::check_ca_file)?;
        let store = Store::open_with_clock(&config.data_dir, Arc::clone(&clock))?;
        let opened = tasks.alongside(inference::open(config, clock.now())).await.context(ENDED)??;
        let Opened { engine, device, is_replaced, in_use } = opened;
        let facts = decoding_fact::with_decoding(engine.facts().clone(), config.cameras.decode);
        tracing::info!(
            device = %facts.device, reason = %facts.device_reason, provider = %facts.provider, precision = %facts.precision,
            why = %facts.precision_reason, sessions = facts.sessions, space = %facts.space, "inference is ready"
        );
        let policy = policy(config, &facts)?;
        let gallery = Gallery::with_clock(facts.space.clone(), Arc::clone(&clock));
        let events = EventLog::open(store.clone(), config.events.recent_max).await?;
        last_run::end_visits(&store, &events, clock.as_ref()).await?;

        let photos = PhotoAnalyst::new(engine.clone());
        let enrolment = Enrolment::new(EnrolmentParts {
            photos: photos.clone(),
            store: store.clone(),
            gallery: gallery.clone(),
            clock: Arc::clone(&clock),
            people_dir: config.people_dir.clone(),
            quality_min: config.recognition.enrol_quality_min,
            policy: policy.clone(),
        })
        .with_encoders(encoders_of(config, device.clone()), engine.clone());
        let shadow = tasks.alongside(shadow::open(config, &facts, &device)).await.context(ENDED)??;
        let recogniser = Recogniser::new(photos, gallery.clone(), facts.space.clone(), policy.clone())
            .with_live_policy(LivePolicy::of(&config.recognition));
        let on = (device.clone(), config.data_dir.clone());
        let ending = inference::watch(engine.failed(), on, (Arc::clone(&clock), stop_serving.clone()), in_use);
        tasks.spawn("inference", inference_events::tell_end(ending, events.clone(), Arc::clone(&clock)));
        let on = (engine.condition(), facts.clone(), is_replaced);
        let told = inference_events::tell((store.clone(), events.clone()), Arc::clone(&clock), on, stop_work.clone());
        tasks.spawn("the events of inference", told);
        let mut pipeline = Pipeline::new(engine, gallery.clone(), events.clone(), Arc::clone(&clock));
        let mut scene = SceneSettings::of(config, &policy);
        let mut known_shadow = None;
        if let Some(OpenShadow { known, settings, shadow, upkeep }) = shadow {
            (known_shadow, scene.shadow) = (Some(known), Some(settings));
            pipeline = pipeline.with_shadow(shadow);
            upkeep.spawn(tasks, (store.clone(), enrolment.clone()), (&clock, &stop_work));
        }
        let defaults = camera_defaults(config, scene, (device.device, &facts));
        let cameras = Cameras::new(store.clone(), pipeline.clone(), Arc::clone(&clock), defaults);
        tasks.alongside(enrolment.fill()).await.context(ENDED)??;
        let (engine_facts, shadow) = (facts, known_shadow);
        let stages = RpcParts { start_time, enrolment, recogniser, cameras, events, store, gallery, engine_facts, shadow, clock };
        Ok(Self { stages, pipeline, server, stop_work, stop_serving })
    }

    /// Starts what works on its own, then lets calls in.
    async fn start(&self, config: &Config, tasks: &mut Tasks) -> anyhow::Result<()> {
        let RpcParts { enrolment, cameras, events, store, gallery, clock, .. } = &self.stages;
        let stop = || self.stop_work.clone();
        targets::warn_of_unsupported(&enrolment.facts().await?.thresholds);
        targets::warn_of_nobody(&config.recognition, gallery);
        let (pipeline, stopped) = (self.pipeline.clone(), stop());
        tasks.spawn("the pipeline", async move { pipeline.run(stopped).await });
        let (announcer, stopped) = (cameras.clone(), stop());
        tasks.spawn("the camera announcer", async move { announcer.announce(stopped).await });
        tasks.spawn("the retention", prune((events.clone(), store.clone()), Arc::clone(clock), Kept::of(config), stop()));
        let told = gallery_events::tell((store.clone(), events.clone()), Arc::clone(clock), enrolment.version_changes(), stop());
        tasks.spawn("the gallery's events", told);
        if let Some(interval) = sd_notify::watchdog_enabled() {
            tasks.spawn("the watchdog", watchdog::feed((cameras.clone(), self.pipeline.clone()), interval / 3, stop()));
        }
        if let Some(reason) = telling::local_time_unknown() {
            tracing::warn!(%reason, "the local time zone is not known: schedules of cameras go by UTC; install tzdata and set /etc/localtime, or TZ");
        }
        cameras.start().await?;
        self.server.start(self.stages.clone()).await;
        // Not before, or what it says would be overwritten.
        tasks.spawn("the health of the log", tell_health(events.disk_full(), self.server.clone(), stop()));
        Ok(())
    }

    /// What SIGHUP asks for before the enrolment folder: the tokens and the certificate are read again.
    fn reload_credentials(&self) {
        notify(&[NotifyState::Reloading]);
        for (what, outcome) in [("tokens", self.server.reload_tokens()), ("certificate", self.server.reload_certificate())] {
            match outcome {
                Ok(true) => tracing::info!(what, "read again"),
                Ok(false) => {}
                Err(error) => tracing::error!(what, %error, "not read again; what was in force stays so"),
            }
        }
        notify(&[NotifyState::Ready]);
    }

    /// Reads the enrolment folder again and tells the log what came of it.
    async fn reload_people(&self) -> Result<ReloadReport, EnrolError> {
        let outcome = self.stages.enrolment.reload(false, false, "").await;
        match &outcome {
            Ok(report) => {
                for file in &report.refused {
                    tracing::warn!(file = %file.path, reason = file.reason, "{}", file.message);
                }
                for file in &report.doubtful {
                    tracing::warn!(file = %file.path, reason = file.reason, "a doubtful photo: {}", file.message);
                }
                tracing::info!(
                    version = report.version,
                    added = report.added,
                    changed = report.changed,
                    removed = report.removed,
                    refused = report.refused.len(),
                    doubtful = report.doubtful.len(),
                    "the enrolment folder was read again"
                );
            }
            Err(EnrolError::NoFolder) => {}
            Err(error) => tracing::warn!(%error, "the enrolment folder was not read again; the gallery is as it was"),
        }
        outcome
    }

    /// Ends the stages in the order of the data, within the deadline. Answers whether something
    /// did not end in time.
    async fn stop(self, tasks: &mut Tasks) -> bool {
        let began = tokio::time::Instant::now();
        self.server.announce_end().await;
        let cameras_end = tokio::time::timeout(shutdown::DEADLINE / 2, self.stages.cameras.stop()).await;
        match cameras_end {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "visits could not be ended; they end at the next start"),
            Err(_) => tracing::warn!("cameras take long to end; their visits end at the next start"),
        }
        self.stop_work.cancel();
        // Subscriptions end by themselves once they have delivered what is published.
        self.stages.events.close();
        self.stop_serving.cancel();
        let unfinished = tasks.drain(shutdown::DEADLINE.saturating_sub(began.elapsed())).await;
        for task in &unfinished {
            tracing::error!("{task}");
        }
        !unfinished.is_empty()
    }
}

/// Binds the socket, reads what guards it, and serves: health and reflection alone, until the services stand.
async fn open_server(config: &Config, stop: CancellationToken, tasks: &mut Tasks) -> anyhow::Result<ServerHandle> {
    let listener = TcpListener::bind(config.server.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}: choose another server.listen", config.server.listen))?;
    let server = Server::open(&config.server, listener).await?;
    let handle = server.handle();
    tracing::info!(listen = %handle.local_address(), "starting; health says so until the models are open and the gallery is filled");
    tasks.spawn("the server", server.serve(stop.cancelled_owned()));
    Ok(handle)
}

/// Cameras are decoded where inference looks at their pictures, so that no picture travels: where it fell back to, too.
fn camera_defaults(config: &Config, scene: SceneSettings, (device, facts): (Device, &EngineFacts)) -> CameraDefaults {
    let decode = match device {
        Device::Cuda(ordinal) if config.cameras.decode == DecodeChoice::Auto && facts.device == device.to_string() => {
            Decode::on_cuda(ordinal)
        }
        Device::Cpu | Device::Cuda(_) => Decode::on_cpu(),
    };
    CameraDefaults { scene, ca_file: config.cameras.ca_file.clone(), decode }
}

/// Opens other encoders of the manifest beside the one in force, with one session each.
fn encoders_of(config: &Config, device: ResolvedDevice) -> OpenEncoder {
    let (infer, models_dir) = (config.infer.clone(), config.models_dir.clone());
    Arc::new(move |name| {
        let encoder = if name.is_empty() { infer.encoder.clone() } else { Some(name.to_owned()) };
        // Nobody asks of what is enrolled already whether it is alive.
        let infer = InferConfig { encoder, sessions: 1, antispoof: false, ..infer.clone() };
        let engine = Engine::open(&infer, &models_dir, &device).map_err(|error| error.to_string())?;
        Ok(OtherEncoder { space: engine.facts().space.clone(), photos: PhotoAnalyst::new(engine) })
    })
}

/// What is kept of the past.
struct Kept {
    events: EventsConfig,
    history: Duration,
}

impl Kept {
    fn of(config: &Config) -> Self {
        Self { events: config.events.clone(), history: days(config.gallery.history_days) }
    }

    fn at(&self, now: Timestamp) -> Retention {
        let bytes = |megabytes: u32| u64::from(megabytes) * 1_000_000;
        Retention {
            events_since: now.minus(days(self.events.retention_days)),
            event_bytes_max: bytes(self.events.size_max_mb),
            snapshots_since: now.minus(days(self.events.snapshot_retention_days)),
            snapshot_bytes_max: bytes(self.events.snapshot_size_max_mb),
        }
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * SECONDS_A_DAY)
}

/// Deletes events, pictures and the gallery's history past what is kept of them.
async fn prune(
    (events, store): (EventLog, Store),
    clock: Arc<dyn Clock>,
    kept: Kept,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    loop {
        // In steps, between which a stop waits for nothing.
        let one_round = async {
            if let Err(error) = events.prune(kept.at(clock.now())).await {
                tracing::error!(%error, "old events could not be deleted; trying again in ten minutes");
            }
            if let Err(error) = store.prune_gallery_history(clock.now().minus(kept.history)).await {
                tracing::error!(%error, "old versions of the gallery could not be deleted; trying again in ten minutes");
            }
            tokio::time::sleep(PRUNE_EVERY).await;
        };
        if stop.run_until_cancelled(one_round).await.is_none() {
            return Ok(());
        }
    }
}

/// Says by health, and in the log, while events cannot be told because the disk is full.
async fn tell_health(
    mut disk_full: watch::Receiver<bool>,
    server: ServerHandle,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    if *disk_full.borrow() {
        // The visits that the last run left open may have found no room before anybody looked.
        disk_full.mark_changed();
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = disk_full.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let is_full = *disk_full.borrow_and_update();
                if is_full {
                    tracing::error!("the disk of data_dir is full: events wait until there is room, and nobody is told of them");
                } else {
                    tracing::warn!("there is room on the disk of data_dir again");
                }
                server.set_events_told(!is_full).await;
            }
        }
    }
}

/// Without systemd there is nobody to tell.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
