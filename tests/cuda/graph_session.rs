//! A graph on a GPU with what is kept for its pictures, run over the stand-in by sessions that are made up.
//!
//! In: pictures in the stand-in's memory, orders to fail, time that passes. Out: answers, counts of the stand-in and of the sessions.
//! Must not know: models, runtimes.

use std::sync::Arc;
use std::time::Duration;

use doorward::infer::cuda::{
    CudaError, DeviceBuffer, DeviceGraph, DeviceTensor, Gpu, GraphSession, GraphsError, Profile, RunError, Stream,
};

use crate::driver::{StandIn, over_the_stand_in};
use crate::faults::{CODES, GIVING_BACK};
use crate::made_up::{MadeUp, expected};

/// Height and width: of usual pictures, of others that the engine runs too, and of those that are beyond it.
const USUAL: (usize, usize) = (48, 64);
const OTHER: (usize, usize) = (64, 48);
const BEYOND: (usize, usize) = (80, 48);
const MAX: usize = 16;
/// What docs/gpu.md states.
const OWN_SESSIONS_MAX: usize = 24;
const CANVASES_MAX: usize = 32;
const UNUSED_AFTER: Duration = Duration::from_secs(10);
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(1);

type Graph = GraphSession<MadeUp>;

/// A device with a stream, and memory for as many pictures as there may be.
struct Bench {
    stand_in: &'static StandIn,
    made_up: MadeUp,
    stream: Arc<Stream>,
    /// Of each batch the other than of the one before.
    inputs: [DeviceBuffer; 2],
    batches: usize,
}

impl Bench {
    fn new(stand_in: &'static StandIn) -> Self {
        let gpu = Gpu::open(0).unwrap();
        let input = || DeviceBuffer::new(&gpu, MAX * 3 * 80 * 80 * size_of::<f32>()).unwrap();
        let stream = Stream::new(&gpu).unwrap();
        Self { stand_in, made_up: MadeUp::new(stand_in), stream, inputs: [input(), input()], batches: 0 }
    }

    /// A graph with TensorRT's session for all shapes, or without one.
    fn open(&self, has_engine: bool) -> Result<Graph, GraphsError> {
        let profile = Profile { min: [1, 3, 32, 32], best: [MAX, 3, USUAL.0, USUAL.1], max: [MAX, 3, 64, 64] };
        let engine = has_engine.then(|| self.made_up.session(None, &self.stream));
        GraphSession::open(self.made_up.clone(), engine, (profile, &self.stream))
    }

    /// Runs so many pictures that were never seen before; what comes is held to be right.
    fn run(&mut self, graph: &mut Graph, (pictures, (height, width)): (usize, (usize, usize))) -> Result<(), RunError> {
        self.batches += 1;
        let (seed, input) = (self.batches as u64, &self.inputs[self.batches % 2]);
        let mut random = fastrand::Rng::with_seed(seed);
        let values: Vec<f32> = (0..pictures * 3 * height * width).map(|_| random.f32()).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.stand_in.write(input.address(), &bytes);
        let outcome = graph.run(&DeviceTensor::within(input, [pictures, 3, height, width], &self.stream));
        if outcome.is_err() {
            assert_eq!(graph.output("few"), Err("the graph has not run".to_owned()), "nothing of an earlier run is shown");
            return outcome;
        }
        for place in 0..3 {
            let each: Vec<_> = values.chunks(3 * height * width).map(|picture| expected(picture, width)).collect();
            let wanted: Vec<f32> = each.iter().flat_map(|answer| answer[place].1.clone()).collect();
            let name = each[0][place].0;
            assert!(graph.output(name).unwrap() == wanted, "{name} of {pictures} pictures of {height}x{width}");
        }
        assert!(graph.output("none").unwrap_err().contains("no output \"none\""));
        Ok(())
    }

    fn opened(&self) -> usize {
        self.made_up.orders().opened
    }

    fn ran_with(&self) -> usize {
        self.made_up.orders().ran_with
    }

    fn bound(&self) -> usize {
        self.made_up.orders().bound
    }

    fn alive(&self) -> usize {
        self.made_up.orders().alive
    }
}

/// Runs `body` over the stand-in with a bench, and holds that nothing is left behind and nothing done that a driver would punish.
fn run(test: &str, body: impl FnOnce(&mut Bench)) {
    over_the_stand_in(test, &[], |stand_in| {
        let mut bench = Bench::new(stand_in);
        body(&mut bench);
        assert_eq!(bench.alive(), 0, "no session is left");
        drop(bench);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn the_outputs_of_every_batch_are_those_of_its_pictures_alone_and_come_in_one_copy_for_one_wait() {
    const NAME: &str = "graph_session::the_outputs_of_every_batch_are_those_of_its_pictures_alone_and_come_in_one_copy_for_one_wait";
    run(NAME, |bench| {
        for has_engine in [false, true] {
            let mut graph = bench.open(has_engine).unwrap();
            assert_eq!(graph.runs_on(), if has_engine { "the engine" } else { "sessions of their own" });
            // A session of its own runs as many as it was opened for, of which the last mean nothing.
            for (pictures, with) in [(1, 1), (3, if has_engine { 3 } else { 4 }), (16, 16), (3, if has_engine { 3 } else { 4 }), (1, 1)] {
                for size in [USUAL, OTHER, BEYOND] {
                    bench.stand_in.fail(None, 0, 0);
                    let before = bench.stand_in.bytes_down();
                    bench.run(&mut graph, (pictures, size)).unwrap();
                    let calls = ["cuMemcpyDtoHAsync", "cuStreamSynchronize"].map(|name| bench.stand_in.calls(name));
                    assert_eq!(calls, [1, 1], "{pictures} pictures of {size:?}");
                    let with = if size == BEYOND && pictures == 3 { 4 } else { with };
                    assert_eq!(bench.ran_with(), with, "{pictures} pictures of {size:?}");
                    let (down, values) = (bench.stand_in.bytes_down() - before, (6 + size.0) * with * size_of::<f32>());
                    assert!((values..values + 2 * 256).contains(&(down as usize)), "{down} bytes for {values} of answers");
                }
            }
            for pictures in [0, MAX + 1] {
                let error = graph.run(&DeviceTensor::within(&bench.inputs[0], [pictures, 3, 48, 64], &bench.stream)).unwrap_err();
                assert!(matches!(&error, RunError::Failed(words) if words.contains("opened for 1 to 16")), "{error:?}");
            }
            let other = Stream::new(bench.stream.gpu()).unwrap();
            let error = graph.run(&DeviceTensor::within(&bench.inputs[0], [1, 3, 48, 64], &other)).unwrap_err();
            assert!(matches!(&error, RunError::Failed(words) if words.contains("another stream")), "{error:?}");
        }
    });
}

#[test]
fn what_was_run_once_is_run_again_without_memory_a_session_or_a_binding_more() {
    run("graph_session::what_was_run_once_is_run_again_without_memory_a_session_or_a_binding_more", |bench| {
        for has_engine in [false, true] {
            let mut graph = bench.open(has_engine).unwrap();
            let taken = |bench: &Bench| ["cuMemAlloc", "cuMemHostAlloc", "cuMemFree"].map(|name| bench.stand_in.calls(name));
            bench.stand_in.fail(None, 0, 0);
            let opened = bench.opened();
            for pictures in [1, 2, 3, 5, 9, MAX] {
                bench.run(&mut graph, (pictures, USUAL)).unwrap();
            }
            assert_eq!((taken(bench), bench.opened()), ([0; 3], opened), "of usual pictures nothing waits for it");
            bench.run(&mut graph, (MAX, OTHER)).unwrap();
            bench.stand_in.fail(None, 0, 0);
            let (opened, bound) = (bench.opened(), bench.bound());
            for _ in 0..20 {
                for size in [USUAL, OTHER] {
                    bench.run(&mut graph, (MAX, size)).unwrap();
                }
            }
            assert_eq!((taken(bench), bench.opened(), bench.bound()), ([0; 3], opened, bound));
        }
    });
}

#[test]
fn canvases_beyond_the_most_make_way_by_when_they_were_used_and_their_memory_goes_back() {
    run("graph_session::canvases_beyond_the_most_make_way_by_when_they_were_used_and_their_memory_goes_back", |bench| {
        for has_engine in [false, true] {
            bench.made_up.orders().most = 0;
            let (without, engines) = (bench.stand_in.held(), usize::from(has_engine));
            let mut graph = bench.open(has_engine).unwrap();
            let (opened, kept_by_engine) = (bench.stand_in.device_bytes(), bench.stand_in.held());
            // Those that the engine runs, where there is one, and those that it does not.
            for sizes in [
                (32..64).map(|side| (side, 33)).collect::<Vec<_>>(),
                (65..80).flat_map(|side| [(side, 33), (side, 34), (side, 35)]).collect(),
            ] {
                for size in &sizes {
                    bench.run(&mut graph, (1, *size)).unwrap();
                    // Device memory and pinned memory for each.
                    let canvases = (bench.stand_in.held() - without) as usize / 2;
                    assert!(canvases <= CANVASES_MAX, "{canvases} canvases");
                    assert!(bench.alive() <= OWN_SESSIONS_MAX + engines, "{} sessions", bench.alive());
                }
                let opened = bench.opened();
                for size in &sizes[sizes.len() - (OWN_SESSIONS_MAX - 1)..] {
                    bench.run(&mut graph, (1, *size)).unwrap();
                }
                assert_eq!(bench.opened(), opened, "those that were used last are there");
            }
            let most = bench.made_up.orders().most;
            assert_eq!(most, OWN_SESSIONS_MAX + engines, "one goes before another is opened");
            assert!(kept_by_engine > without);
            bench.run(&mut graph, (MAX, USUAL)).unwrap();
            bench.made_up.pass(UNUSED_AFTER);
            graph.give_back_unused();
            assert_eq!(graph.output("few"), Err("the graph has not run".to_owned()));
            assert!(bench.stand_in.device_bytes() <= opened, "only usual canvases are kept");
            bench.run(&mut graph, (MAX, USUAL)).unwrap();
            drop(graph);
            assert_eq!(bench.stand_in.held(), without);
        }
    });
}

/// From the opening of a graph over a canvas that grows and one that comes to what is given back.
fn all_of_it(bench: &mut Bench, graph: &mut Option<Graph>, has_engine: bool) -> Result<(), CudaError> {
    let graph = graph.insert(bench.open(has_engine).map_err(GraphsError::into_cuda)?);
    for batch in [(1, USUAL), (3, USUAL), (1, OTHER), (3, OTHER), (3, BEYOND)] {
        bench.run(graph, batch).map_err(of_run)?;
    }
    bench.made_up.pass(UNUSED_AFTER);
    graph.give_back_unused();
    bench.made_up.pass(TRIED_AGAIN_AFTER);
    bench.run(graph, (2, USUAL)).map_err(of_run)
}

/// As the worker tells it.
fn of_run(error: RunError) -> CudaError {
    let (RunError::Failed(reason) | RunError::NoSession { reason, .. }) = error;
    CudaError::Graph { graph: "detector", reason }
}

#[test]
fn any_call_that_fails_is_named_leaves_nothing_and_the_next_run_is_right() {
    run("graph_session::any_call_that_fails_is_named_leaves_nothing_and_the_next_run_is_right", |bench| {
        for has_engine in [false, true] {
            let held = bench.stand_in.held();
            bench.stand_in.fail(None, 0, 0);
            all_of_it(bench, &mut None, has_engine).unwrap();
            let calls = bench.stand_in.calls_in_all();
            for (nth, code) in (1..=calls).flat_map(|nth| CODES.map(|code| (nth, code))) {
                bench.stand_in.fail(None, nth, code);
                let mut graph = None;
                let outcome = all_of_it(bench, &mut graph, has_engine);
                // The last calls come when all is given back.
                let failed = bench.stand_in.failed().or_else(|| (drop(graph.take()), bench.stand_in.failed()).1).unwrap();
                let place = format!("call {nth} of {calls}, {failed}, {code}, engine: {has_engine}");
                match outcome {
                    Ok(()) => assert!(GIVING_BACK.contains(&failed.as_str()), "{place}: nobody was told"),
                    Err(error) => {
                        assert!(error.to_string().contains(&failed), "{place}: {error} was told");
                        assert_eq!(error.is_out_of_memory(), code == 2, "{place}: {error}");
                    }
                }
                bench.stand_in.fail(None, 0, 0);
                bench.made_up.pass(TRIED_AGAIN_AFTER);
                if let Some(graph) = &mut graph {
                    for batch in [(3, OTHER), (2, USUAL), (MAX, BEYOND)] {
                        bench.run(graph, batch).unwrap_or_else(|error| panic!("after {place}: {error:?}"));
                    }
                }
                drop(graph);
                assert_eq!((bench.stand_in.held(), bench.alive(), bench.stand_in.wrong()), (held, 0, None), "after {place}");
            }
            println!("{calls} calls, each failed with each of {CODES:?}, engine: {has_engine}");
        }
    });
}

/// Why pictures of one shape cannot be run now, and whether it was tried.
fn refused(outcome: Result<(), RunError>) -> (String, bool) {
    match outcome.unwrap_err() {
        RunError::NoSession { reason, was_tried } => (reason, was_tried),
        error => panic!("{error:?} is said of all pictures"),
    }
}

#[test]
fn a_session_that_could_not_be_had_is_tried_again_after_a_second_and_until_then_a_larger_one_does() {
    run("graph_session::a_session_that_could_not_be_had_is_tried_again_after_a_second_and_until_then_a_larger_one_does", |bench| {
        for failing in ["the source", "cuMemAlloc", "cuMemHostAlloc"] {
            let mut graph = bench.open(false).unwrap();
            bench.run(&mut graph, (3, OTHER)).unwrap();
            let fail = |bench: &Bench| match failing {
                "the source" => bench.made_up.orders().opens_none = Some("the source has none"),
                call => bench.stand_in.fail(Some(call), 1, 2),
            };
            let alive = bench.alive();
            fail(bench);
            let (words, was_tried) = refused(bench.run(&mut graph, (1, BEYOND)));
            assert!(words.contains(failing) && was_tried, "{failing}: {words}");
            bench.made_up.orders().opens_none = None;
            bench.stand_in.fail(None, 0, 0);
            assert_eq!(bench.alive(), alive, "{failing}: what was opened in vain is closed");
            let opened = bench.opened();
            let (words, was_tried) = refused(bench.run(&mut graph, (1, BEYOND)));
            assert!(words.contains("a moment ago") && words.contains(failing) && !was_tried, "{failing}: {words}");
            bench.run(&mut graph, (1, OTHER)).unwrap();
            assert_eq!(bench.ran_with(), 4, "{failing}: in the session for more pictures");
            bench.run(&mut graph, (1, USUAL)).unwrap();
            bench.made_up.pass(TRIED_AGAIN_AFTER - Duration::from_millis(1));
            refused(bench.run(&mut graph, (1, BEYOND)));
            assert_eq!(bench.opened(), opened, "{failing}: nothing was tried");
            bench.made_up.pass(Duration::from_millis(1));
            bench.run(&mut graph, (1, BEYOND)).unwrap();
            bench.run(&mut graph, (1, OTHER)).unwrap();
            assert_eq!((bench.ran_with(), bench.opened()), (1, opened + 2), "{failing}: each has its own again");
        }
    });
}

#[test]
fn a_session_that_fails_makes_way_at_once_where_it_never_ran_and_else_after_three_failures_in_a_row() {
    run("graph_session::a_session_that_fails_makes_way_at_once_where_it_never_ran_and_else_after_three_failures_in_a_row", |bench| {
        let mut graph = bench.open(false).unwrap();
        let alive = bench.alive();
        let fail = |bench: &mut Bench, graph: &mut Graph| {
            bench.made_up.orders().fails = Some((Some(OTHER.0), "it is broken"));
            assert_eq!(bench.run(graph, (1, OTHER)), Err("it is broken".into()));
            assert_eq!(bench.stand_in.queued(), 0, "what it had queued is waited for");
            bench.run(graph, (1, USUAL)).unwrap();
            bench.made_up.orders().fails = None;
        };
        let is_paused = |bench: &mut Bench, graph: &mut Graph| {
            let words = "a session failed at its run a moment ago".to_owned();
            assert_eq!(refused(bench.run(graph, (1, OTHER))), (words, false));
            bench.made_up.pass(TRIED_AGAIN_AFTER);
        };
        fail(bench, &mut graph);
        assert_eq!(bench.alive(), alive, "it never ran");
        is_paused(bench, &mut graph);
        for _ in 0..3 {
            bench.run(&mut graph, (1, OTHER)).unwrap();
            (0..2).for_each(|_| fail(bench, &mut graph));
            assert_eq!(bench.alive(), alive + 1, "it ran well between");
        }
        fail(bench, &mut graph);
        assert_eq!(bench.alive(), alive, "the third in a row");
        is_paused(bench, &mut graph);
        bench.run(&mut graph, (1, OTHER)).unwrap();
    });
}

#[test]
fn what_is_in_use_or_usual_is_kept_where_memory_is_wanting_and_what_is_freed_is_for_others() {
    run("graph_session::what_is_in_use_or_usual_is_kept_where_memory_is_wanting_and_what_is_freed_is_for_others", |bench| {
        let mut graph = bench.open(false).unwrap();
        let (usual, usual_bytes) = (bench.alive(), bench.stand_in.device_bytes());
        bench.run(&mut graph, (1, OTHER)).unwrap();
        bench.made_up.pass(UNUSED_AFTER - Duration::from_millis(1));
        bench.run(&mut graph, (1, BEYOND)).unwrap();
        graph.give_back_unused();
        assert_eq!(bench.alive(), usual + 2, "both are in use");
        bench.made_up.pass(Duration::from_millis(1));
        graph.give_back_unused();
        assert_eq!(bench.alive(), usual + 1, "one is not any more");
        bench.run(&mut graph, (1, BEYOND)).unwrap();
        assert_eq!(refused(bench.run(&mut graph, (1, OTHER))), ("memory was wanting a moment ago".to_owned(), false));
        bench.made_up.pass(UNUSED_AFTER);
        graph.give_back_unused();
        assert_eq!((bench.alive(), bench.stand_in.device_bytes()), (usual, usual_bytes));
        bench.made_up.pass(TRIED_AGAIN_AFTER);
        bench.run(&mut graph, (1, OTHER)).unwrap();
        bench.made_up.pass(UNUSED_AFTER);
        bench.stand_in.lose(1, 999);
        graph.give_back_unused();
        assert_eq!(bench.alive(), usual + 1, "nothing is freed that the device may write");
        bench.stand_in.fail(None, 0, 0);
        bench.run(&mut graph, (1, OTHER)).unwrap();
    });
}

#[test]
fn a_graph_whose_first_sessions_fail_is_not_opened_and_leaves_nothing() {
    run("graph_session::a_graph_whose_first_sessions_fail_is_not_opened_and_leaves_nothing", |bench| {
        let held = bench.stand_in.held();
        for has_engine in [false, true] {
            bench.made_up.orders().fails = Some((None, "it cannot run"));
            let error = bench.open(has_engine).err().unwrap().to_string();
            assert!(error.contains("made-up") && error.contains("it cannot run"), "{error}");
            bench.made_up.orders().fails = None;
            assert_eq!((bench.stand_in.held(), bench.alive()), (held, 0));
        }
        bench.made_up.orders().opens_none = Some("there is none");
        let error = bench.open(false).err().unwrap().to_string();
        assert!(error.contains("made-up") && error.contains("there is none"), "{error}");
        assert_eq!((bench.stand_in.held(), bench.alive()), (held, 0));
    });
}
