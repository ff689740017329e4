//! What became of the photos of an import: counted, reported, and how long the others will take.
//!
//! In: results. Out: a CSV file, a bar or now and then a line on standard error, a summary.
//! Drops: without a report or JSON, all refusals but the first [`NAMED_MAX`]; they are counted.
//! Must not know: where results come from.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;

use super::super::super::failure::as_options;
use super::super::super::output::{Output, printable, progress, span};
use crate::pb;

/// The most refused photos that are named on standard error.
const NAMED_MAX: u64 = 20;
/// How often a line tells how far it is, where nobody watches a bar.
const LINE_EVERY: Duration = Duration::from_secs(30);
const COLUMNS: &str = "photo,subject,status,reason,message,gallery_version\r\n";

/// Counts results and tells of them.
pub struct Tally {
    out: Output,
    total: usize,
    added: u64,
    unchanged: u64,
    refused: BTreeMap<String, u64>,
    version: u64,
    began: Instant,
    /// When the last line was told, and how many photos were done then.
    line: (Instant, u64),
    bar: ProgressBar,
    report: Option<(PathBuf, BufWriter<File>)>,
    reports_all: bool,
}

/// How far an import has come.
#[derive(Clone, Copy)]
pub struct Progress {
    done: u64,
    total: usize,
}

impl Progress {
    /// Whether every photo was answered.
    pub fn is_complete(self) -> bool {
        self.done == self.total as u64
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} of {} photos", self.done, self.total)
    }
}

impl Tally {
    /// Over `total` photos; the report is begun anew.
    ///
    /// # Errors
    /// The report cannot be written.
    pub fn new(total: usize, report: Option<PathBuf>, (reports_all, out): (bool, Output)) -> anyhow::Result<Self> {
        let report = report.map(|path| -> anyhow::Result<_> {
            let mut file = BufWriter::new(File::create(&path).with_context(|| format!("cannot write --report {}", path.display()))?);
            file.write_all(COLUMNS.as_bytes())?;
            Ok((path, file))
        });
        let bar = progress(total, "importing").with_style(style());
        let now = Instant::now();
        Ok(Self {
            out,
            total,
            added: 0,
            unchanged: 0,
            refused: BTreeMap::new(),
            version: 0,
            began: now,
            line: (now, 0),
            bar,
            report: report.transpose()?,
            reports_all,
        })
    }

    /// Takes what came together; the report is written out then, so that whatever ends the import finds it whole.
    ///
    /// # Errors
    /// The report or standard output cannot be written.
    pub fn take_all(&mut self, results: Vec<pb::ImportResult>) -> anyhow::Result<()> {
        for result in results {
            self.take(&result)?;
        }
        if let Some((path, report)) = &mut self.report {
            report.flush().with_context(|| format!("cannot write --report {}", path.display()))?;
        }
        self.tell_now_and_then();
        Ok(())
    }

    fn take(&mut self, result: &pb::ImportResult) -> anyhow::Result<()> {
        self.version = self.version.max(result.gallery_version);
        match result.status() {
            pb::ImportStatus::Added => self.added += 1,
            pb::ImportStatus::Unchanged => self.unchanged += 1,
            pb::ImportStatus::Refused | pb::ImportStatus::Unspecified => *self.refused.entry(result.reason.clone()).or_default() += 1,
        }
        self.bar.inc(1);
        let is_refused = result.status() == pb::ImportStatus::Refused;
        if !is_refused && !self.reports_all {
            return Ok(());
        }
        if let Some((path, report)) = &mut self.report {
            report.write_all(row(result).as_bytes()).with_context(|| format!("cannot write --report {}", path.display()))?;
        } else if is_refused && !self.out.json && self.refused_count() <= NAMED_MAX {
            let more =
                if self.refused_count() == NAMED_MAX { "\nmore that are refused are counted only: --report FILE names each" } else { "" };
            let line = printable(&format!("{}: {}: {}", result.item_key, result.reason, as_options(&result.message)));
            self.bar.suspend(|| eprintln!("{line}{more}"));
        }
        if self.out.json { self.bar.suspend(|| self.out.message("ImportResult", result)) } else { Ok(()) }
    }

    fn refused_count(&self) -> u64 {
        self.refused.values().sum()
    }

    fn done(&self) -> u64 {
        self.added + self.unchanged + self.refused_count()
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress { done: self.done(), total: self.total }
    }

    fn tell_now_and_then(&mut self) {
        let (since, before) = self.line;
        if !self.bar.is_hidden() || since.elapsed() < LINE_EVERY || std::io::stderr().is_terminal() {
            return;
        }
        let rate = (self.done() - before) as f64 / since.elapsed().as_secs_f64();
        let left = Duration::from_secs_f64((self.total as f64 - self.done() as f64).max(0.0) / rate.max(0.001));
        eprintln!("{} of {} photos, {rate:.0} a second, {} left", self.done(), self.total, span(left));
        self.line = (Instant::now(), self.done());
    }

    /// Prints the summary; answers whether any photo was refused.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn finish(self) -> anyhow::Result<bool> {
        self.bar.finish_and_clear();
        let (done, refused, took) = (self.done(), self.refused_count(), self.began.elapsed());
        if self.out.json {
            self.out.object(&json!({
                "photos": self.total, "added": self.added, "unchanged": self.unchanged, "refused": refused,
                "refused_by_reason": self.refused, "gallery_version": self.version, "seconds": took.as_secs_f64(),
            }))?;
            return Ok(refused > 0);
        }
        let rate = done as f64 / took.as_secs_f64().max(0.001);
        self.out.line(&format!(
            "{done} of {} photos in {} ({rate:.0} a second): {} added, {} already there, {refused} refused; gallery version {}",
            self.total,
            span(took),
            self.added,
            self.unchanged,
            self.version
        ))?;
        if refused > 0 {
            let reasons: Vec<String> = self.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            let named = self.report.as_ref().map_or_else(String::new, |(path, _)| format!("; {} names each", path.display()));
            self.out.line(&format!("refused: {}{named}", reasons.join(", ")))?;
        }
        Ok(refused > 0)
    }
}

fn style() -> ProgressStyle {
    let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
        // A bar that cannot be drawn is no failure of the import.
        let _ = write!(text, "{:.0}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {rate}, {eta} left");
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate)
}

/// A row as RFC 4180 has it.
fn row(result: &pb::ImportResult) -> String {
    let status = result.status().as_str_name().trim_start_matches("IMPORT_STATUS_");
    let version = if result.gallery_version == 0 { String::new() } else { result.gallery_version.to_string() };
    let fields = [&result.item_key, &result.subject_id, status, &result.reason, &result.message, &version];
    format!("{}\r\n", fields.map(quoted).join(","))
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_commas_quotes_and_line_ends_of_names() {
        let result = pb::ImportResult {
            item_key: "b.jones/a \"b\", c\n.jpg".into(),
            subject_id: "b.jones".into(),
            status: pb::ImportStatus::Refused.into(),
            reason: "NO_FACE".into(),
            message: "no face; give another".into(),
            gallery_version: 0,
        };
        assert_eq!(row(&result), "\"b.jones/a \"\"b\"\", c\n.jpg\",b.jones,REFUSED,NO_FACE,no face; give another,\r\n");
        let added = pb::ImportResult { status: pb::ImportStatus::Added.into(), gallery_version: 7, ..Default::default() };
        assert_eq!(row(&added), ",,ADDED,,,7\r\n");
    }
}
