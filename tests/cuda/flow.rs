//! What a batch costs and holds: no pixel comes back, no memory is made once it runs, surfaces are let
//! go of, and one batch is prepared while another is looked at.
//!
//! In: pictures made here, graphs without a runtime. Out: counts of the stand-in.
//! Must not know: models.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use doorward::clock::Timestamp;
use doorward::config::InferConfig;
use doorward::face::{Detection, Landmarks, Template};
use doorward::frame::{CameraId, ColourMatrix, ColourRange, DevicePixels, Frame, PixelFormat, PixelLayout, Plane, Size};
use doorward::infer::align;
use doorward::infer::cuda::{BATCHES_MAX, Batch, CudaError, DeviceBuffer, FaceRequest, Gpu, Image, Plan, Surface, SurfaceRequest, Worker};
use doorward::models::Manifest;

use crate::driver::{StandIn, image, over_the_stand_in};
use crate::graphs::{detector_bytes, expected, graphs};

/// A picture of noise. Its planes are a decoder's: rows are further apart than they are long.
pub fn noise(seed: u64, (width, height): (usize, usize), layout: PixelLayout) -> Frame {
    let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
    let (stride, rows) = ((2 * half_width).next_multiple_of(64), height + half_height);
    let (u, v) = (stride * height, stride * height + stride / 2 * half_height);
    let mut bytes = vec![0_u8; stride * rows];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let plane = |offset, stride| Plane { offset, stride };
    let planes = match layout {
        PixelLayout::I420 => [plane(0, stride), plane(u, stride / 2), plane(v, stride / 2)],
        _ => [plane(0, stride), plane(u, stride), Plane::default()],
    };
    let size = Size { width: width as u32, height: height as u32 };
    let format = PixelFormat { size, layout, matrix: ColourMatrix::Bt709, range: ColourRange::Limited, planes };
    Frame::new(CameraId::parse("c").unwrap(), Timestamp::default(), format, Arc::new(bytes)).unwrap()
}

/// A decoder's surface: once it is let go of, the next picture is written into it.
struct Decoded {
    memory: Arc<DeviceBuffer>,
    stand_in: &'static StandIn,
    returned: Arc<AtomicUsize>,
}

impl DevicePixels for Decoded {
    fn address(&self) -> u64 {
        self.memory.address()
    }

    fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    fn to_host(&self) -> Result<Vec<u8>, String> {
        Err("no test looks at its pictures".into())
    }
}

impl Drop for Decoded {
    fn drop(&mut self) {
        self.stand_in.write(self.memory.address(), &vec![0xEE; self.memory.bytes()]);
        self.returned.fetch_add(1, Ordering::Relaxed);
    }
}

/// A decoder with one surface.
pub struct Decoder {
    memory: Arc<DeviceBuffer>,
    stand_in: &'static StandIn,
    frame: Frame,
    pub returned: Arc<AtomicUsize>,
}

impl Decoder {
    pub fn new(gpu: &Arc<Gpu>, stand_in: &'static StandIn, frame: Frame) -> Result<Self, CudaError> {
        let memory = Arc::new(DeviceBuffer::new(gpu, frame.plane(0).len())?);
        Ok(Self { memory, stand_in, frame, returned: Arc::default() })
    }

    pub fn decode(&self) -> Surface {
        Surface::new(*self.frame.format(), self.pixels()).unwrap()
    }

    /// The picture's memory, without a word of how it lies there.
    pub fn pixels(&self) -> Arc<dyn DevicePixels> {
        self.stand_in.write(self.memory.address(), self.frame.plane(0));
        let (memory, stand_in, returned) = (self.memory.clone(), self.stand_in, self.returned.clone());
        Arc::new(Decoded { memory, stand_in, returned })
    }
}

pub fn manifest() -> Manifest {
    Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).unwrap()
}

pub fn request(surface: Surface) -> SurfaceRequest {
    SurfaceRequest { surface, detector_side: Some(320), region_of_interest: None, score_min: None, face_pixels_min: 0 }
}

pub fn open(gpu: &Arc<Gpu>, image: &Image, stand_in: &'static StandIn) -> Result<Worker, CudaError> {
    let (manifest, config) = (manifest(), InferConfig::default());
    let plan = Plan { gpu, image, manifest: &manifest, config: &config, frames_max: 4 };
    Worker::open(&plan, |_| Ok(graphs(stand_in, &manifest.encoder.output)))
}

/// Detects and encodes all faces of a batch.
pub fn look(worker: &mut Worker, batch: &mut Batch) -> Result<(Vec<Detection>, Vec<Template>), CudaError> {
    let found = worker.detect(batch)?;
    let templates = worker.encode(batch, &all_faces(&found))?;
    Ok((found.into_iter().flatten().collect(), templates))
}

/// Every face of a batch, in the order of the frames.
pub fn all_faces(found: &[Vec<Detection>]) -> Vec<FaceRequest> {
    let of = |(frame, faces): (usize, &Vec<Detection>)| {
        faces.iter().map(|face| FaceRequest { frame, landmarks: face.landmarks, is_mirrored: false }).collect::<Vec<_>>()
    };
    found.iter().enumerate().flat_map(of).collect()
}

/// Whether the templates are those of the faces that the host cuts out of `frames`, one each.
pub fn are_of(frames: &[Frame], (faces, templates): &(Vec<Detection>, Vec<Template>)) -> bool {
    let space = manifest().space();
    let one_each = faces.len() == frames.len() && templates.len() == frames.len();
    let expected = frames.iter().zip(faces).map(|(frame, face)| expected(&align(frame, &face.landmarks), &space));
    one_each && expected.zip(templates).all(|(expected, found)| expected == *found)
}

const SIZE: (usize, usize) = (641, 359);

#[test]
fn no_pixel_comes_back_and_nothing_is_made_once_it_runs() {
    over_the_stand_in("flow::no_pixel_comes_back_and_nothing_is_made_once_it_runs", &[], |stand_in| {
        let gpu = Gpu::open(0).unwrap();
        let mut worker = open(&gpu, &image(&gpu), stand_in).unwrap();
        let frames = [1, 2, 3, 4].map(|seed| noise(seed, SIZE, if seed == 4 { PixelLayout::I420 } else { PixelLayout::Nv12 }));
        let decoders = [0, 1].map(|frame: usize| Decoder::new(&gpu, stand_in, frames[frame].clone()).unwrap());
        let more = [0, 1].map(|frame: usize| Decoder::new(&gpu, stand_in, frames[frame].clone()).unwrap());
        let prepare = |worker: &mut Worker, number: usize| {
            let decoders = if number.is_multiple_of(2) { &decoders } else { &more };
            let decoded = decoders.iter().map(Decoder::decode);
            let uploaded = frames[2..].iter().map(|frame| worker.upload(frame).unwrap());
            worker.prepare(decoded.chain(uploaded.collect::<Vec<_>>()).map(request).collect()).unwrap()
        };
        let counts = || {
            let made = stand_in.calls("cuMemAlloc") + stand_in.calls("cuMemHostAlloc");
            [
                made,
                stand_in.bytes_up(),
                stand_in.bytes_down(),
                stand_in.bytes_read(),
                stand_in.calls("cuLaunchKernel"),
                stand_in.calls_in_all(),
            ]
        };
        const WARM: usize = 3;
        const BATCHES: usize = 50;
        let (mut next, mut before) = (prepare(&mut worker, 0), counts());
        for number in 1..=WARM + BATCHES {
            let mut batch = std::mem::replace(&mut next, prepare(&mut worker, number));
            assert!(are_of(&frames, &look(&mut worker, &mut batch).unwrap()), "batch {number} is right");
            let returned = || [&decoders, &more].map(|pair| pair.iter().map(|d| d.returned.load(Ordering::Relaxed)).sum::<usize>());
            let held = returned();
            drop(batch);
            let given_back: usize = returned().iter().sum::<usize>() - held.iter().sum::<usize>();
            assert_eq!(given_back, 2, "the decoder has the batch's surfaces back as soon as it is dropped");
            if number == WARM {
                before = counts();
            }
        }
        let after = counts();
        let [made, up, down, read, launches, calls] = [0, 1, 2, 3, 4, 5].map(|count: usize| after[count] - before[count]);
        let batches = BATCHES as u64;
        assert_eq!(made, 0, "nothing is allocated once it runs");
        let templates = 4 * crate::graphs::DIMENSION * size_of::<f32>();
        assert_eq!(down, batches * (detector_bytes(4, (320, 192)) + templates) as u64, "only the graphs' outputs come back");
        // And the last number of the room that there is, each.
        let tensors = (4 * 3 * (320 * 192 + 112 * 112) + 2) * size_of::<f32>();
        assert_eq!(read, batches * tensors as u64, "what stands for sessions read their inputs where they lay");
        // Rows 768 bytes apart, the last one as long as it is.
        let picture = 768 * (359 + 179) + 642;
        assert_eq!(launches, batches * 2, "one letterboxing and one alignment a batch");
        let parameters = up / batches - 2 * picture as u64;
        assert!(parameters < 64 << 10, "beside two pictures {parameters} bytes of parameters go up a batch");
        println!("a batch of 4: {} bytes up, {} down, {} calls, 0 allocations", up / batches, down / batches, calls / batches);
        drop((next, worker, decoders, more, gpu));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn preparing_only_queues_and_a_third_batch_is_refused() {
    over_the_stand_in("flow::preparing_only_queues_and_a_third_batch_is_refused", &[], |stand_in| {
        let gpu = Gpu::open(0).unwrap();
        let mut worker = open(&gpu, &image(&gpu), stand_in).unwrap();
        let frame = noise(5, SIZE, PixelLayout::Nv12);
        let decoders = [0; 3].map(|_| Decoder::new(&gpu, stand_in, frame.clone()).unwrap());
        let mut first = worker.prepare(vec![request(decoders[0].decode())]).unwrap();
        let queued = stand_in.queued();
        assert!(queued >= 2, "an upload and a launch wait: {queued}");
        let second = worker.prepare(vec![request(decoders[1].decode())]).unwrap();
        assert!(stand_in.queued() > queued, "nobody waited for the first");
        let refused = worker.prepare(vec![request(decoders[2].decode())]).err().unwrap();
        assert!(matches!(refused, CudaError::TooMany { max: BATCHES_MAX, .. }), "{refused}");
        assert_eq!(decoders[2].returned.load(Ordering::Relaxed), 1, "what is refused is not held");
        let crowd = (0..5).map(|_| request(decoders[2].decode())).collect();
        assert!(matches!(worker.prepare(crowd), Err(CudaError::TooMany { count: 5, max: 4 })));
        assert!(are_of(std::slice::from_ref(&frame), &look(&mut worker, &mut first).unwrap()));
        // A batch that nobody looks at is waited for before its surfaces are let go of.
        drop(second);
        assert_eq!((decoders[1].returned.load(Ordering::Relaxed), stand_in.queued()), (1, 0));
        drop(first);
        // Neither is memory written again that a copy is still to read: these two share theirs.
        let other = noise(6, SIZE, PixelLayout::Nv12);
        drop(worker.upload(&frame).unwrap());
        let surface = worker.upload(&other).unwrap();
        let mut batch = worker.prepare(vec![request(surface)]).unwrap();
        assert!(are_of(&[other], &look(&mut worker, &mut batch).unwrap()));
        drop(batch);
        let mut empty = worker.prepare(Vec::new()).unwrap();
        assert_eq!(look(&mut worker, &mut empty).unwrap().0.len(), 0);
        let beyond =
            worker.encode(&mut empty, &[FaceRequest { frame: 0, landmarks: Landmarks::default(), is_mirrored: false }]).unwrap_err();
        assert!(matches!(beyond, CudaError::TooMany { count: 1, max: 0 }), "{beyond}");
        drop((empty, worker, decoders, gpu));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn frames_of_many_shapes_go_in_one_batch_and_photos_do_not() {
    over_the_stand_in("flow::frames_of_many_shapes_go_in_one_batch_and_photos_do_not", &[], |stand_in| {
        let gpu = Gpu::open(0).unwrap();
        let mut worker = open(&gpu, &image(&gpu), stand_in).unwrap();
        // More canvases than tensors are kept for, in several rounds.
        let freed = stand_in.calls("cuMemFree");
        for round in 0..9_u64 {
            let frames: Vec<Frame> = (0..4)
                .map(|frame| {
                    noise(frame, (320, 100 + 64 * (round + frame) as usize), if frame == 0 { PixelLayout::I420 } else { PixelLayout::Nv12 })
                })
                .collect();
            let surfaces = frames.iter().map(|frame| worker.upload(frame).unwrap()).collect::<Vec<_>>();
            let launches = stand_in.calls("cuLaunchKernel");
            let mut batch = worker.prepare(surfaces.into_iter().map(request).collect()).unwrap();
            assert_eq!(stand_in.calls("cuLaunchKernel"), launches + 1, "one launch for all frames");
            assert!(are_of(&frames, &look(&mut worker, &mut batch).unwrap()), "round {round}");
        }
        assert!(stand_in.calls("cuMemFree") > freed, "tensors of canvases that were used long ago are freed");
        let photo = Frame::new(
            CameraId::parse("c").unwrap(),
            Timestamp::default(),
            PixelFormat::rgb8(Size { width: 2, height: 2 }),
            Arc::new(vec![0; 12]),
        );
        assert!(matches!(worker.upload(&photo.unwrap()), Err(CudaError::BadSurface { .. })));
        drop((worker, gpu));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn the_host_cannot_read_what_lies_on_the_device() {
    over_the_stand_in("flow::the_host_cannot_read_what_lies_on_the_device", &[], |stand_in| {
        let gpu = Gpu::open(0).unwrap();
        let decoder = Decoder::new(&gpu, stand_in, noise(9, (64, 48), PixelLayout::Nv12)).unwrap();
        let surface = decoder.decode();
        let file = tempfile::tempfile().unwrap();
        // SAFETY: the kernel reads by itself, and answers with an error where it cannot.
        let written = unsafe { libc::write(file.as_raw_fd(), surface.address() as *const libc::c_void, 64) };
        assert_eq!((written, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
        drop((surface, decoder, gpu));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}
