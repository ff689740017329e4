//! What a SIGHUP asks for: tokens and certificate at once, the enrolment folder in its turn.
//!
//! In: signals. Out: what was asked for, carried out. One reading of the folder at a time; what is asked for meanwhile is
//! done once, after it.
//! Must not know: what is read.

use std::convert::Infallible;

use tokio::sync::Notify;

/// Carries out `credentials` whenever somebody has `asked`, and then `people`, which waits by itself for that or for other
/// reasons: it is given what is notified when somebody asks. A reading of people may take an hour, and no token that is taken back
/// waits for it.
pub(super) async fn run(mut asked: impl AsyncFnMut(), mut credentials: impl FnMut(), mut people: impl AsyncFnMut(&Notify)) -> Infallible {
    let wanted = Notify::new();
    let signals = async {
        loop {
            asked().await;
            credentials();
            wanted.notify_one();
        }
    };
    let readings = async {
        loop {
            people(&wanted).await;
        }
    };
    tokio::select! {
        never = signals => never,
        never = readings => never,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_taken_back_does_not_wait_for_a_reading_of_people() {
        let (signals, done) = (Semaphore::new(0), Semaphore::new(0));
        let (credentials, begun, ended) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let asked = async || signals.acquire().await.expect("open").forget();
        let people = async |wanted: &Notify| {
            wanted.notified().await;
            begun.set(begun.get() + 1);
            done.acquire().await.expect("open").forget();
            ended.set(ended.get() + 1);
        };
        let running = run(asked, || credentials.set(credentials.get() + 1), people);
        let told = || (credentials.get(), begun.get(), ended.get());
        let asking = async {
            let settle = async || {
                for _ in 0..16 {
                    tokio::task::yield_now().await;
                }
            };
            signals.add_permits(1);
            settle().await;
            assert_eq!(told(), (1, 1, 0), "people are being read");
            for asked in 2..5 {
                signals.add_permits(1);
                settle().await;
                assert_eq!(told(), (asked, 1, 0), "and the tokens are read again meanwhile");
            }
            done.add_permits(1);
            settle().await;
            assert_eq!(told(), (4, 2, 1), "once for all that was asked for meanwhile");
            done.add_permits(1);
            settle().await;
            assert_eq!(told(), (4, 2, 2));
        };
        tokio::select! {
            never = running => match never {},
            () = asking => {}
        }
    }
}
