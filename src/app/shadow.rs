//! Opens what runs in the shadow, keeps its gallery in step with the one in force, and keeps its verdicts.
//!
//! In: the configuration. Out: what the pipeline runs beside what is in force; rows in the store.
//! Of verdicts that come faster than they can be written those that find no place are lost, which the log says.
//! Must not know: how visits are decided.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::device::{Device, ResolvedDevice};
use crate::enrol::{EnrolError, Enrolment, OtherEncoder};
use crate::event::Purpose;
use crate::face::TemplateSpace;
use crate::gallery::{Gallery, GalleryVersion, Row};
use crate::infer::{Engine, EngineFacts};
use crate::models::Role;
use crate::photo::PhotoAnalyst;
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
/// However often it changes, the shadow's is read again after this: whoever was erased is in it no longer.
const SETTLED_AFTER_MAX: Duration = Duration::from_secs(10);

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
    /// The same for the same comparison after a restart.
    key: String,
    verdicts: mpsc::Receiver<Verdict>,
    gallery: Option<OwnGallery>,
}

/// Where the templates of a shadow's own encoder go.
struct OwnGallery {
    engine: Engine,
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
        tasks.spawn("the shadow's verdicts", keep((store.clone(), self.key), self.verdicts, stop.clone()));
        if let Some(own) = self.gallery {
            // From here on no version is missed, whenever the task begins.
            let versions = enrolment.version_changes();
            let work = follow((store, enrolment), (own, Arc::clone(clock)), versions);
            let stop = stop.clone();
            tasks.spawn("the shadow's gallery", async move {
                // Making templates takes minutes: what was made is kept, and the next start goes on.
                tokio::select! {
                    () = stop.cancelled() => Ok::<_, Infallible>(()),
                    () = work => Ok(()),
                }
            });
        }
    }
}

/// Opens the configuration's shadow, if it has one; `in_force` is what inference runs on.
///
/// # Errors
/// What keeps it from running: a shadow that only seemed to run would prove nothing.
pub(super) async fn open(config: &Config, in_force: &EngineFacts, device: &ResolvedDevice) -> anyhow::Result<Option<OpenShadow>> {
    let name_in_force = in_force.models.iter().find(|model| model.role == Role::Encoder.name()).map(|model| model.name.as_str());
    let Some(of_shadow) = config.of_shadow(name_in_force.unwrap_or_default()) else { return Ok(None) };
    let (mut encoder, mut gallery, mut facts) = (None, None, in_force.clone());
    if of_shadow.infer.encoder != config.infer.encoder {
        // Faces stay on the GPU, and a decoder wants its memory back before another encoder has seen them.
        anyhow::ensure!(
            device.device == Device::Cpu,
            "shadow.encoder is not there on a GPU yet; leave it out, or set infer.device = \"cpu\""
        );
        let (mut infer, models_dir, device) = (of_shadow.infer.clone(), of_shadow.models_dir.clone(), device.clone());
        infer.sessions = 1;
        let engine = tokio::task::spawn_blocking(move || Engine::open(&infer, &models_dir, &device)).await?;
        let engine = engine.context("shadow.encoder cannot be opened")?;
        facts = engine.facts().clone();
        if facts.space != in_force.space {
            let (newest, receiver) = watch::channel(None);
            gallery = Some(OwnGallery { engine: engine.clone(), space: facts.space.clone(), newest });
            encoder = Some(ShadowEncoder { engine, gallery: receiver });
        }
    }
    let policy = super::targets::policy_of_shadow(&of_shadow, &facts).context("what [shadow] states cannot decide")?;
    let description = describe(config)?;
    tracing::info!(shadow = description, "another way of deciding runs in the shadow: it is compared, and never acts");
    let key = format!("{description} {}", digest(&[(config, in_force), (&of_shadow, &facts)])?);
    let (sender, verdicts) = mpsc::channel(VERDICTS_MAX);
    let own = encoder.as_ref().map(|encoder: &ShadowEncoder| encoder.gallery.clone());
    let known = KnownShadow { description, key: key.clone(), policy: policy.clone(), gallery: own };
    let resume_threshold = policy.threshold(Purpose::Verify, 1);
    let settings = ShadowSettings { policy, is_same_space: gallery.is_none(), resume_threshold };
    let upkeep = Upkeep { key, verdicts, gallery };
    Ok(Some(OpenShadow { known, settings, shadow: Shadow { encoder, verdicts: sender }, upkeep }))
}

/// Whether the configuration's shadow can be opened beside what inference runs on: `None` where it has none.
///
/// # Errors
/// As of the start.
pub async fn check(config: &Config, in_force: &EngineFacts, device: &ResolvedDevice) -> anyhow::Result<Option<String>> {
    Ok(open(config, in_force, device).await?.map(|shadow| shadow.known.description))
}

/// What [shadow] states, for people.
fn describe(config: &Config) -> anyhow::Result<String> {
    let shadow = &config.shadow;
    let file = |key: &str, path: &Option<PathBuf>| path.as_ref().map(|path| format!("{key} {}", path.display()));
    let scopes = [("watchlists", &shadow.watchlists), ("subjects", &shadow.subjects)];
    let scopes = scopes.into_iter().filter_map(|(key, targets)| Some((key, targets.as_ref()?)));
    let scopes = scopes.map(|(key, targets)| Ok(format!("{key} {}", serde_json::to_string(targets)?)));
    let mut parts: Vec<String> = shadow.encoder.iter().map(|name| format!("encoder {name}")).collect();
    parts.extend(file("calibration", &shadow.calibration));
    parts.extend(file("verifier", &shadow.verifier));
    parts.extend(shadow.target_fpir.map(|rate| format!("target_fpir {rate}")));
    parts.extend(shadow.threshold.map(|threshold| format!("threshold {threshold}")));
    parts.extend(scopes.collect::<anyhow::Result<Vec<_>>>()?);
    Ok(parts.join(", "))
}

/// Stands for everything that either side decides by, in force and in the shadow: verdicts of other sides are another comparison's.
fn digest(sides: &[(&Config, &EngineFacts)]) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    for (config, facts) in sides {
        let recognition = &config.recognition;
        let targets = (recognition.target_fpir, recognition.threshold, &recognition.watchlists, &recognition.subjects);
        hasher.update(serde_json::to_vec(&(targets, config.infer.mirror, facts.threshold, facts.space.as_str()))?);
        let calibration = recognition.calibration.as_ref().or(facts.calibration.as_ref());
        for path in calibration.into_iter().chain(&recognition.verifier) {
            hasher.update(std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?);
        }
    }
    Ok(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Keeps verdicts until told to stop, and then what is left of them. What cannot be written is given up: it proves nothing to a
/// door, and ends no daemon.
async fn keep((store, key): (Store, String), mut verdicts: mpsc::Receiver<Verdict>, stop: CancellationToken) -> Result<(), Infallible> {
    // At first nothing, so that the shadow is known, and since when, before its first visit.
    let mut batch = Vec::new();
    loop {
        let count = batch.len();
        if let Err(error) = store.keep_verdicts(&key, std::mem::take(&mut batch)).await {
            tracing::error!(%error, lost = count, "what the shadow would have decided could not be kept");
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

/// Keeps the shadow's own gallery as the one in force is: reads what there is, makes the templates that are missing, and reads again.
async fn follow(
    (store, enrolment): (Store, Enrolment),
    (OwnGallery { engine, space, newest }, clock): (OwnGallery, Arc<dyn Clock>),
    mut versions: watch::Receiver<u64>,
) {
    let mut refused = 0;
    let read_again = || read_or_tell(&store, &space, (&newest, &clock));
    // The gallery in force is filled first; when nobody changes it any more, the daemon ends.
    while has_changed(&mut versions).await {
        let made = make_missing((&store, &enrolment), (&engine, &space), refused);
        match reading_meanwhile(made, &mut versions, read_again).await {
            None => return,
            Some(Ok(None)) => continue,
            Some(Ok(Some(still_lacking))) => refused = still_lacking,
            Some(Err(error)) => {
                tracing::warn!(%error, "templates are missing for the shadow's encoder; they are made after the next change");
            }
        }
        read_again().await;
    }
}

/// Waits until the gallery has changed and keeps still, or has gone on changing for long; `false` when nobody changes it any more.
async fn has_changed(versions: &mut watch::Receiver<u64>) -> bool {
    let is_there = versions.changed().await.is_ok();
    let settled = async { while let Ok(Ok(())) = timeout(STILL_FOR, versions.changed()).await {} };
    // A long import never keeps still.
    let _ = timeout(SETTLED_AFTER_MAX, settled).await;
    is_there
}

/// Reads, then does `work`, which may take hours, and reads again after each change meanwhile: whoever was erased must not stay in
/// memory until it is done. `None` when nobody changes the gallery any more.
async fn reading_meanwhile<T, Read: Future<Output = ()>>(
    work: impl Future<Output = T>,
    versions: &mut watch::Receiver<u64>,
    read_again: impl Fn() -> Read,
) -> Option<T> {
    // Before the read: of a change that comes meanwhile nothing is known, and the work may end before it is read.
    let before = *versions.borrow_and_update();
    read_again().await;
    let keep_up = async {
        while has_changed(versions).await {
            read_again().await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = keep_up => return None,
    };
    if *versions.borrow() != before {
        // Whoever came when the last templates were made may lack theirs, and whoever was erased a moment ago may still be in memory.
        versions.mark_changed();
    }
    Some(done)
}

/// Makes the templates that are missing, unless they are those that were refused before. Answers how many could not be made.
async fn make_missing(
    (store, enrolment): (&Store, &Enrolment),
    (engine, space): (&Engine, &TemplateSpace),
    refused: u64,
) -> Result<Option<u64>, EnrolError> {
    let lacking = store.count_lacking(space).await?.0;
    if lacking == refused {
        return Ok(None);
    }
    let other = OtherEncoder { photos: PhotoAnalyst::new(engine.clone()), space: space.clone() };
    let (tell, mut steps) = mpsc::channel(16);
    let listen = async { while steps.recv().await.is_some() {} };
    let (report, ()) = tokio::join!(enrolment.reencode_by(other, tell), listen);
    let report = report?;
    tracing::info!(made = report.made, refused = report.refused, "templates were made for the shadow's encoder");
    Ok(Some(report.refused))
}

async fn read_or_tell(store: &Store, space: &TemplateSpace, shown: (&watch::Sender<Option<Arc<GalleryVersion>>>, &Arc<dyn Clock>)) {
    if let Err(error) = read(store, space, shown).await {
        tracing::warn!(%error, "the shadow's gallery was not read; it is read again after the next change");
    }
}

async fn read(
    store: &Store,
    space: &TemplateSpace,
    (newest, clock): (&watch::Sender<Option<Arc<GalleryVersion>>>, &Arc<dyn Clock>),
) -> Result<(), StoreError> {
    let (version, subjects) = (store.gallery_version().await?, store.subjects().await?);
    let gallery = Gallery::with_clock(space.clone(), Arc::clone(clock));
    let filled = gallery.clone();
    let fill = move |rows: &mut dyn Iterator<Item = Result<StoredTemplate, StoreError>>| {
        let rows =
            rows.map(|row| row.map(|StoredTemplate { sample, subject, negative, template }| Row { subject, sample, negative, template }));
        filled.fill(version, subjects, rows)
    };
    store.read_templates_in(space, fill).await??;
    newest.send_replace(Some(gallery.current()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_erased_leaves_the_shadows_memory_while_templates_are_made() {
        let (change, mut versions) = watch::channel(1);
        let (reads, erased_after) = (Cell::new(0), Cell::new(None));
        let began = tokio::time::Instant::now();
        // Templates take an hour; somebody is erased after a minute, in the middle of an import that never keeps still.
        let work = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            for _ in 0..200 {
                change.send_modify(|version| *version += 1);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        };
        let read_again = || {
            reads.set(reads.get() + 1);
            erased_after.set(erased_after.get().or(began.elapsed().checked_sub(Duration::from_secs(60))));
            std::future::ready(())
        };
        assert_eq!(reading_meanwhile(work, &mut versions, read_again).await, Some(()));
        assert!(erased_after.get().is_some_and(|after| after <= SETTLED_AFTER_MAX + Duration::from_millis(1)), "{erased_after:?}");
        assert!((11..=13).contains(&reads.get()), "{reads:?}");
        assert!(versions.has_changed().expect("open"), "and templates that are missing since are made");
        // Nothing has changed; and nobody changes it any more.
        versions.mark_unchanged();
        assert_eq!(reading_meanwhile(async { 7 }, &mut versions, || async {}).await, Some(7));
        assert!(!versions.has_changed().expect("open"));
        drop(change);
        assert_eq!(reading_meanwhile(std::future::pending::<()>(), &mut versions, || async {}).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_the_shadows_first_read_is_read_though_there_was_nothing_to_make() {
        let (change, mut versions) = watch::channel(1);
        let reads = Cell::new(0);
        let read_again = || async {
            reads.set(reads.get() + 1);
            // Somebody is erased when the subjects were read already.
            change.send_modify(|version| *version += 1);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // What is missing has to be counted, which lets the change be noticed, and is over before it keeps still.
        let nothing_to_make = async { tokio::time::sleep(Duration::from_millis(10)).await };
        assert_eq!(reading_meanwhile(nothing_to_make, &mut versions, read_again).await, Some(()));
        assert_eq!(reads.get(), 1);
        assert!(versions.has_changed().expect("open"), "so it is read again");
    }
}
