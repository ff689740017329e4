//! What decides in the shadow: the configuration in force, with some of what decides replaced.
//!
//! In: the configuration. Out: the configuration that the daemon would have with the shadow in force.
//! Must not know: what is done with it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Config, TargetConfig};

/// What runs beside what is in force, over the same visitors, and never acts. What is not set is as in force; nothing set: no shadow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowConfig {
    /// The manifest's name of another encoder. Calibration, verifier and similarities of the one in force mean nothing to it, so
    /// it takes none of them over.
    pub encoder: Option<String>,
    /// In place of `recognition.calibration`.
    pub calibration: Option<PathBuf>,
    /// In place of `recognition.verifier`.
    pub verifier: Option<PathBuf>,
    /// In place of `recognition.target_fpir` and of `recognition.threshold`.
    pub target_fpir: Option<f64>,
    /// In place of `recognition.threshold` and of `recognition.target_fpir`.
    pub threshold: Option<f32>,
    /// In place of `recognition.watchlists`.
    pub watchlists: Option<BTreeMap<String, TargetConfig>>,
    /// In place of `recognition.subjects`.
    pub subjects: Option<BTreeMap<String, TargetConfig>>,
}

impl Config {
    /// The configuration with the shadow in force; `None` without a shadow. `encoder_in_force` is the name of the encoder in force,
    /// which the configuration may leave to the manifest.
    pub fn of_shadow(&self, encoder_in_force: &str) -> Option<Self> {
        if self.shadow == ShadowConfig::default() {
            return None;
        }
        let ShadowConfig { encoder, calibration, verifier, target_fpir, threshold, watchlists, subjects } = self.shadow.clone();
        let mut config = self.clone();
        let recognition = &mut config.recognition;
        // A shadow identifies and never verifies.
        for targets in recognition.watchlists.values_mut().chain(recognition.subjects.values_mut()) {
            targets.target_fmr = None;
        }
        if let Some(encoder) = encoder.filter(|encoder| encoder != encoder_in_force) {
            (recognition.calibration, recognition.verifier, recognition.threshold, recognition.target_fmr) = (None, None, None, None);
            for scope in [&mut recognition.watchlists, &mut recognition.subjects] {
                scope.values_mut().for_each(|targets| targets.threshold = None);
            }
            config.infer.encoder = Some(encoder);
        }
        recognition.calibration = calibration.or(recognition.calibration.take());
        recognition.verifier = verifier.or(recognition.verifier.take());
        if target_fpir.is_some() || threshold.is_some() {
            (recognition.target_fpir, recognition.threshold) = (target_fpir, threshold);
        }
        recognition.watchlists = watchlists.unwrap_or_else(|| std::mem::take(&mut recognition.watchlists));
        recognition.subjects = subjects.unwrap_or_else(|| std::mem::take(&mut recognition.subjects));
        for scope in [&mut recognition.watchlists, &mut recognition.subjects] {
            scope.retain(|_, targets| *targets != TargetConfig::default());
        }
        Some(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RecognitionConfig;

    fn configured(shadow: ShadowConfig) -> Config {
        let fixed = TargetConfig { threshold: Some(0.5), ..TargetConfig::default() };
        let rate = TargetConfig { target_fpir: Some(1e-4), ..TargetConfig::default() };
        let recognition = RecognitionConfig {
            calibration: Some("own.json".into()),
            verifier: Some("head.json".into()),
            threshold: Some(0.4),
            target_fmr: Some(0.01),
            watchlists: BTreeMap::from([("fixed".into(), fixed), ("rate".into(), rate)]),
            ..RecognitionConfig::default()
        };
        Config { recognition, shadow, ..Config::default() }
    }

    #[test]
    fn what_a_shadow_does_not_state_is_as_in_force() {
        assert_eq!(configured(ShadowConfig::default()).of_shadow("first"), None, "nothing stated is no shadow");
        let shadow = configured(ShadowConfig { target_fpir: Some(0.01), ..ShadowConfig::default() }).of_shadow("first").expect("it is one");
        let in_force = configured(ShadowConfig::default()).recognition;
        assert_eq!(shadow.recognition, RecognitionConfig { target_fpir: Some(0.01), threshold: None, ..in_force });
        let same =
            configured(ShadowConfig { encoder: Some("first".into()), ..ShadowConfig::default() }).of_shadow("first").expect("it is one");
        assert_eq!(same.recognition.calibration, Some("own.json".into()), "the encoder in force by its name is no other");
    }

    #[test]
    fn another_encoder_takes_over_nothing_that_is_a_similarity_of_the_one_in_force() {
        let shadow = ShadowConfig { encoder: Some("other".into()), calibration: Some("other.json".into()), ..ShadowConfig::default() };
        let Config { infer, recognition, .. } = configured(shadow).of_shadow("first").expect("it is one");
        assert_eq!(infer.encoder.as_deref(), Some("other"));
        assert_eq!((recognition.calibration, recognition.verifier, recognition.threshold), (Some("other.json".into()), None, None));
        assert_eq!(recognition.watchlists.into_keys().collect::<Vec<_>>(), ["rate"]);
        assert_eq!(recognition.target_fmr, None, "nobody is verified in the shadow");
    }
}
