//! Sets up the log: text or JSON lines on standard error.
//!
//! In: [`LogConfig`]. Out: a subscriber for the whole process, set once.
//! Under journald the lines carry a priority, and those of text no time, since the journal has its own.
//! Drops: what the filter drops.
//! Must not know: any stage.

use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogConfig;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read. A checked configuration never has such a one.
    #[error("log.filter = {filter:?} cannot be read: {reason}; use a level such as \"info\" or \"doorward=debug,warn\"")]
    BadFilter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process already has a log.
    #[error("the log was set up before: call telemetry::init once a process")]
    SetBefore,
}

/// Sets up the process's log on standard error.
///
/// # Errors
/// [`TelemetryError`]: a filter that cannot be read, or a second call.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    // ONNX Runtime tells at `info` what a developer of it wants to know; whoever wants it too
    // names it in the filter.
    let filter = EnvFilter::builder()
        .parse(format!("ort=warn,{}", config.filter))
        .map_err(|error| TelemetryError::BadFilter { filter: config.filter.clone(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let is_journal = stderr_is_the_journal(std::env::var("JOURNAL_STREAM").ok().as_deref());
    let json = |builder: SubscriberBuilder<_, _, _, _>| builder.json().flatten_event(true).with_current_span(false);
    let result = match (config.json, is_journal) {
        (true, true) => json(builder).map_event_format(JournalLine).try_init(),
        (true, false) => json(builder).try_init(),
        (false, true) => {
            let format = JournalLine(tracing_subscriber::fmt::format().without_time().with_level(false).with_ansi(false));
            builder.with_ansi(false).event_format(format).try_init()
        }
        (false, false) => builder.with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).try_init(),
    };
    result.map_err(|_| TelemetryError::SetBefore)
}

/// Whether standard error is the stream that systemd says it connected to the journal: the
/// variable is inherited by children whose output goes elsewhere (`systemd.exec(5)`).
fn stderr_is_the_journal(journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|stream| stream.split_once(':')) else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    device.parse() == Ok(stderr.dev()) && inode.parse() == Ok(stderr.ino())
}

/// A line with its priority in front, as `sd-daemon(3)` wants it.
struct JournalLine<F>(F);

impl<S, N, F> FormatEvent<S, N> for JournalLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The syslog priority of a level: err, warning, info, debug.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[test]
    fn an_inherited_journal_stream_is_not_believed() {
        let stderr = std::fs::metadata("/proc/self/fd/2").expect("a process has a standard error");
        assert!(stderr_is_the_journal(Some(&format!("{}:{}", stderr.dev(), stderr.ino()))));
        for elsewhere in [None, Some(""), Some("8:15:1"), Some("nonsense")] {
            assert!(!stderr_is_the_journal(elsewhere), "{elsewhere:?}");
        }
        assert!(!stderr_is_the_journal(Some(&format!("{}:{}", stderr.dev(), stderr.ino() + 1))));
    }

    /// What a log wrote.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// As it was written.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("one thread").clone()).expect("text")
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one thread").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_line_of_json_has_its_priority_in_the_journal_too() {
        let lines = Lines::default();
        let json = tracing_subscriber::fmt().with_writer(lines.clone()).json().flatten_event(true).map_event_format(JournalLine);
        tracing::subscriber::with_default(json.finish(), || tracing::warn!(camera = "front-door", "offline"));
        let text = lines.text();
        let object: serde_json::Value = serde_json::from_str(text.strip_prefix("<4>").expect("it is a warning")).expect("it is JSON");
        assert_eq!((object["message"].as_str(), object["camera"].as_str()), (Some("offline"), Some("front-door")));
    }

    #[test]
    fn a_journal_line_has_a_priority_and_no_time() {
        let lines = Lines::default();
        let format = JournalLine(tracing_subscriber::fmt::format().without_time().with_level(false).with_ansi(false).with_target(false));
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).event_format(format).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("the disk is full");
            tracing::info!(camera = "front-door", "online");
        });
        let text = lines.text();
        assert_eq!(text, "<3>the disk is full\n<6>online camera=\"front-door\"\n");
    }
}
