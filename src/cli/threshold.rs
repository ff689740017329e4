//! What a threshold stands for, in words.
//!
//! In: a threshold's rates and where it comes from. Out: text.
//! Must not know: who decided.

use crate::pb::{CalibrationInfo, PolicyScope, Purpose, ThresholdBasis, ThresholdInForce};

/// A share as people say it: `0.1 %`; below that, `1 in 10000`.
pub fn share(rate: f64) -> String {
    let percent = rate * 100.0;
    if percent >= 0.0995 || percent == 0.0 { format!("{} %", rounded(percent)) } else { format!("1 in {}", rounded(1.0 / rate)) }
}

/// Two digits that matter.
fn rounded(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let digits = 1 - value.abs().log10().floor() as i32;
    let unit = 10_f64.powi(digits);
    let rounded = (value * unit).round() / unit;
    let decimals = usize::try_from(digits).unwrap_or(0);
    let text = format!("{rounded:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Which errors of how many strangers: `false positives 0.1 %`; where the target cannot be kept, what was asked for.
pub fn stands_for(errors: &str, (target, expected): (Option<f64>, Option<f64>), basis: ThresholdBasis) -> Option<String> {
    let of = |rate: f64| format!("{errors} {}", share(rate));
    match basis {
        ThresholdBasis::Unspecified => None,
        ThresholdBasis::Published => Some("as published: no calibration says what it stands for".into()),
        ThresholdBasis::Fixed => {
            Some(expected.map_or_else(|| "set by the operator".into(), |rate| format!("set by the operator, {}", of(rate))))
        }
        ThresholdBasis::Calibrated => expected.or(target).map(of),
        ThresholdBasis::Unsupported => {
            let asked = target.map(|target| format!(" and not {}", share(target))).unwrap_or_default();
            Some(match expected {
                Some(expected) => format!("up to {}{asked}: the calibration has too few comparisons", of(expected)),
                None => "no rate is promised: faces are looked at otherwise than those of the calibration (infer.mirror)".into(),
            })
        }
    }
}

/// What an error of `purpose` is called.
pub fn errors(purpose: Purpose) -> &'static str {
    if purpose == Purpose::Verify { "false matches" } else { "false positives" }
}

/// A row of the gallery's thresholds: for what, and what it stands for.
pub fn fact(threshold: &ThresholdInForce) -> (String, String) {
    let purpose = if threshold.purpose() == Purpose::Verify { "to verify" } else { "to identify" };
    let whose = match threshold.scope() {
        PolicyScope::Watchlist => format!(" somebody on {}", threshold.name),
        PolicyScope::Subject => format!(" {}", threshold.name),
        PolicyScope::Camera => format!(" at {}", threshold.name),
        _ => String::new(),
    };
    let rates = (threshold.target_rate, threshold.expected_rate);
    let stands_for = stands_for(errors(threshold.purpose()), rates, threshold.basis()).map(|told| format!(" ({told})")).unwrap_or_default();
    let interval = threshold.expected_rate_low.zip(threshold.expected_rate_high);
    let interval = interval.map(|(low, high)| format!(", 95 % between {} and {}", share(low), share(high))).unwrap_or_default();
    (format!("{purpose}{whose}"), format!("{:.3}{stands_for}{interval}", threshold.threshold))
}

/// Where thresholds come from.
pub fn calibration(info: &CalibrationInfo) -> String {
    let lowest = 3.0 / info.comparisons.max(1) as f64;
    format!("{} people, {} photos: {}; supports false match rates from {}", info.people, info.photos, info.source, share(lowest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_said_as_people_say_them() {
        assert_eq!([share(0.001), share(0.0234), share(0.5), share(0.0), share(1.0)], ["0.1 %", "2.3 %", "50 %", "0 %", "100 %"]);
        assert_eq!([share(1e-4), share(4.6e-6)], ["1 in 10000", "1 in 220000"]);
    }

    #[test]
    fn a_target_that_is_not_kept_is_said_with_what_is_kept() {
        let said = |basis, target, expected| stands_for("false positives", (target, expected), basis).unwrap_or_default();
        assert_eq!(said(ThresholdBasis::Calibrated, Some(1e-3), Some(1e-3)), "false positives 0.1 %");
        let told = said(ThresholdBasis::Unsupported, Some(1e-3), Some(0.12));
        assert_eq!(told, "up to false positives 12 % and not 0.1 %: the calibration has too few comparisons");
        let told = said(ThresholdBasis::Unsupported, Some(1e-3), None);
        assert_eq!(told, "no rate is promised: faces are looked at otherwise than those of the calibration (infer.mirror)");
        assert_eq!(said(ThresholdBasis::Fixed, None, Some(0.02)), "set by the operator, false positives 2 %");
        assert_eq!(stands_for("x", (None, None), ThresholdBasis::Unspecified), None, "an older daemon tells nothing");
    }
}
