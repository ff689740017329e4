//! What is known of one visitor's face: the fused template, and when another look is worth it.
//!
//! In: what the detections promise; the templates of the shots that were taken. Out: the fused
//! template, or that the face is another person's.
//! Must not know: who the visitor is.

use std::time::Duration;

use super::Look;
use crate::clock::Timestamp;
use crate::face::{Probe, Template, TemplateError};

/// What a further shot says of the visitor.
#[derive(Clone, Debug, PartialEq)]
pub enum Fused {
    /// The same person: the template of all shots together, as good as the best of them.
    Same(Probe),
    /// Another person stands where the visitor was.
    Other,
}

/// While undecided, looks are at least this far apart: nearly equal frames say nothing new.
const LOOK_EVERY_UNDECIDED: Duration = Duration::from_millis(100);
/// Once decided, a clearly better face is looked at this often at the most.
const LOOK_EVERY_BETTER: Duration = Duration::from_millis(500);
/// Once decided, the face is looked at this often whatever it promises: somebody else may stand there.
const LOOK_EVERY_DECIDED: Duration = Duration::from_secs(2);
/// A face that promises this much more than the best one so far is clearly better.
const CLEARLY_BETTER: f32 = 0.15;
/// A shot that is less similar to the visitor's than this shows somebody else: far below what
/// usable shots of one face reach within a track, and above nearly all pairs of strangers. Erring
/// costs a second visit of the same person; the other error would let a stranger be somebody.
const SAME_PERSON_MIN: f32 = 0.3;

/// The shots of one visit, fused.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Sum of the shots' templates, weighted by quality.
    sum: Vec<f32>,
    fused: Option<Probe>,
    best_promise: f32,
    looked: Option<Timestamp>,
    /// The face was out of sight, and no shot has shown since that it is the same one.
    unsure: bool,
}

impl Evidence {
    /// Whether a face is worth a look at `now`; `is_due` where it is to be told again who it is.
    pub fn wants(&mut self, look: &Look, (decided, is_due): (bool, bool), now: Timestamp) -> bool {
        self.unsure |= look.resumed;
        let Some(looked) = self.looked else { return true };
        let waited = now.since(looked);
        if look.resumed {
            return true;
        }
        if !decided || self.unsure {
            return waited >= LOOK_EVERY_UNDECIDED;
        }
        waited >= LOOK_EVERY_DECIDED
            || (is_due && waited >= LOOK_EVERY_BETTER)
            || (waited >= LOOK_EVERY_BETTER && look.promise >= self.best_promise + CLEARLY_BETTER)
    }

    /// Remembers that the face was looked at.
    pub fn looked(&mut self, now: Timestamp) {
        self.looked = Some(now);
    }

    /// Fuses a shot: the mean of the shots' templates, weighted by quality, is closer to the
    /// person than any single one.
    pub fn fuse(&mut self, shot: &Template, quality: f32, promise: f32) -> Result<Fused, TemplateError> {
        if let Some(known) = &self.fused
            && known.template.similarity(shot)? < SAME_PERSON_MIN
        {
            self.unsure = true;
            return Ok(Fused::Other);
        }
        self.unsure = false;
        self.sum.resize(shot.values().len(), 0.0);
        for (sum, value) in self.sum.iter_mut().zip(shot.values()) {
            *sum += quality * value;
        }
        let template = Template::normalised(shot.space().clone(), &self.sum)?;
        let fused = Probe { template, quality: self.fused.as_ref().map_or(quality, |known| known.quality.max(quality)) };
        self.fused = Some(fused.clone());
        self.best_promise = self.best_promise.max(promise);
        Ok(Fused::Same(fused))
    }

    /// Takes over what was learnt of the same person elsewhere.
    pub fn absorb(&mut self, other: &Self) {
        self.sum.resize(self.sum.len().max(other.sum.len()), 0.0);
        for (sum, value) in self.sum.iter_mut().zip(&other.sum) {
            *sum += value;
        }
        let best = [&self.fused, &other.fused].into_iter().flatten().max_by(|a, b| a.quality.total_cmp(&b.quality));
        if let Some(Probe { template, quality }) = best {
            // Two directions of one person never cancel out; should they, the better one stays.
            let template = Template::normalised(template.space().clone(), &self.sum).unwrap_or_else(|_| template.clone());
            self.fused = Some(Probe { template, quality: *quality });
        }
        self.best_promise = self.best_promise.max(other.best_promise);
        self.looked = other.looked.or(self.looked);
        self.unsure = other.unsure;
    }

    /// Whether somebody else may stand there by now.
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// The fused template.
    pub fn fused(&self) -> Option<&Template> {
        self.fused.as_ref().map(|fused| &fused.template)
    }

    /// The fused probe, unless somebody else may stand there by now.
    pub fn of_one_person(&self) -> Option<&Probe> {
        self.fused.as_ref().filter(|_| !self.unsure)
    }

    /// Quality of the best shot that was fused.
    pub fn best_quality(&self) -> Option<f32> {
        self.fused.as_ref().map(|fused| fused.quality)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BoxInFrame, TrackId};
    use crate::face::TemplateSpace;

    const BEGIN: Timestamp = Timestamp::from_micros(1_000_000);
    const BEST_PROMISE: f32 = 0.5;
    /// The visitor is decided, and nothing is due.
    const DECIDED: (bool, bool) = (true, false);

    /// Of a face that was looked at at [`BEGIN`] and promised [`BEST_PROMISE`].
    fn evidence() -> Evidence {
        let mut evidence = Evidence::default();
        let shot = Template::normalised(TemplateSpace::new("s"), &[1.0, 0.0]).expect("it has a direction");
        evidence.looked(BEGIN);
        evidence.fuse(&shot, 0.8, BEST_PROMISE).expect("one space");
        evidence
    }

    /// When a decided face that promises `more` than the best one so far is looked at again.
    fn looked_at_after(more: f32) -> Duration {
        let promise = BEST_PROMISE + more;
        let (box_in_frame, frames_apart) = (BoxInFrame::default(), Duration::ZERO);
        let look = Look { track: TrackId(1), resumed: false, frames_apart, promise, box_in_frame, detection_score: 0.9 };
        let mut evidence = evidence();
        let waits = (0..300).map(|step| Duration::from_millis(10) * step);
        waits.into_iter().find(|wait| evidence.wants(&look, DECIDED, BEGIN.plus(*wait))).expect("within three seconds")
    }

    #[test]
    fn a_decided_face_is_looked_at_again_after_half_a_second_where_it_promises_clearly_more_and_after_two_else() {
        assert_eq!(looked_at_after(CLEARLY_BETTER + 0.01), Duration::from_millis(500));
        for hardly_more in [CLEARLY_BETTER - 0.01, 0.0, -0.3] {
            assert_eq!(looked_at_after(hardly_more), Duration::from_secs(2), "{hardly_more} more");
        }
    }
}
