//! What a session holds of the device's memory, as docs/gpu.md states it ("Memory").
//!
//! In: batches of pictures of 1920x1080. Out: bytes taken, beside the page's.
//! Must not know: what the runtime takes for the models.

use doorward::config::InferConfig;
use doorward::frame::PixelLayout;
use doorward::infer::cuda::{Gpu, Plan, SurfaceRequest, Worker};

use crate::driver::{image, over_the_stand_in};
use crate::flow::{look, manifest, noise};
use crate::graphs::graphs;

const SIZE: (usize, usize) = (1920, 1080);
/// The daemon's, for a batch and for cameras.
const FRAMES_MAX: usize = 16;
const SIDE: u32 = 640;
/// An aligned face as the encoder is given it, and how many it is given at once.
const FACE: u64 = 112 * 112 * 3 * 4;
const FACES: u64 = 32;
/// A picture as the detector is given it: 640x384 for a camera of 16:9.
const CANVAS: u64 = 640 * 384 * 3 * 4;
/// NV12.
const PICTURE: u64 = 1920 * 1080 * 3 / 2;
/// What the detector answers for it, in cells of 8, 16 and 32 pixels: 16 values each.
const ANSWER: u64 = (80 * 48 + 40 * 24 + 20 * 12) * 16 * 4;
/// Tables of what is to be done and sums of pixels, which the page leaves out.
const SMALL: u64 = 300_000;

#[test]
fn a_session_holds_what_the_page_says_and_gives_back_what_it_does_not_need() {
    over_the_stand_in("budget::a_session_holds_what_the_page_says_and_gives_back_what_it_does_not_need", &[], |stand_in| {
        let gpu = Gpu::open(0).unwrap();
        let (manifest, config) = (manifest(), InferConfig::default());
        let plan = Plan { gpu: &gpu, image: &image(&gpu), manifest: &manifest, config: &config, frames_max: FRAMES_MAX };
        let mut worker = Worker::open(&plan, |_| Ok(graphs(stand_in, &manifest.encoder.output))).unwrap();
        let is = |stated: u64, what: &str| {
            let taken = stand_in.device_bytes();
            println!("{what}: {taken} bytes, {stated} stated");
            assert!((stated..stated + SMALL).contains(&taken), "{what}: {taken} bytes, and {stated} are stated");
        };
        let opened = 2 * FACES * FACE;
        is(opened, "opened");
        let frame = noise(7, SIZE, PixelLayout::I420);
        // What stands for the detector keeps the answer of its largest batch.
        for (pictures, room, answers) in [(1, 1, 1), (2, 4, 2), (4, 4, 4), (5, 16, 5), (16, 16, 16), (1, 16, 16)] {
            let request = |worker: &mut Worker| {
                let surface = worker.upload(&frame).unwrap();
                SurfaceRequest { surface, detector_side: Some(SIDE), region_of_interest: None, score_min: None, face_pixels_min: 0 }
            };
            worker.give_back_unused();
            let requests: Vec<_> = (0..pictures).map(|_| request(&mut worker)).collect();
            let mut batch = worker.prepare(requests).unwrap();
            look(&mut worker, &mut batch).unwrap();
            is(opened + room * CANVAS + answers * ANSWER + pictures * PICTURE, &format!("a batch of {pictures}"));
        }
        worker.give_back_unused();
        is(opened + 16 * (CANVAS + ANSWER), "afterwards, with the tensor of the last batch");
    });
}
