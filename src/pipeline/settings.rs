//! How one camera is analysed: what the configuration says of every camera, then what its operator says of it.
//!
//! In: the configuration, the policy in force. Out: settings with a value for everything.
//! Must not know: what is done by them.

use std::time::Duration;

use super::shadowing::ShadowSettings;
use crate::camera::NormalisedRect;
use crate::config::Config;
use crate::decide::Policy;
use crate::event::Purpose;
use crate::liveness::LivePolicy;
use crate::telling::Telling;
use crate::track::TrackPolicy;
use crate::visit::{Layout, VisitPolicy};

/// A track is believed when it was seen in this many frames.
const SIGHTINGS_MIN: u32 = 2;
/// How one camera is analysed.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneSettings {
    /// The longer side of the detector's input, in pixels.
    pub detector_side: Option<u32>,
    /// The part of the picture that is looked at.
    pub region_of_interest: Option<NormalisedRect>,
    /// Smaller faces are ignored.
    pub face_pixels_min: u32,
    /// Weaker detections are noise; down to a little less they may continue a track.
    pub detection_score_min: f32,
    /// The least overall quality of a shot that is encoded.
    pub quality_min: f32,
    /// What decides who it is.
    pub policy: Policy,
    /// How detections become tracks.
    pub track: TrackPolicy,
    /// How visits are decided.
    pub visit: VisitPolicy,
    /// Encode every face of every frame, for measurements.
    pub encode_every_face: bool,
    /// Keep best shots as pictures, where the camera's own policy keeps any.
    pub snapshots: bool,
    /// What is drawn into the picture.
    pub layout: Layout,
    /// What is told when, and what of the pictures is kept.
    pub telling: Telling,
    /// What decides beside it and never acts, where something does.
    pub shadow: Option<ShadowSettings>,
    /// Measure the stages; replay does not, its times are the stream's.
    pub measure: bool,
}

impl SceneSettings {
    /// What the configuration says of every camera, before a camera's own settings.
    pub fn of(config: &Config, policy: &Policy) -> Self {
        let millis = Duration::from_millis;
        Self {
            detector_side: None,
            region_of_interest: None,
            face_pixels_min: 0,
            detection_score_min: config.infer.detection_score_min,
            quality_min: config.recognition.quality_min,
            policy: policy.clone(),
            track: TrackPolicy {
                score_min: config.infer.detection_score_min,
                sightings_min: SIGHTINGS_MIN,
                unseen_max: millis(config.recognition.visit_gap_ms),
            },
            visit: VisitPolicy {
                threshold: policy.threshold(Purpose::Verify, 1),
                decision_deadline: millis(config.recognition.decision_deadline_ms),
                decide_after: Some(millis(config.recognition.entry_decision_ms)),
                reassert_every: Some(millis(config.recognition.reassert_ms)).filter(|every| !every.is_zero()),
                resume_within: millis(config.recognition.visit_resume_ms),
                actionable: millis(config.recognition.actionable_ms),
                live: LivePolicy::of(&config.recognition),
            },
            encode_every_face: config.infer.encode_every_face,
            snapshots: config.events.snapshots,
            layout: Layout::default(),
            telling: Telling::default(),
            shadow: None,
            measure: true,
        }
    }
}
