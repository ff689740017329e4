//! Which events are asked for, as options.
//!
//! In: options. Out: the filters of a request.
//! Must not know: which request.

use clap::Args;

use super::event_types;
use crate::pb;

/// The filters that following events and listing them share; an event must pass each kind.
#[derive(Debug, Args)]
pub struct EventFilter {
    /// Only events of this camera (repeatable)
    #[arg(long = "camera", value_name = "ID")]
    pub cameras: Vec<String>,
    /// Only events of this type (repeatable)
    #[arg(long = "type", value_name = "TYPE", value_parser = event_types::parser())]
    pub types: Vec<pb::EventType>,
    /// Only events of this person (repeatable)
    #[arg(long = "subject", value_name = "ID")]
    pub subjects: Vec<String>,
    /// Only events of people on this list (repeatable)
    #[arg(long = "watchlist", value_name = "LIST")]
    pub watchlists: Vec<String>,
}

impl EventFilter {
    /// The types as the wire has them.
    pub fn wire_types(&self) -> Vec<i32> {
        self.types.iter().map(|kind| i32::from(*kind)).collect()
    }
}
