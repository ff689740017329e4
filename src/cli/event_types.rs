//! The types of events by the names that people write: the wire's, without its prefix.
//!
//! In: a name. Out: the type, and back.
//! Must not know: commands.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::pb;

/// Every name.
const NAMES: [&str; 16] = [
    "visit-started",
    "identified",
    "reasserted",
    "unidentified",
    "identity-revised",
    "entry",
    "exit",
    "zone-entered",
    "zone-left",
    "visit-ended",
    "camera-online",
    "camera-offline",
    "gallery-changed",
    "event-corrected",
    "inference-failed",
    "inference-restored",
];

/// The type of that name.
pub fn of(name: &str) -> Option<pb::EventType> {
    pb::EventType::from_str_name(&format!("EVENT_TYPE_{}", name.to_ascii_uppercase().replace('-', "_")))
}

/// The name of a type.
pub fn name(of: pb::EventType) -> String {
    of.as_str_name().trim_start_matches("EVENT_TYPE_").to_ascii_lowercase().replace('_', "-")
}

/// Reads a type from a command line.
pub fn parser() -> impl TypedValueParser<Value = pb::EventType> {
    PossibleValuesParser::new(NAMES).try_map(|name| of(&name).ok_or("no such type of event"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_event_can_be_asked_for_by_its_name() {
        let every: Vec<_> = (1..).map_while(|number| pb::EventType::try_from(number).ok()).map(Some).collect();
        assert_eq!(NAMES.map(of).to_vec(), every);
        assert!(NAMES.iter().all(|text| of(text).map(name).as_deref() == Some(text)));
    }
}
