//! Holds what subscribers wrote down against the promises of a subscription.
//!
//! The promises are those of etcd's watch (its API guarantees), for events instead of keys: ordered,
//! unique, reliable (no event before the newest one delivered is missing), atomic (an event is
//! delivered whole), resumable (after a cursor comes everything that follows it) and bookmarkable (a
//! bookmark says that everything before it was delivered).
//! In: each subscriber's own log, what a witness saw of all events. Out: every breach, with its place.
//! Must not know: how the logs came to be.

use std::collections::{BTreeMap, BTreeSet};

/// What one subscriber saw, in the order in which it saw it.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// It subscribed with the cursor of `asked` (from the earliest event without one) and was told
    /// that it stands at `position`.
    Began { asked: Option<u64>, position: u64 },
    /// An event came.
    Event(Seen),
    /// A response said that it stands here now.
    Position(u64),
    /// Its cursor was refused, because only what begins at `oldest` is kept.
    Refused { oldest: u64 },
}

/// An event as it was delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub epoch: String,
    pub sequence: u64,
    pub camera: String,
    /// What the writer called it; unique.
    pub name: String,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub promise: &'static str,
    pub subscriber: String,
    pub what: String,
}

/// One subscriber's log.
pub struct Log {
    pub subscriber: String,
    /// Its filter; every camera without one.
    pub camera: Option<String>,
    pub entries: Vec<Entry>,
}

/// Everything that was ever delivered to the witness, by sequence.
pub type Truth = BTreeMap<u64, Seen>;

/// What the unfiltered `witness`, and nobody else, says of all events.
pub fn truth(witness: &Log) -> Truth {
    let events = witness.entries.iter().filter_map(|entry| if let Entry::Event(seen) = entry { Some(seen) } else { None });
    events.map(|seen| (seen.sequence, seen.clone())).collect()
}

/// Every breach in `log`.
pub fn breaches(log: &Log, truth: &Truth) -> Vec<Breach> {
    let mut check = Check { log, truth, delivered: BTreeSet::new(), at: None, refused: None, found: Vec::new() };
    for entry in &log.entries {
        match entry {
            Entry::Began { asked, position } => check.began(*asked, *position),
            Entry::Refused { oldest } => check.refused(*oldest),
            Entry::Event(seen) => check.event(seen),
            Entry::Position(position) => check.position(*position),
        }
    }
    check.found
}

/// How far a log was checked.
struct Check<'a> {
    log: &'a Log,
    /// Empty for the witness, which has nobody to compare with and sees every event.
    truth: &'a Truth,
    delivered: BTreeSet<u64>,
    at: Option<u64>,
    /// The oldest event that the last refusal spoke of.
    refused: Option<u64>,
    found: Vec<Breach>,
}

impl Check<'_> {
    fn tell(&mut self, promise: &'static str, what: String) {
        self.found.push(Breach { promise, subscriber: self.log.subscriber.clone(), what });
    }

    fn wants(&self, seen: &Seen) -> bool {
        self.log.camera.as_ref().is_none_or(|camera| *camera == seen.camera)
    }

    /// What should have come strictly between two places.
    fn missing(&self, from: u64, to: u64) -> Vec<u64> {
        let between = if from + 1 < to { self.truth.range(from + 1..to) } else { self.truth.range(0..0) };
        between.filter(|(_, seen)| self.wants(seen)).map(|(sequence, _)| *sequence).collect()
    }

    fn began(&mut self, asked: Option<u64>, position: u64) {
        if asked.is_some_and(|asked| asked != position) {
            self.tell("resumable", format!("asked for what comes after {asked:?}, and stands at {position}"));
        }
        if let Some(oldest) = self.refused.take().filter(|oldest| asked.is_none() && position + 1 < *oldest) {
            self.tell("resumable", format!("was told that {oldest} is the oldest, and stands at {position}"));
        }
        self.at = Some(position);
    }

    fn refused(&mut self, oldest: u64) {
        let next = self.at.map_or(0, |at| at + 1);
        if next >= oldest {
            self.tell("resumable", format!("was refused {next}, with {oldest} still there"));
        }
        self.refused = Some(oldest);
    }

    fn event(&mut self, seen: &Seen) {
        let place = self.at.unwrap_or(0);
        if !self.delivered.insert(seen.sequence) {
            self.tell("unique", format!("{} came twice", seen.sequence));
        } else if seen.sequence <= place {
            self.tell("ordered", format!("{} came after {place}", seen.sequence));
        }
        for lost in self.missing(place, seen.sequence) {
            self.tell("reliable", format!("{lost} is missing before {}", seen.sequence));
        }
        if self.truth.is_empty() && seen.sequence != place + 1 {
            self.tell("reliable", format!("there is a gap between {place} and {}", seen.sequence));
        }
        if self.truth.get(&seen.sequence).is_some_and(|known| known != seen) {
            self.tell("atomic", format!("{} differs from what the witness saw", seen.sequence));
        }
        if !self.wants(seen) {
            self.tell("filtered", format!("{} is of another camera", seen.sequence));
        }
        self.at = Some(place.max(seen.sequence));
    }

    fn position(&mut self, position: u64) {
        let place = self.at.unwrap_or(0);
        if position < place {
            self.tell("bookmarkable", format!("a bookmark leads back from {place} to {position}"));
        }
        if self.truth.is_empty() && position > place {
            self.tell("bookmarkable", format!("the bookmark at {position} passes over what comes after {place}"));
        }
        for lost in self.missing(place, position + 1) {
            self.tell("bookmarkable", format!("the bookmark at {position} passes over {lost}"));
        }
        self.at = Some(place.max(position));
    }
}

/// What is wrong with the witness itself: it saw every sequence, each name once, in one epoch.
pub fn breaches_of_witness(witness: &Log, acknowledged: &BTreeSet<String>) -> Vec<Breach> {
    let mut found = breaches(witness, &Truth::new());
    let mut tell = |promise, what: String| found.push(Breach { promise, subscriber: witness.subscriber.clone(), what });
    let mut names = BTreeSet::new();
    let mut epochs = BTreeSet::new();
    for seen in truth(witness).values() {
        epochs.insert(seen.epoch.clone());
        if !names.insert(seen.name.clone()) {
            tell("unique", format!("{} was logged twice, the second time as {}", seen.name, seen.sequence));
        }
    }
    if epochs.len() > 1 {
        tell("ordered", format!("there were several epochs: {epochs:?}"));
    }
    for name in acknowledged.difference(&names) {
        tell("reliable", format!("{name} was acknowledged and never came"));
    }
    found
}

mod tests {
    use super::*;

    fn seen(sequence: u64) -> Seen {
        let camera = if sequence.is_multiple_of(3) { "back" } else { "front" }.to_owned();
        Seen { epoch: "e".into(), sequence, camera, name: format!("n-{sequence}") }
    }

    fn whole(camera: Option<&str>) -> Log {
        let mut entries = vec![Entry::Began { asked: None, position: 0 }];
        for sequence in 1..=60 {
            if camera.is_none_or(|camera| seen(sequence).camera == camera) {
                entries.push(Entry::Event(seen(sequence)));
            }
            if sequence % 10 == 0 {
                entries.push(Entry::Position(sequence));
            }
            if sequence % 20 == 0 {
                entries.push(Entry::Began { asked: Some(sequence), position: sequence });
            }
        }
        Log { subscriber: "s".into(), camera: camera.map(str::to_owned), entries }
    }

    fn place(log: &Log, sequence: u64) -> usize {
        log.entries.iter().position(|e| matches!(e, Entry::Event(seen) if seen.sequence == sequence)).expect("it is there")
    }

    fn promises(log: &Log) -> BTreeSet<&'static str> {
        breaches(log, &truth(&whole(None))).iter().map(|breach| breach.promise).collect()
    }

    #[test]
    fn a_log_in_which_all_is_well_has_no_breach() {
        for camera in [None, Some("front"), Some("back")] {
            assert_eq!(breaches(&whole(camera), &truth(&whole(None))), []);
        }
        let names = (1..=60).map(|n| format!("n-{n}")).collect();
        assert_eq!(breaches_of_witness(&whole(None), &names), []);
    }

    #[test]
    fn a_planted_loss_is_caught_filtered_or_not() {
        for (camera, lost) in [(None, 17), (Some("back"), 27), (Some("front"), 50), (None, 60)] {
            let mut log = whole(camera);
            let index = place(&log, lost);
            log.entries.remove(index);
            assert!(!promises(&log).is_empty(), "{camera:?} without {lost}");
        }
    }

    #[test]
    fn a_planted_duplicate_is_caught() {
        for at in [1, 33, 60] {
            let mut log = whole(None);
            let index = place(&log, at);
            log.entries.insert(index, Entry::Event(seen(at)));
            assert!(promises(&log).contains("unique"), "{at} twice");
            let mut late = whole(None);
            late.entries.push(Entry::Event(seen(at)));
            assert!(promises(&late).contains("unique"), "{at} again at the end");
        }
    }

    #[test]
    fn a_planted_swap_is_caught() {
        for camera in [None, Some("front")] {
            let mut log = whole(camera);
            let index = place(&log, 22);
            log.entries.swap(index, index + 1);
            assert!(promises(&log).contains("ordered"), "{camera:?}");
        }
    }

    #[test]
    fn a_planted_gap_is_caught_by_the_witness_alone() {
        let mut log = whole(None);
        log.entries.retain(|entry| !matches!(entry, Entry::Event(seen) if (31..=39).contains(&seen.sequence)));
        assert!(breaches_of_witness(&log, &BTreeSet::new()).iter().any(|breach| breach.promise == "reliable"));
        let mut end = whole(None);
        end.entries.remove(place(&end, 60));
        assert!(!breaches_of_witness(&end, &BTreeSet::new()).is_empty(), "at the end, where only the bookmark tells");
    }

    #[test]
    fn a_bookmark_that_lies_an_altered_event_and_a_resume_elsewhere_are_caught() {
        let mut lying = whole(Some("back"));
        let index = place(&lying, 33);
        lying.entries.insert(index, Entry::Position(35));
        assert!(promises(&lying).contains("bookmarkable"));
        let mut altered = whole(None);
        let index = place(&altered, 5);
        altered.entries[index] = Entry::Event(Seen { name: "n-6".into(), ..seen(5) });
        assert!(promises(&altered).contains("atomic"));
        let mut elsewhere = whole(None);
        elsewhere.entries.insert(place(&whole(None), 21), Entry::Began { asked: Some(20), position: 21 });
        assert!(promises(&elsewhere).contains("resumable"));
        let mut refused = whole(None);
        refused.entries.insert(place(&whole(None), 21), Entry::Refused { oldest: 15 });
        assert!(promises(&refused).contains("resumable"));
    }

    #[test]
    fn an_acknowledged_event_that_never_came_and_one_that_was_logged_twice_are_caught() {
        let mut names: BTreeSet<String> = (1..=60).map(|n| format!("n-{n}")).collect();
        names.insert("n-61".into());
        assert_eq!(breaches_of_witness(&whole(None), &names).len(), 1);
        let mut twice = whole(None);
        twice.entries.push(Entry::Event(Seen { name: "n-60".into(), ..seen(61) }));
        assert_eq!(breaches_of_witness(&twice, &BTreeSet::new()).len(), 1);
    }
}
