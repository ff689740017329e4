//! Groups the newest frames of several cameras into a batch.
//!
//! In: [`Frame`]s as sources offer them. Out: batches of at most one frame a camera, the most
//! deserving cameras first; a batch closes when no more can come, or when its oldest frame would be late by what
//! batches of this size were measured to take. A full slot drops its older frame and counts it; a camera whose last
//! frame is still being analysed waits, so that results leave in frame order per camera.
//! Must not know: tokio, tensors, GPUs, what follows. Pure policy: time is an argument.

mod times;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::camera::{CameraId, FrameCounts, Role, Skipped};
use crate::clock::Timestamp;
use crate::frame::Frame;
use times::BatchTimes;

/// What happens to a frame whose camera's slot is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotPolicy {
    /// The newer frame replaces it: live cameras.
    NewestWins,
    /// The source waits until the slot is empty: replay, where every frame counts.
    Wait,
}

/// How a camera's frames wait and are served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotSettings {
    /// How urgent they are.
    pub role: Role,
    /// The most frames a second that are analysed; `None` is as many as the sessions can take.
    pub analysis_fps_max: Option<f32>,
    /// What happens to a frame that nobody takes.
    pub policy: SlotPolicy,
}

/// When a batch closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// The most frames of a batch; with 1 every frame is due at once.
    pub frames_max: usize,
    /// How long a frame may take from its slot until it is analysed, as far as waiting for more frames goes.
    pub latency_max: Duration,
}

/// What became of an offered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in the slot; an older one may have been dropped for it.
    Taken,
    /// It came too soon after the last one for the camera's analysis rate.
    OverRate,
    /// The slot is full and the policy is to wait: offer it again.
    Full,
    /// The camera is not (or no longer) watched.
    UnknownCamera,
}

/// Whether there is a batch to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Now,
    /// Not yet full: at this moment it is due all the same.
    At(Timestamp),
    /// No camera has a frame that may be taken.
    Empty,
}

/// The slots of all cameras.
#[derive(Debug)]
pub struct Slots {
    policy: BatchPolicy,
    cameras: BTreeMap<CameraId, Slot>,
    /// The service that the last served camera had received: newcomers begin here, so that they
    /// neither wait for nor overtake everybody.
    service_floor: f64,
    times: BatchTimes,
}

#[derive(Debug)]
struct Slot {
    policy: SlotPolicy,
    role: Role,
    frame: Option<(Frame, Timestamp)>,
    /// When the frame that is being analysed was captured.
    in_flight: Option<Timestamp>,
    period: Option<Duration>,
    next_due: Timestamp,
    /// When it gave its last frame.
    offered: Option<Timestamp>,
    /// How far its frames are apart, on the mean of the last few.
    apart: Option<Duration>,
    /// Weighted count of the frames served (stride scheduling, Waldspurger and Weihl, 1995): the
    /// camera with the least is next.
    service: f64,
    counts: FrameCounts,
}

/// A camera that has given nothing for so long gives nothing in time for a batch.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// The share of the time between a camera's frames that one of them may wait: its next one would take its place. The rest is for
/// cameras that are not punctual.
const WAIT_SHARE: f32 = 0.5;

/// How much more often than an interior camera a camera of this role is served when there is
/// more work than the sessions can do.
fn weight(role: Role) -> f64 {
    match role {
        Role::Entry => 4.0,
        Role::Exit => 2.0,
        Role::Interior => 1.0,
    }
}

impl Slot {
    /// A frame came at `now`.
    fn note_offer(&mut self, now: Timestamp) {
        let apart = self.offered.map(|last| now.since(last)).filter(|apart| *apart <= SILENT_AFTER);
        self.apart = match (self.apart, apart) {
            // After a pause it is soon as punctual as it was.
            (Some(mean), Some(apart)) => Some(((mean * 7 + apart) / 8).min(apart.max(mean / 2))),
            (None, apart) => apart,
            // It was away, and comes back as it may.
            (Some(_), None) => None,
        };
        self.offered = Some(now);
    }

    /// When the frame that was offered at `offered` may have to make room for the next one; `None` where it never does, or nothing is
    /// known of the camera's rate.
    fn may_be_replaced_at(&self, offered: Timestamp) -> Option<Timestamp> {
        let apart = self.apart.filter(|_| self.policy == SlotPolicy::NewestWins)?;
        // One that comes before the next is due is left out, and takes nobody's place.
        Some(offered.plus(apart.mul_f32(WAIT_SHARE)).max(self.next_due))
    }
}

impl Slots {
    /// No cameras yet.
    pub fn new(policy: BatchPolicy) -> Self {
        Self { policy, cameras: BTreeMap::new(), service_floor: 0.0, times: BatchTimes::default() }
    }

    /// Gives a camera its slot, or changes its role and rate (counts are kept).
    pub fn watch(&mut self, camera: &CameraId, settings: SlotSettings) {
        let SlotSettings { role, analysis_fps_max, policy } = settings;
        let period = analysis_fps_max.and_then(|fps| Duration::try_from_secs_f32(1.0 / fps).ok());
        let service = self.service_floor;
        let slot = self.cameras.entry(camera.clone()).or_insert_with(|| Slot {
            policy,
            role,
            frame: None,
            in_flight: None,
            period,
            next_due: Timestamp::default(),
            offered: None,
            apart: None,
            service,
            counts: FrameCounts::default(),
        });
        if slot.period != period {
            // It was reckoned by the old one.
            slot.next_due = Timestamp::default();
        }
        (slot.policy, slot.role, slot.period) = (policy, role, period);
    }

    /// Takes a camera's slot away; a frame in it is dropped.
    pub fn forget(&mut self, camera: &CameraId) {
        self.cameras.remove(camera);
    }

    /// Takes a frame at `now`, by the camera's policy.
    pub fn offer(&mut self, frame: Frame, now: Timestamp) -> Offer {
        let floor = self.service_floor;
        let Some(slot) = self.cameras.get_mut(&frame.camera) else { return Offer::UnknownCamera };
        if slot.policy == SlotPolicy::Wait && slot.frame.is_some() {
            return Offer::Full;
        }
        slot.counts.received += 1;
        slot.note_offer(now);
        if let Some(period) = slot.period {
            if frame.capture_time < slot.next_due {
                slot.counts.dropped_rate += 1;
                return Offer::OverRate;
            }
            // The schedule is kept, not restarted, so that a jittery camera keeps its rate; after
            // a pause it begins anew, so that no burst makes up for it.
            slot.next_due = slot.next_due.max(frame.capture_time.minus(period)).plus(period);
        }
        if slot.frame.replace((frame, now)).is_some() {
            slot.counts.dropped_newer += 1;
        } else {
            // A camera that was idle has saved up no claim on the others.
            slot.service = slot.service.max(floor);
        }
        Offer::Taken
    }

    /// Whether a batch can be taken at `now`: when it is full, when every camera that may give a frame has given one, when its
    /// oldest frame would be late if it waited longer, or when the next frame of one of its cameras may come, which would take the
    /// place of the one that waits. Until a batch was measured nobody knows how long one takes, so none waits.
    pub fn readiness(&self, now: Timestamp) -> Readiness {
        let (mut waiting, mut oldest, mut replaced, mut free) = (0, None, None, 0);
        let soon = now.plus(self.policy.latency_max);
        for slot in self.cameras.values().filter(|slot| slot.in_flight.is_none()) {
            // A camera that is silent, or whose next frame is not due, is not waited for.
            let is_lively = slot.offered.is_some_and(|offered| now.since(offered) <= SILENT_AFTER) && slot.next_due <= soon;
            free += usize::from(slot.frame.is_some() || is_lively);
            let Some((_, offered)) = &slot.frame else { continue };
            waiting += 1;
            oldest = Some(oldest.map_or(*offered, |o: Timestamp| o.min(*offered)));
            let at = slot.may_be_replaced_at(*offered);
            replaced = [replaced, at].into_iter().flatten().min();
        }
        let Some(oldest) = oldest else { return Readiness::Empty };
        let is_full = waiting >= self.policy.frames_max.min(free);
        let may_wait = self.times.expect(waiting).and_then(|takes| self.policy.latency_max.checked_sub(takes));
        let due = oldest.plus(may_wait.unwrap_or_default());
        let due = replaced.map_or(due, |replaced: Timestamp| due.min(replaced));
        if is_full || due <= now { Readiness::Now } else { Readiness::At(due) }
    }

    /// A batch of `size` frames was analysed, which took so long.
    pub fn observe(&mut self, size: usize, took: Duration) {
        self.times.observe(size, took);
    }

    /// The next batch: one frame of each of the cameras that deserve it most. Each camera rests
    /// until [`done`](Self::done) is told of its frame.
    pub fn take(&mut self) -> Vec<Frame> {
        let mut ready: Vec<(&CameraId, &mut Slot)> =
            self.cameras.iter_mut().filter(|(_, s)| s.frame.is_some() && s.in_flight.is_none()).collect();
        ready.sort_by(|(a_id, a), (b_id, b)| {
            let by_service = a.service.total_cmp(&b.service);
            by_service.then(weight(b.role).total_cmp(&weight(a.role))).then_with(|| a_id.cmp(b_id))
        });
        ready.truncate(self.policy.frames_max);
        let mut batch = Vec::with_capacity(ready.len());
        for (_, slot) in ready {
            let Some((frame, _)) = slot.frame.take() else { continue };
            self.service_floor = self.service_floor.max(slot.service);
            slot.service += 1.0 / weight(slot.role);
            slot.in_flight = Some(frame.capture_time);
            batch.push(frame);
        }
        batch
    }

    /// A camera's frame has left the pipeline; `analysed` is false when inference failed. One that was taken before the camera was
    /// forgotten and watched anew is none of the new slot's.
    pub fn done(&mut self, (camera, capture_time): (&CameraId, Timestamp), analysed: bool) {
        let slot = self.cameras.get_mut(camera);
        if let Some(slot) = slot.filter(|slot| slot.in_flight == Some(capture_time)) {
            slot.in_flight = None;
            if analysed {
                slot.counts.analysed += 1;
            } else {
                slot.counts.dropped_failed += 1;
            }
        }
    }

    /// A frame came that cannot be read.
    pub fn refused(&mut self, camera: &CameraId) {
        if let Some(slot) = self.cameras.get_mut(camera) {
            slot.counts.received += 1;
            slot.counts.dropped_format += 1;
        }
    }

    /// A picture was not decoded.
    pub fn skipped(&mut self, camera: &CameraId, why: Skipped) {
        if let Some(slot) = self.cameras.get_mut(camera) {
            slot.counts.received += 1;
            match why {
                Skipped::Late => slot.counts.dropped_late += 1,
                Skipped::Damaged => slot.counts.dropped_damaged += 1,
            }
        }
    }

    /// Whether no frame waits and none is being analysed.
    pub fn is_idle(&self) -> bool {
        self.cameras.values().all(|s| s.frame.is_none() && s.in_flight.is_none())
    }

    /// A camera's counts, `None` when it is not watched.
    pub fn counts(&self, camera: &CameraId) -> Option<FrameCounts> {
        self.cameras.get(camera).map(|slot| slot.counts)
    }
}

#[cfg(test)]
mod tests;
