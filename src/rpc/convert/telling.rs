//! What a camera tells, between wire and domain.
//!
//! In: the fields of the wire's `Camera` that say what is told and kept. Out: the domain's, and back.
//! Must not know: cameras.

use tonic::Status;

use super::camera::bad;
use super::event::{event_kind, event_type};
use crate::pb;
use crate::telling::{DAY_MINUTES, EventRule, SnapshotPolicy};

/// What is kept of best shots.
pub(super) fn snapshots(wire: i32) -> Result<SnapshotPolicy, Status> {
    match pb::SnapshotPolicy::try_from(wire) {
        Ok(pb::SnapshotPolicy::Unspecified | pb::SnapshotPolicy::Frame) => Ok(SnapshotPolicy::Frame),
        Ok(pb::SnapshotPolicy::Crop) => Ok(SnapshotPolicy::Crop),
        Ok(pb::SnapshotPolicy::None) => Ok(SnapshotPolicy::None),
        Err(_) => Err(bad("snapshots", "is not one of none, crop, frame")),
    }
}

/// As the wire has it.
pub(super) fn wire_snapshots(policy: SnapshotPolicy) -> pb::SnapshotPolicy {
    match policy {
        SnapshotPolicy::None => pb::SnapshotPolicy::None,
        SnapshotPolicy::Crop => pb::SnapshotPolicy::Crop,
        SnapshotPolicy::Frame => pb::SnapshotPolicy::Frame,
    }
}

/// Which events are told when; `cameras` checks the hours.
pub(super) fn rules(wire: &[pb::EventRule]) -> Result<Vec<EventRule>, Status> {
    let minute = |minute: u32| u16::try_from(minute).map_err(|_| bad("rules", "a minute of the day is 0 to 1440"));
    let rule = |rule: &pb::EventRule| {
        let kinds = rule.types.iter().map(|number| {
            let kind = pb::EventType::try_from(*number).ok().and_then(event_kind);
            kind.ok_or_else(|| bad("rules", "holds a type of event that no rule can name"))
        });
        let days = rule.days.iter().map(|day| u8::try_from(*day).map_err(|_| bad("rules", "a day is 1 (Monday) to 7 (Sunday)")));
        let is_whole_day = rule.from_minute == 0 && rule.until_minute == 0;
        Ok(EventRule {
            types: kinds.collect::<Result<_, Status>>()?,
            days: days.collect::<Result<_, Status>>()?,
            from_minute: minute(rule.from_minute)?,
            until_minute: if is_whole_day { DAY_MINUTES } else { minute(rule.until_minute)? },
        })
    };
    wire.iter().map(rule).collect()
}

/// As the wire has it.
pub(super) fn wire_rule(rule: &EventRule) -> pb::EventRule {
    pb::EventRule {
        types: rule.types.iter().map(|kind| event_type(*kind).into()).collect(),
        days: rule.days.iter().map(|day| u32::from(*day)).collect(),
        from_minute: rule.from_minute.into(),
        until_minute: rule.until_minute.into(),
    }
}
