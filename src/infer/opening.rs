//! Opens the sessions of an engine: at the same time where nothing speaks against it, and as many as fit.
//!
//! In: how one is opened. Out: those that could be. Where memory is wanting the log says how many there are instead.
//! Must not know: what a session is.

use super::cuda::CudaError;

/// So many sessions, opened at the same time, each in a thread of its own: that takes as long as one, and until then nobody is recognised.
/// `open` is told whether it is the first.
fn at_once<T: Send, E: Send>(wanted: usize, open: &(impl Fn(bool) -> Result<T, E> + Sync)) -> Vec<Result<T, E>> {
    std::thread::scope(|scope| {
        let thread = |place| std::thread::Builder::new().spawn_scoped(scope, move || open(place == 0)).map_err(|_| place);
        let threads: Vec<_> = (0..wanted).map(thread).collect();
        let opened = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // Where the system gives no more threads, this one does it.
            Err(place) => open(place == 0),
        });
        opened.collect()
    })
}

/// Up to `wanted` sessions, of which `open` is told whether it is the first: at the same time where `may_be_at_once`. One is enough to go
/// on: where another cannot be had there are fewer, which the log says. Mostly it is memory that is wanting then, which not every runtime
/// says in words.
pub(super) fn as_many_as_fit<T: Send>(
    wanted: usize,
    may_be_at_once: bool,
    open: &(impl Fn(bool) -> Result<T, CudaError> + Sync),
) -> Result<Vec<T>, CudaError> {
    if may_be_at_once && wanted > 1 {
        match at_once(wanted, open).into_iter().collect() {
            Ok(opened) => return Ok(opened),
            // Nothing is left of the others, and one after the other some may fit.
            Err(error) => {
                tracing::warn!(%error, wanted, "the GPU's sessions cannot be opened at the same time, and are one after the other");
            }
        }
    }
    let mut opened = vec![open(true)?];
    while opened.len() < wanted {
        match open(false) {
            Ok(session) => opened.push(session),
            Err(error) => {
                tracing::warn!(%error, sessions = opened.len(), wanted, "the GPU cannot have more sessions: preparing and inference overlap less");
                break;
            }
        }
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_further_session_that_cannot_be_had_is_done_without_whatever_the_words() {
        // TensorRT says this where memory is full.
        const WORDS: &str = "TensorRT EP could not build execution context for fused node";
        let opened = |answers: &[bool], may_be_at_once| {
            let (answers, firsts) = (Mutex::new(answers.iter()), Mutex::new(Vec::new()));
            let sessions = as_many_as_fit(3, may_be_at_once, &|is_first| {
                firsts.lock().expect("nobody panics").push(is_first);
                let is_had = answers.lock().expect("nobody panics").next().is_some_and(|is_had| *is_had);
                if is_had { Ok(()) } else { Err(CudaError::Graph { graph: "opening of the graphs", reason: WORDS.into() }) }
            });
            (sessions.map(|sessions| sessions.len()), firsts.into_inner().expect("nobody panics"))
        };
        assert!(matches!(opened(&[true; 4], false), (Ok(3), firsts) if firsts == [true, false, false]), "the first alone builds engines");
        assert!(matches!(opened(&[true, false, true], false), (Ok(1), firsts) if firsts.len() == 2));
        assert!(matches!(opened(&[false, true], false), (Err(CudaError::Graph { .. }), _)), "there must be one");
        assert!(matches!(opened(&[true; 3], true), (Ok(3), firsts) if firsts.len() == 3));
        let one_after_the_other = [true, true, false, true, true, false];
        assert!(matches!(opened(&one_after_the_other, true), (Ok(2), firsts) if firsts.len() == 6), "some fit where all at once did not");
    }

    #[test]
    fn sessions_are_opened_at_the_same_time_and_one_of_them_is_the_first() {
        let all_there = std::sync::Barrier::new(3);
        let opened = at_once(3, &|is_first: bool| {
            // None goes on before all are under way.
            all_there.wait();
            if is_first { Err("the first") } else { Ok("another") }
        });
        assert_eq!(opened, [Err("the first"), Ok("another"), Ok("another")]);
    }
}
