//! How a camera is watched, by what its operator says of it and the daemon's defaults for the rest.
//!
//! In: a camera, defaults. Out: what the pipeline wants to know; the thresholds that follow.
//! Must not know: sources, the store.

use std::time::Duration;

use super::Cameras;
use crate::batch::{SlotPolicy, SlotSettings};
use crate::camera::{Camera, Role};
use crate::decide::{Target, ThresholdFacts, visit_comparisons};
use crate::pipeline::{Layout, SceneSettings, Watch};

/// What the pipeline is told of `camera`.
pub fn as_configured(camera: &Camera, defaults: &SceneSettings) -> Watch {
    let mut scene = defaults.clone();
    scene.detector_side = camera.detector_side;
    scene.region_of_interest = camera.region_of_interest;
    scene.face_pixels_min = camera.face_pixels_min;
    let rate = camera.target_fpir.map(Target::Rate);
    scene.policy = scene.policy.at_camera(rate.or(camera.threshold.map(Target::Threshold)));
    if let Some(shadow) = &mut scene.shadow {
        let similarity = camera.threshold.map(Target::Threshold).filter(|_| shadow.is_same_space);
        shadow.policy = shadow.policy.at_camera(rate.or(similarity));
        let own = camera.threshold.filter(|_| shadow.is_same_space);
        shadow.resume_threshold = own.map_or(shadow.resume_threshold, |threshold| threshold.max(shadow.resume_threshold));
    }
    // Who goes on with a visit must be as alike as who is identified.
    scene.visit.threshold = camera.threshold.map_or(scene.visit.threshold, |threshold| threshold.max(scene.visit.threshold));
    scene.layout = Layout { role: camera.role, lines: camera.lines.clone(), zones: camera.zones.clone() };
    scene.telling = camera.telling.clone();
    if let Some(ms) = camera.telling.actionable_ms {
        scene.visit.actionable = Duration::from_millis(ms.into());
    }
    if camera.role != Role::Entry {
        // Nobody waits for a door to open there.
        scene.visit.decide_after = None;
        scene.visit.reassert_every = None;
    }
    let slot = SlotSettings { role: camera.role, analysis_fps_max: camera.analysis_fps_max, policy: SlotPolicy::NewestWins };
    Watch { camera: camera.id.clone(), slot, scene }
}

impl Cameras {
    /// The thresholds of those cameras that state one or a rate of their own, disabled ones too, in a gallery of so many templates.
    pub fn thresholds(&self, templates: u64) -> Vec<ThresholdFacts> {
        let own = |camera: &Camera| {
            let policy = as_configured(camera, &self.0.defaults.scene).scene.policy;
            policy.of_camera(camera.id.as_str(), visit_comparisons(templates))
        };
        self.list().iter().filter_map(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Asked;
    use crate::cameras::check::tests::door;
    use crate::config::Config;
    use crate::decide::Policy;
    use crate::event::{PolicyScope, Purpose};

    #[test]
    fn a_cameras_own_target_decides_there_and_who_goes_on_with_a_visit_must_reach_it_too() {
        let defaults = SceneSettings::of(&Config::default(), &Policy::fixed(0.4));
        let in_force = |camera: &Camera| {
            let scene = as_configured(camera, &defaults).scene;
            let found = scene.policy.in_force(Purpose::Identify, None, Asked { comparisons: 9, quality: 1.0 });
            (found.threshold, found.scope, scene.visit.threshold)
        };
        assert_eq!(in_force(&door()), (0.4, PolicyScope::Default, 0.4));
        assert_eq!(in_force(&Camera { threshold: Some(0.6), ..door() }), (0.6, PolicyScope::Camera, 0.6));
        assert_eq!(
            in_force(&Camera { threshold: Some(0.2), ..door() }),
            (0.2, PolicyScope::Camera, 0.4),
            "a visit is never resumed more easily"
        );
        assert_eq!(in_force(&Camera { target_fpir: Some(0.01), ..door() }).1, PolicyScope::Camera);
    }
}
