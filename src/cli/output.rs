//! Writes answers to standard output: lines, tables, and any message as protobuf JSON.
//!
//! In: texts and messages. Out: lines. JSON names fields as the protos do, one object a line.
//! Drops: control characters of texts that somebody else chose, so that no name of a person can
//! steer a terminal; JSON has its own escapes.
//! Must not know: what is printed.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Context;
use console::measure_text_width;
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;
use serde_json::Value;

static POOL: LazyLock<Result<DescriptorPool, prost_reflect::DescriptorError>> =
    LazyLock::new(|| DescriptorPool::decode(crate::pb::DESCRIPTORS));

/// Where answers go, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of text for people.
    pub json: bool,
}

impl Output {
    /// Answers on standard output.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one line of text for people.
    ///
    /// # Errors
    /// What the system says, above all that nobody reads any more.
    pub fn line(self, text: &str) -> anyhow::Result<()> {
        writeln!(std::io::stdout().lock(), "{}", printable(text))?;
        Ok(())
    }

    /// Prints one JSON object on a line of its own.
    ///
    /// # Errors
    /// As for [`line`](Self::line).
    pub fn object(self, value: &Value) -> anyhow::Result<()> {
        writeln!(std::io::stdout().lock(), "{value}")?;
        Ok(())
    }

    /// Prints `message`, which is a `doorward.v1.<name>`, as JSON.
    ///
    /// # Errors
    /// As for [`line`](Self::line), or that there is no such message.
    pub fn message(self, name: &str, message: &impl Message) -> anyhow::Result<()> {
        self.object(&json(name, message)?)
    }

    /// Prints a table.
    ///
    /// # Errors
    /// As for [`line`](Self::line).
    pub fn table(self, table: &Table) -> anyhow::Result<()> {
        table.lines().iter().try_for_each(|line| self.line(line))
    }
}

/// `message`, which is a `doorward.v1.<name>`, as protobuf JSON with the protos' field names and
/// 64-bit numbers as numbers.
///
/// # Errors
/// There is no such message.
pub fn json(name: &str, message: &impl Message) -> anyhow::Result<Value> {
    let pool = POOL.as_ref().map_err(|error| anyhow::anyhow!("the protos in this binary cannot be read: {error}"))?;
    let descriptor = pool.get_message_by_name(&format!("doorward.v1.{name}")).with_context(|| format!("there is no message {name}"))?;
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message)?;
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false).skip_default_fields(false);
    Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading.
    pub fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// A table of names and values without a heading.
    pub fn of_facts() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(Vec::from(cells));
    }

    /// Adds a name and its value, unless the value is empty.
    pub fn fact(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.row([name.to_owned(), value]);
        }
    }

    /// The table as text, a row a line.
    pub fn lines(&self) -> Vec<String> {
        let cells: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
        let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| cells.iter().filter_map(|row| row.get(column)).map(|cell| measure_text_width(cell)).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let gap = width - measure_text_width(cell) + 2;
                let _ = write!(line, "{cell}{:gap$}", "");
            }
            line.trim_end().to_owned()
        };
        cells.iter().map(line).collect()
    }
}

/// `text` without characters that steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') { '\u{fffd}' } else { c })
        .collect()
}

/// A moment as RFC 3339 in UTC with whole seconds, or a dash.
pub fn moment(time: Option<&Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| Timestamp { seconds: time.seconds, nanos: 0 }.to_string())
}

/// A moment as RFC 3339 in UTC, to the millisecond and no further, or a dash.
pub fn exact_moment(time: Option<&Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| Timestamp { nanos: time.nanos / 1_000_000 * 1_000_000, ..*time }.to_string())
}

/// A length of time as people say it: `180 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The time from `earlier` to `later`, where both are known and in this order.
pub fn between(earlier: Option<&Timestamp>, later: Option<&Timestamp>) -> Option<Duration> {
    let nanos = |time: &Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let passed = nanos(later?) - nanos(earlier?);
    u64::try_from(passed).ok().map(Duration::from_nanos)
}

/// A cell for what may be empty.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A bar on standard error over `steps` steps; nothing is shown where nobody watches, or for one.
pub fn progress(steps: usize, what: &'static str) -> ProgressBar {
    if steps < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps as u64).with_style(style).with_message(what)
}

/// A sign of life on standard error while one long call runs.
pub fn spinner(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn a_table_is_aligned_by_what_is_seen() {
        let mut table = Table::new(["ID", "NAME", "SINCE"]);
        table.row(["a".into(), "Łódź 門".into(), "1".into()]);
        table.row(["bcd".into(), "x\u{1b}[31m".into(), String::new()]);
        assert_eq!(table.lines(), ["ID   NAME     SINCE", "a    Łódź 門  1", "bcd  x\u{fffd}[31m"]);
    }

    #[test]
    fn json_has_the_protos_names_and_every_plain_field() {
        let event = pb::Event {
            sequence: 1 << 40,
            r#type: pb::EventType::Identified.into(),
            capture_time: Some(Timestamp { seconds: 1_795_460_401, nanos: 500_000_000 }),
            ..pb::Event::default()
        };
        let json = json("Event", &event).expect("a message");
        assert_eq!(json["sequence"], 1_u64 << 40);
        assert_eq!(json["type"], "EVENT_TYPE_IDENTIFIED");
        assert_eq!(json["capture_time"], "2026-11-23T19:00:01.500Z");
        assert_eq!(json["camera_id"], "", "an empty field is there, so that scripts find the same keys every time");
        assert!(json.get("quality").is_none(), "what is absent is not zero");
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let said = |millis: u64| span(Duration::from_millis(millis));
        assert_eq!([said(180), said(4_200), said(200_000), said(7_500_000)], ["180 ms", "4.2 s", "3 min 20 s", "2 h 5 min"]);
        assert_eq!(said(277_200_000), "3 d 5 h");
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        assert_eq!(moment(Some(&at(1_795_460_401, 999))), "2026-11-23T19:00:01Z");
        assert_eq!(moment(None), "-");
        assert_eq!(between(Some(&at(1, 900_000_000)), Some(&at(2, 80_000_000))), Some(Duration::from_millis(180)));
        assert_eq!(between(Some(&at(2, 0)), Some(&at(1, 0))), None);
    }
}
