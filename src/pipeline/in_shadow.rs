//! Runs the shadow beside the pipeline: its own queue, its own encoder, its verdicts.
//!
//! In: shots that the scenes hand over once their events are told. Out: verdicts, to whoever keeps them.
//! Queue: [`WAITING_MAX`] hand-overs. When it is full the shots are never seen, and their visits' verdicts say so;
//! neither a frame nor an event ever waits for the shadow.
//! Must not know: how a shadow decides.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::shadowing::ShadowShot;
use super::{Pipeline, SceneCell, Shadow};
use crate::gallery::GalleryVersion;
use crate::infer::Lane;
use crate::shadow::Verdict;

/// Hand-overs that wait for the shadow: a few seconds of a busy building.
const WAITING_MAX: usize = 64;

type HandOver = (Arc<SceneCell>, Vec<ShadowShot>);

/// The shadow of a pipeline.
pub(super) struct InShadow {
    shadow: Shadow,
    queue: mpsc::Sender<HandOver>,
    /// Taken by the one task that works it off.
    waiting: Mutex<Option<mpsc::Receiver<HandOver>>>,
    /// Hand-overs that are not worked off.
    count: AtomicUsize,
}

impl InShadow {
    /// A shadow that nobody runs yet.
    pub(super) fn new(shadow: Shadow) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        Self { shadow, queue, waiting: Mutex::new(Some(waiting)), count: AtomicUsize::new(0) }
    }

    /// Its own gallery, where its encoder is another.
    pub(super) fn gallery(&self) -> Option<watch::Receiver<Option<Arc<GalleryVersion>>>> {
        self.shadow.encoder.as_ref().map(|encoder| encoder.gallery.clone())
    }

    /// Whether it has seen all shots.
    pub(super) fn is_idle(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Takes over the shots that the cameras' scenes hold for it.
    pub(super) fn take_over(&self, cells: &[Option<Arc<SceneCell>>]) {
        for cell in cells.iter().flatten() {
            let shots = cell.scene().take_shadow_shots();
            if shots.is_empty() {
                continue;
            }
            self.count.fetch_add(1, Ordering::AcqRel);
            if let Err(refused) = self.queue.try_send((Arc::clone(cell), shots)) {
                self.count.fetch_sub(1, Ordering::AcqRel);
                let (cell, shots) = refused.into_inner();
                let mut scene = cell.scene();
                shots.iter().for_each(|shot| scene.shadow_failed(shot));
            }
        }
    }

    /// Hands verdicts to whoever keeps them, who may be behind: then they are lost rather than waited for.
    pub(super) fn pass_on(&self, verdicts: Vec<Verdict>) {
        let lost = verdicts.into_iter().filter_map(|verdict| self.shadow.verdicts.try_send(verdict).err()).count();
        if lost > 0 {
            tracing::warn!(lost, "what the shadow would have decided was lost: too much waits to be written");
        }
    }
}

impl Pipeline {
    /// The same, not running yet, with a shadow at every camera that is watched from now on and whose settings have one. There is one shadow: where
    /// the pipeline has one already, that stays.
    #[must_use]
    pub fn with_shadow(self, shadow: Shadow) -> Self {
        let _ = self.0.shadow.set(InShadow::new(shadow));
        self
    }

    /// Lets the shadow see what it has taken over, until told to stop and then to the end of what waits.
    pub(super) async fn run_shadow(&self, stop: CancellationToken) {
        let Some(in_shadow) = self.0.shadow.get() else { return };
        let Some(mut waiting) = in_shadow.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        loop {
            let received = tokio::select! {
                biased;
                received = waiting.recv() => received,
                () = stop.cancelled() => {
                    waiting.close();
                    waiting.recv().await
                }
            };
            let Some((cell, shots)) = received else { return };
            self.see(in_shadow, &cell, shots).await;
            in_shadow.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    async fn see(&self, in_shadow: &InShadow, cell: &SceneCell, shots: Vec<ShadowShot>) {
        let templates = match &in_shadow.shadow.encoder {
            None => shots.iter().map(|shot| shot.template.clone()).collect(),
            Some(encoder) => {
                match encoder.engine.encode(Lane::Live, shots.iter().filter_map(|shot| shot.aligned.clone()).collect()).await {
                    Ok(templates) => templates,
                    Err(error) => {
                        self.0.shadow_failed.tell(&error, shots.len(), self.0.clock.now());
                        Vec::new()
                    }
                }
            }
        };
        let gallery = self.0.gallery.current();
        let mut templates = templates.iter();
        for shot in &shots {
            let Some(template) = templates.next() else {
                cell.scene().shadow_failed(shot);
                continue;
            };
            if let Err(error) = cell.scene().shadow_sees(shot, template, &gallery) {
                self.0.shadow_failed.tell(&error, 1, self.0.clock.now());
            }
        }
    }
}
