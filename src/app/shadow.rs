//! Opens what runs in the shadow, keeps its gallery in step with the one in force, and keeps its verdicts.
//!
//! In: the configuration. Out: what the pipeline runs beside what is in force; rows in the store.
//! Of verdicts that come faster than they can be written those that find no place are lost, and counted by the pipeline.
//! Must not know: how visits are decided.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::device::ResolvedDevice;
use crate::enrol::{EnrolError, Enrolment};
use crate::face::TemplateSpace;
use crate::gallery::{Gallery, GalleryVersion, Row};
use crate::infer::{Engine, EngineFacts};
use crate::pipeline::{Shadow, ShadowEncoder, ShadowSettings};
use crate::rpc::KnownShadow;
use crate::shadow::Verdict;
use crate::shutdown::Tasks;
use crate::store::{Store, StoreError, StoredTemplate};

/// Verdicts that wait to be written: one a visit, so a burst of the largest building.
const VERDICTS_MAX: usize = 1_024;
/// The most verdicts of one commit.
const VERDICTS_AT_ONCE: usize = 256;
/// How long the gallery must keep still before the shadow's is read again: an import changes it many times a second.
const STILL_FOR: Duration = Duration::from_secs(1);
/// How long the shadow waits before it tries again to bring its gallery up to date.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The shadow, opened.
pub(super) struct OpenShadow {
    /// What the edges tell of it.
    pub(super) known: KnownShadow,
    /// How it decides, before what cameras state.
    pub(super) settings: ShadowSettings,
    /// What the pipeline runs.
    pub(super) shadow: Shadow,
    /// What has to be done for it meanwhile.
    pub(super) upkeep: Upkeep,
}

/// What has to be done for a shadow while it runs.
pub(super) struct Upkeep {
    /// What it is made of: the same for the same shadow after a restart.
    description: String,
    verdicts: mpsc::Receiver<Verdict>,
    gallery: Option<OwnGallery>,
}

/// Where the templates of a shadow's own encoder go.
struct OwnGallery {
    encoder: String,
    space: TemplateSpace,
    newest: watch::Sender<Option<Arc<GalleryVersion>>>,
}

impl Upkeep {
    /// Begins it.
    pub(super) fn spawn(
        self,
        tasks: &mut Tasks,
        (store, enrolment): (Store, Enrolment),
        (clock, stop): (&Arc<dyn Clock>, &CancellationToken),
    ) {
        tasks.spawn("the shadow's verdicts", keep((store.clone(), self.description), self.verdicts, stop.clone()));
        if let Some(own) = self.gallery {
            tasks.spawn("the shadow's gallery", follow((store, enrolment), own, Arc::clone(clock), stop.clone()));
        }
    }
}

/// Opens the configuration's shadow, if it has one; `in_force` is what inference runs on. Blocks where it has an encoder of its own.
///
/// # Errors
/// What keeps it from running: a shadow that only seemed to run would prove nothing.
pub(super) async fn open(config: &Config, in_force: &EngineFacts, device: &ResolvedDevice) -> anyhow::Result<Option<OpenShadow>> {
    let Some(of_shadow) = config.of_shadow() else { return Ok(None) };
    let (mut encoder, mut gallery, mut facts) = (None, None, in_force.clone());
    if of_shadow.infer.encoder != config.infer.encoder {
        let (mut infer, models_dir, device) = (of_shadow.infer.clone(), of_shadow.models_dir.clone(), device.clone());
        infer.sessions = 1;
        let engine = tokio::task::spawn_blocking(move || Engine::open(&infer, &models_dir, &device)).await?;
        let engine = engine.context("shadow.encoder cannot be opened")?;
        facts = engine.facts().clone();
        if facts.space != in_force.space {
            let (newest, receiver) = watch::channel(None);
            gallery = Some(OwnGallery { encoder: of_shadow.infer.encoder.clone().unwrap_or_default(), space: facts.space.clone(), newest });
            encoder = Some(ShadowEncoder { engine, gallery: receiver });
        }
    }
    let policy = super::policy(&of_shadow, &facts).context("what [shadow] states cannot decide")?;
    let description = describe(config)?;
    tracing::info!(shadow = description, "another way of deciding runs in the shadow: it is compared, and never acts");
    let (sender, verdicts) = mpsc::channel(VERDICTS_MAX);
    let own = encoder.as_ref().map(|encoder: &ShadowEncoder| encoder.gallery.clone());
    let known = KnownShadow { description: description.clone(), policy: policy.clone(), gallery: own };
    let settings = ShadowSettings { policy, is_same_space: gallery.is_none() };
    let upkeep = Upkeep { description, verdicts, gallery };
    Ok(Some(OpenShadow { known, settings, shadow: Shadow { encoder, verdicts: sender }, upkeep }))
}

/// What the shadow is made of; files by what is in them, since verdicts of another file are another shadow's.
fn describe(config: &Config) -> anyhow::Result<String> {
    let shadow = &config.shadow;
    let file = |key: &str, path: Option<&Path>| -> anyhow::Result<Option<String>> {
        let Some(path) = path else { return Ok(None) };
        let bytes = std::fs::read(path).with_context(|| format!("shadow.{key} = {} cannot be read", path.display()))?;
        let sha256: String = Sha256::digest(bytes).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(format!("{key} {} ({sha256})", path.display())))
    };
    let scopes = [("watchlists", &shadow.watchlists), ("subjects", &shadow.subjects)];
    let scopes = scopes.into_iter().filter_map(|(key, targets)| Some((key, targets.as_ref()?)));
    let scopes = scopes.map(|(key, targets)| Ok(format!("{key} {}", serde_json::to_string(targets)?)));
    let mut parts: Vec<String> = shadow.encoder.iter().map(|name| format!("encoder {name}")).collect();
    parts.extend(file("calibration", shadow.calibration.as_deref())?);
    parts.extend(file("verifier", shadow.verifier.as_deref())?);
    parts.extend(shadow.target_fpir.map(|rate| format!("target_fpir {rate}")));
    parts.extend(shadow.threshold.map(|threshold| format!("threshold {threshold}")));
    parts.extend(scopes.collect::<anyhow::Result<Vec<_>>>()?);
    Ok(parts.join(", "))
}

/// Keeps verdicts until told to stop, and then what is left of them. On a full disk they are given up: they prove nothing to a door.
async fn keep((store, shadow): (Store, String), mut verdicts: mpsc::Receiver<Verdict>, stop: CancellationToken) -> Result<(), StoreError> {
    // So that the shadow is known, and since when, before its first visit.
    let mut batch = Vec::new();
    loop {
        match store.keep_verdicts(&shadow, std::mem::take(&mut batch)).await {
            Err(StoreError::Full) => tracing::error!("what the shadow would have decided was lost: the disk of data_dir is full"),
            outcome => outcome?,
        }
        tokio::select! {
            biased;
            received = verdicts.recv_many(&mut batch, VERDICTS_AT_ONCE) => if received == 0 { return Ok(()) },
            // Visits have ended before this: what they gave is in the queue.
            () = stop.cancelled() => {
                verdicts.close();
                if verdicts.is_empty() {
                    return Ok(());
                }
            }
        }
    }
}

/// Keeps the shadow's own gallery as the one in force is: makes the templates that are missing, then reads all of them.
async fn follow(
    (store, enrolment): (Store, Enrolment),
    OwnGallery { encoder, space, newest }: OwnGallery,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut versions = enrolment.version_changes();
    // The gallery in force is filled first.
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        changed = versions.changed() => if changed.is_err() { return Ok(()) },
    }
    loop {
        versions.borrow_and_update();
        let again = match read(&store, &enrolment, (&encoder, &space), Arc::clone(&clock)).await {
            Ok(version) => {
                tracing::info!(
                    version = version.version(),
                    templates = version.template_count(),
                    encoder,
                    "the shadow's gallery is up to date"
                );
                newest.send_replace(Some(version));
                None
            }
            Err(error) => {
                tracing::warn!(%error, encoder, "the shadow's gallery is not up to date; trying again");
                Some(AGAIN_AFTER)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = wait(again) => {}
            changed = versions.changed() => if changed.is_err() { return Ok(()) },
        }
        // Until nothing has changed for a while.
        while let Ok(Ok(())) = tokio::time::timeout(STILL_FOR, versions.changed()).await {
            versions.borrow_and_update();
        }
    }
}

/// Waits so long, or for ever.
async fn wait(so_long: Option<Duration>) {
    match so_long {
        Some(so_long) => tokio::time::sleep(so_long).await,
        None => std::future::pending().await,
    }
}

async fn read(
    store: &Store,
    enrolment: &Enrolment,
    (encoder, space): (&str, &TemplateSpace),
    clock: Arc<dyn Clock>,
) -> Result<Arc<GalleryVersion>, EnrolError> {
    if store.count_lacking(space).await?.0 > 0 {
        let (tell, mut steps) = mpsc::channel(16);
        let listen = async { while steps.recv().await.is_some() {} };
        let (report, ()) = tokio::join!(enrolment.reencode(encoder, tell), listen);
        let report = report?;
        tracing::info!(made = report.made, refused = report.refused, encoder, "templates were made for the shadow's encoder");
    }
    let (version, subjects) = (store.gallery_version().await?, store.subjects().await?);
    let gallery = Gallery::with_clock(space.clone(), clock);
    let filled = gallery.clone();
    let fill = move |rows: &mut dyn Iterator<Item = Result<StoredTemplate, StoreError>>| {
        let rows =
            rows.map(|row| row.map(|StoredTemplate { sample, subject, negative, template }| Row { subject, sample, negative, template }));
        filled.fill(version, subjects, rows)
    };
    store.read_templates_in(space, fill).await??;
    Ok(gallery.current())
}
