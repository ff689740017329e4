//! Every call of the driver fails once.
//!
//! In: the number of a call. Out: an error that names it, nothing held, and a next try that works.
//! Must not know: models.

use doorward::config::InferConfig;
use doorward::frame::PixelLayout;
use doorward::infer::cuda::{CudaError, Gpu, Image, Plan, Surface, SurfaceRequest, Worker};

use crate::driver::{CAPABILITY, StandIn, over_the_stand_in};
use crate::flow::{Decoder, are_of, look, manifest, noise, open, request};
use crate::graphs::{fails_once, graphs};

/// What a driver may answer: no memory, a kernel that failed, a lost device.
pub const CODES: [i32; 3] = [2, 719, 999];
/// Calls whose failure nobody can be told of, since they give something back or wait once more.
pub const GIVING_BACK: [&str; 9] = [
    "cuMemFree",
    "cuMemFreeHost",
    "cuStreamDestroy",
    "cuEventDestroy",
    "cuModuleUnload",
    "cuDevicePrimaryCtxRelease",
    "cuCtxSetCurrent",
    "cuStreamSynchronize",
    "cuEventSynchronize",
];
const SIZE: (usize, usize) = (162, 92);

/// On a canvas that is soon filled.
fn small(surface: Surface) -> SurfaceRequest {
    SurfaceRequest { detector_side: Some(160), ..request(surface) }
}

/// Stands for compiled kernels.
pub fn image() -> Image {
    Image::new(b"// .entry letterbox_nv12 .entry align_nv12 .entry measure_crops\n".to_vec()).unwrap()
}

/// Two batches, one prepared while the other is looked at: one surface of a decoder, one upload.
fn analyse(worker: &mut Worker, decoder: &Decoder, stand_in: &StandIn) -> Result<(), CudaError> {
    let frames = [noise(7, SIZE, PixelLayout::Nv12), noise(8, SIZE, PixelLayout::I420)];
    let uploaded = worker.upload(&frames[1])?;
    let mut first = worker.prepare(vec![small(decoder.decode()), small(uploaded)])?;
    let uploaded = worker.upload(&frames[1])?;
    let mut second = worker.prepare(vec![small(uploaded)])?;
    assert!(are_of(&frames, &look(worker, &mut first)?), "what comes is right: {:?}", stand_in.failed());
    drop(first);
    assert!(are_of(&frames[1..], &look(worker, &mut second)?), "what comes is right: {:?}", stand_in.failed());
    Ok(())
}

/// From the driver's first call to its last.
fn all_of_it(stand_in: &'static StandIn) -> Result<(), CudaError> {
    let gpu = Gpu::open(0)?;
    assert_eq!(gpu.capability()?, CAPABILITY);
    let decoder = Decoder::new(&gpu, stand_in, noise(7, SIZE, PixelLayout::Nv12))?;
    let mut worker = open(&gpu, &image(), stand_in)?;
    analyse(&mut worker, &decoder, stand_in)
}

/// Holds what came of a try in which a call was made to fail to the promise.
fn is_told(outcome: Result<(), CudaError>, failed: &str, code: i32) {
    match outcome {
        Ok(()) => assert!(GIVING_BACK.contains(&failed), "{failed} failed, and nobody was told"),
        Err(error) => {
            assert!(error.to_string().contains(failed), "{failed} failed, and {error} was told");
            match error {
                CudaError::OutOfMemory { call, .. } => assert_eq!((call, code), (failed, 2)),
                // What a graph meets comes in its own words.
                CudaError::Graph { .. } => {}
                other => assert_ne!(code, 2, "{other} is no lack of memory"),
            }
        }
    }
}

#[test]
fn any_call_that_fails_is_named_leaves_nothing_and_the_next_try_works() {
    over_the_stand_in("faults::any_call_that_fails_is_named_leaves_nothing_and_the_next_try_works", &[], |stand_in| {
        stand_in.fail(None, 0, 0);
        all_of_it(stand_in).unwrap();
        let calls = stand_in.calls_in_all();
        for nth in 1..=calls {
            let code = CODES[nth as usize % CODES.len()];
            stand_in.fail(None, nth, code);
            let outcome = all_of_it(stand_in);
            let failed = stand_in.failed().unwrap();
            is_told(outcome, &failed, code);
            assert_eq!((stand_in.held(), stand_in.wrong()), (0, None), "after call {nth}, {failed}");
            stand_in.fail(None, 0, 0);
            all_of_it(stand_in).unwrap_or_else(|error| panic!("after call {nth}, {failed}: {error}"));
            assert_eq!((stand_in.held(), stand_in.wrong()), (0, None), "after the try that followed call {nth}");
        }
        println!("{calls} calls from open to close, each failed once");
    });
}

#[test]
fn a_graph_that_fails_at_once_is_waited_for_before_its_surfaces_are_let_go_of() {
    over_the_stand_in("faults::a_graph_that_fails_at_once_is_waited_for_before_its_surfaces_are_let_go_of", &[], |stand_in| {
        let gpu = Gpu::open(0).unwrap();
        let frame = noise(7, SIZE, PixelLayout::Nv12);
        let decoder = Decoder::new(&gpu, stand_in, frame.clone()).unwrap();
        let (manifest, config) = (manifest(), InferConfig::default());
        let plan = Plan { gpu: &gpu, image: &image(), manifest: &manifest, config: &config, frames_max: 1 };
        let mut worker = Worker::open(&plan, |_| Ok(fails_once(graphs(stand_in, &manifest.encoder.output), "it is not ready"))).unwrap();
        for failing in ["detector", "encoder"] {
            let mut batch = worker.prepare(vec![small(decoder.decode())]).unwrap();
            let error = look(&mut worker, &mut batch).unwrap_err();
            assert!(matches!(error, CudaError::Graph { graph, .. } if graph == failing), "{error}");
            assert!(stand_in.queued() > 0, "nobody has waited yet");
            drop(batch);
            assert_eq!((stand_in.queued(), stand_in.wrong()), (0, None), "after the {failing}");
        }
        let mut batch = worker.prepare(vec![small(decoder.decode())]).unwrap();
        assert!(are_of(&[frame], &look(&mut worker, &mut batch).unwrap()));
        drop((batch, worker, decoder, gpu));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn a_worker_goes_on_after_any_call_that_fails() {
    over_the_stand_in("faults::a_worker_goes_on_after_any_call_that_fails", &[], |stand_in| {
        let gpu = Gpu::open(0).unwrap();
        let decoder = Decoder::new(&gpu, stand_in, noise(7, SIZE, PixelLayout::Nv12)).unwrap();
        let mut worker = open(&gpu, &image(), stand_in).unwrap();
        // Until both halves of the double buffer have the room that these batches take.
        (0..3).for_each(|_| analyse(&mut worker, &decoder, stand_in).unwrap());
        stand_in.fail(None, 0, 0);
        analyse(&mut worker, &decoder, stand_in).unwrap();
        let calls = stand_in.calls_in_all();
        let held = stand_in.held();
        for nth in 1..=calls {
            let code = CODES[nth as usize % CODES.len()];
            stand_in.fail(None, nth, code);
            let outcome = analyse(&mut worker, &decoder, stand_in);
            let failed = stand_in.failed().unwrap();
            is_told(outcome, &failed, code);
            stand_in.fail(None, 0, 0);
            analyse(&mut worker, &decoder, stand_in).unwrap_or_else(|error| panic!("after call {nth}, {failed}: {error}"));
            assert_eq!(stand_in.wrong(), None, "after call {nth}, {failed}");
        }
        assert!(stand_in.held() <= held, "no failure left anything behind: {} after {held}", stand_in.held());
        println!("{calls} calls of two batches, each failed once");
        drop((worker, decoder, gpu));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn whoever_waits_for_the_device_sleeps_and_a_context_that_is_in_use_is_taken_as_it_is() {
    const NAME: &str = "faults::whoever_waits_for_the_device_sleeps_and_a_context_that_is_in_use_is_taken_as_it_is";
    over_the_stand_in(NAME, &[], |stand_in| {
        const BLOCKING_SYNC: u64 = 4;
        let first = Gpu::open(0).unwrap();
        assert_eq!(stand_in.context_flags(), BLOCKING_SYNC);
        drop((Gpu::open(0).unwrap(), first));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}
