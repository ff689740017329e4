//! Acts on events by running a command: at most once for each, and only while it is not too late.
//!
//! In: events with the daemon's time. Out: a command that ran, or why it did not.
//! How late it is, is reckoned by the daemon's clock: from the response that came with the least delay,
//! and the time that has passed here since, sleep included. So neither a response that lay in a buffer
//! for an hour nor a machine that was asleep opens anything.
//! Must not know: how events come, what the command does.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use prost_types::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::pb;

/// A command that runs for longer is ended: the next event waits for it.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);

/// For how long what was heard of the daemon's clock counts, at the least: two clocks drift apart.
const HEARD_FOR: Duration = Duration::from_secs(600);

/// The daemon's clock, as it is heard here.
#[derive(Debug, Default)]
pub struct DaemonClock {
    /// How far it is ahead of this machine's running time, in microseconds, by the response that says
    /// the most: every delay on the way makes it less. Of this while, and of the one before.
    ahead: [Option<i64>; 2],
    /// When this while began.
    since: Duration,
}

impl DaemonClock {
    /// A response said that it was `server_time`, when this machine had run for `here`.
    pub fn heard(&mut self, server_time: Option<&Timestamp>, here: Duration) {
        let Some(time) = server_time else { return };
        if here.saturating_sub(self.since) >= HEARD_FOR {
            (self.ahead, self.since) = ([None, self.ahead[0]], here);
        }
        let ahead = micros(time) - micros_of(here);
        self.ahead[0] = Some(self.ahead[0].map_or(ahead, |known| known.max(ahead)));
    }

    /// What time it is at the daemon, in microseconds since the Unix epoch, or a little later.
    fn now(&self, here: Duration) -> Option<i64> {
        let ahead = self.ahead.into_iter().flatten().max()?;
        Some(ahead + micros_of(here))
    }

    /// How much time there is to act on `event` when this machine has run for `here`; `None` when it is
    /// too late, or the daemon's time is not known.
    pub fn time_left(&self, event: &pb::Event, here: Duration) -> Option<Duration> {
        let left = micros(event.actionable_until.as_ref()?) - self.now(here)?;
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_micros)
    }
}

/// How long this machine has run, the time that it slept included.
pub fn running_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn micros(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1_000)
}

fn micros_of(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Runs `command` by the shell, with the event in its environment and as JSON on its standard input, for
/// no longer than `limit`: then it is ended with whatever it has started.
///
/// # Errors
/// It could not be started, ended with a failure, or took too long and was ended.
pub async fn run(command: &str, (event, json): (&pb::Event, &serde_json::Value), limit: Duration) -> anyhow::Result<()> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .envs(environment(event))
        .stdin(Stdio::piped())
        // A group of its own, which can be ended as a whole.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run sh")?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut input = child.stdin.take();
    let finish = async {
        if let Some(input) = &mut input {
            // A command that does not read is none the worse.
            let _ = input.write_all(format!("{json}\n").as_bytes()).await;
        }
        drop(input);
        child.wait().await
    };
    let limit = limit.min(COMMAND_TIME_MAX);
    let Ok(status) = tokio::time::timeout(limit, finish).await else {
        if let Some(group) = group {
            kill_process_group(group, Signal::KILL).context("the command took too long and could not be ended")?;
        }
        anyhow::bail!("the command took longer than it may ({limit:.1?}) and was ended");
    };
    let status = status?;
    anyhow::ensure!(status.success(), "the command failed ({status})");
    Ok(())
}

fn environment(event: &pb::Event) -> [(&'static str, String); 9] {
    let kind = event.r#type().as_str_name().trim_start_matches("EVENT_TYPE_").to_owned();
    let subject = event.subject.clone().unwrap_or_default();
    [
        ("DOORWARD_TYPE", kind),
        ("DOORWARD_CAMERA", event.camera_id.clone()),
        ("DOORWARD_SUBJECT", subject.id),
        ("DOORWARD_NAME", subject.display_name),
        ("DOORWARD_VISIT", event.visit_id.clone()),
        ("DOORWARD_EPOCH", event.epoch.clone()),
        ("DOORWARD_SEQUENCE", event.sequence.to_string()),
        ("DOORWARD_CURSOR", event.cursor.clone()),
        ("DOORWARD_ACTIONABLE_UNTIL", event.actionable_until.as_ref().map(ToString::to_string).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn until(seconds: i64) -> pb::Event {
        pb::Event { actionable_until: Some(at(seconds)), ..pb::Event::default() }
    }

    fn here(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn nobody_acts_before_the_daemons_time_is_known_or_after_the_event_has_expired() {
        let mut clock = DaemonClock::default();
        assert!(clock.time_left(&until(i64::MAX / 2_000_000), here(0)).is_none());
        clock.heard(Some(&at(1_000)), here(50));
        assert!(clock.time_left(&until(1_005), here(54)).is_some());
        assert!(clock.time_left(&until(1_005), here(55)).is_none(), "at the moment itself it is too late");
        assert!(clock.time_left(&pb::Event::default(), here(50)).is_none(), "what never expires was never meant to be acted on");
    }

    #[test]
    fn a_response_that_lay_in_a_buffer_for_an_hour_opens_nothing() {
        let mut clock = DaemonClock::default();
        clock.heard(Some(&at(1_000)), here(50));
        // It was made a second later, and read an hour later.
        clock.heard(Some(&at(1_001)), here(3_651));
        assert!(clock.time_left(&until(1_006), here(3_651)).is_none());
    }

    #[tokio::test]
    async fn a_command_is_given_the_event_and_its_failure_is_told() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("told");
        let mut event = pb::Event { camera_id: "front".into(), sequence: 7, ..pb::Event::default() };
        event.set_type(pb::EventType::Identified);
        let command = format!("{{ echo $DOORWARD_TYPE $DOORWARD_CAMERA $DOORWARD_SEQUENCE; cat; }} > {}", file.display());
        run(&command, (&event, &serde_json::json!({"a": 1})), COMMAND_TIME_MAX).await.expect("it runs");
        assert_eq!(std::fs::read_to_string(file).expect("written"), "IDENTIFIED front 7\n{\"a\":1}\n");
        assert!(run("exit 3", (&event, &serde_json::json!({})), COMMAND_TIME_MAX).await.expect_err("it fails").to_string().contains('3'));
    }

    #[test]
    fn two_clocks_that_drift_apart_do_not_make_a_door_deaf() {
        let mut clock = DaemonClock::default();
        // This machine's clock gains a second in ten minutes, for a day.
        for minute in 0..1_440_u64 {
            clock.heard(Some(&at(1_000 + minute.cast_signed() * 60)), Duration::from_millis(minute * 60_100));
        }
        let (now, here) = (1_000 + 1_439 * 60, Duration::from_millis(1_439 * 60_100));
        assert!(clock.time_left(&until(now + 3), here).is_some());
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("started");
        let command = format!("sleep 1000 & echo $! > {0}.part; mv {0}.part {0}; wait", file.display());
        let event = pb::Event::default();
        let ended = run(&command, (&event, &serde_json::json!({})), Duration::from_secs(2)).await;
        assert!(ended.expect_err("it took too long").to_string().contains("was ended"));
        let started: i32 = std::fs::read_to_string(file).expect("it had started").trim().parse().expect("a process");
        let started = Pid::from_raw(started).expect("a process");
        // Whoever is killed is gone once the system has come to it.
        while std::fs::read_to_string(format!("/proc/{}/stat", started.as_raw_nonzero())).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }
}
