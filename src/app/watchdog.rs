//! Tells systemd that the daemon lives, as long as nothing in it is stuck.
//!
//! In: a token that goes through the stages of the pipeline, what is stuck by its age. Out: a word to systemd at each beat; one line
//! in the log that names what is stuck, and then none, so that systemd ends the daemon.
//! Must not know: what the stages do.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::notify;
use crate::cameras::Cameras;
use crate::pipeline::{Pipeline, PipelineError, STUCK_AFTER};

/// Where the token is.
type Place = Mutex<&'static str>;

/// Feeds systemd's watchdog at each beat, until it is told to stop.
///
/// # Errors
/// [`PipelineError`] when a stage has ended that should not.
pub(super) async fn feed((cameras, pipeline): (Cameras, Pipeline), beat: Duration, stop: CancellationToken) -> Result<(), PipelineError> {
    let place = Place::default();
    let pass = || pipeline.pass_token(|stage| *place.lock().unwrap_or_else(PoisonError::into_inner) = stage);
    let stuck = || cameras.stuck().or_else(|| pipeline.stuck()).map(str::to_owned);
    let feeding = feed_while((pass, &place), stuck, beat, || notify(&[NotifyState::Watchdog]));
    // Stages that have ended on purpose let no token pass.
    stop.run_until_cancelled(feeding).await.unwrap_or(Ok(()))
}

/// Says `alive` at each beat at which nothing is stuck and the token is not under way for far too long.
async fn feed_while<Passing, E>(
    (pass, place): (impl Fn() -> Passing, &Place),
    stuck: impl Fn() -> Option<String>,
    beat: Duration,
    alive: impl Fn(),
) -> Result<(), E>
where
    Passing: Future<Output = Result<(), E>>,
{
    let mut beats = tokio::time::interval(beat);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut token, mut sent) = (Box::pin(pass()), Instant::now());
    let (mut is_back, mut is_told) = (false, false);
    loop {
        tokio::select! {
            passed = &mut token, if !is_back => {
                passed?;
                is_back = true;
            }
            _ = beats.tick() => {
                let is_lost = !is_back && sent.elapsed() >= STUCK_AFTER;
                let at = || format!("the watchdog's token at {}", place.lock().unwrap_or_else(PoisonError::into_inner));
                match stuck().or_else(|| is_lost.then(at)) {
                    None => {
                        is_told = false;
                        alive();
                    }
                    Some(what) if !is_told => {
                        is_told = true;
                        tracing::error!("stuck: {what}; unless it goes on, the watchdog ends the daemon");
                    }
                    Some(_) => {}
                }
                if is_back {
                    (token, sent, is_back) = (Box::pin(pass()), Instant::now(), false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    const BEAT: Duration = Duration::from_secs(10);

    /// How often life was told within `time`, of a daemon whose tokens take `token` each and in which `stuck` is stuck.
    async fn beats_within(time: Duration, token: Duration, stuck: impl Fn() -> Option<String>) -> u32 {
        let (beats, place) = (Cell::new(0), Place::new("a session"));
        let pass = || async move {
            tokio::time::sleep(token).await;
            Ok::<_, Infallible>(())
        };
        let feeding = feed_while((pass, &place), stuck, BEAT, || beats.set(beats.get() + 1));
        // Half a beat more, so that the last one does not come at the same moment.
        assert!(tokio::time::timeout(time + BEAT / 2, feeding).await.is_err(), "it goes on for ever");
        beats.get()
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_photo_or_commit_that_keeps_the_token_is_no_alarm() {
        let hour = 360;
        assert_eq!(beats_within(hour * BEAT, Duration::ZERO, || None).await, hour + 1);
        assert_eq!(beats_within(hour * BEAT, STUCK_AFTER - BEAT, || None).await, hour + 1, "as long as a token comes back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_does_not_come_back_is_an_alarm_until_it_does() {
        let alive = STUCK_AFTER.as_secs() / BEAT.as_secs();
        assert_eq!(u64::from(beats_within(10 * STUCK_AFTER, Duration::from_secs(1_000_000), || None).await), alive);
        let lost_for = STUCK_AFTER + 5 * BEAT;
        // The beat at which it is back counts again.
        assert_eq!(u64::from(beats_within(lost_for + BEAT, lost_for + BEAT / 4, || None).await), alive + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_stuck_by_its_age_is_an_alarm_only_as_long_as_it_is() {
        let looks = Cell::new(0);
        let stuck = || {
            looks.set(looks.get() + 1);
            (4..6).contains(&looks.get()).then(|| "a batch".to_owned())
        };
        assert_eq!(beats_within(9 * BEAT, Duration::ZERO, stuck).await, 10 - 2);
    }
}
