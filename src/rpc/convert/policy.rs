//! Thresholds and whose targets they follow, between wire and domain.
//!
//! In: what decides. Out: its wire form.
//! Must not know: how a threshold is found.

use crate::calibration::Calibration;
use crate::decide::ThresholdFacts;
use crate::event::{PolicyScope, Purpose, ThresholdBasis};
use crate::pb;

pub(in crate::rpc) fn wire_purpose(purpose: Purpose) -> pb::Purpose {
    match purpose {
        Purpose::Verify => pb::Purpose::Verify,
        Purpose::Identify => pb::Purpose::Identify,
    }
}

pub(in crate::rpc) fn wire_basis(basis: Option<ThresholdBasis>) -> pb::ThresholdBasis {
    match basis {
        None => pb::ThresholdBasis::Unspecified,
        Some(ThresholdBasis::Fixed) => pb::ThresholdBasis::Fixed,
        Some(ThresholdBasis::Published) => pb::ThresholdBasis::Published,
        Some(ThresholdBasis::Calibrated) => pb::ThresholdBasis::Calibrated,
        Some(ThresholdBasis::Unsupported) => pb::ThresholdBasis::Unsupported,
    }
}

pub(in crate::rpc) fn wire_scope(scope: Option<PolicyScope>) -> pb::PolicyScope {
    match scope {
        None => pb::PolicyScope::Unspecified,
        Some(PolicyScope::Default) => pb::PolicyScope::Default,
        Some(PolicyScope::Purpose) => pb::PolicyScope::Purpose,
        Some(PolicyScope::Camera) => pb::PolicyScope::Camera,
        Some(PolicyScope::Watchlist) => pb::PolicyScope::Watchlist,
        Some(PolicyScope::Subject) => pb::PolicyScope::Subject,
    }
}

pub(in crate::rpc) fn wire_threshold(facts: ThresholdFacts) -> pb::ThresholdInForce {
    let ThresholdFacts { purpose, name, in_force } = facts;
    pb::ThresholdInForce {
        purpose: wire_purpose(purpose).into(),
        scope: wire_scope(Some(in_force.scope)).into(),
        name,
        threshold: in_force.threshold,
        target_rate: in_force.target_rate,
        expected_rate: in_force.expected_rate,
        expected_rate_low: in_force.interval.map(|interval| interval.low),
        expected_rate_high: in_force.interval.map(|interval| interval.high),
        basis: wire_basis(Some(in_force.basis)).into(),
    }
}

pub(in crate::rpc) fn wire_calibration(calibration: &Calibration) -> pb::CalibrationInfo {
    pb::CalibrationInfo {
        source: calibration.source.clone(),
        people: calibration.people,
        photos: calibration.photos,
        comparisons: calibration.comparisons(1.0),
    }
}
