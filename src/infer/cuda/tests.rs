//! Holds the kernels, compiled as C++, to the host's path, value by value.
//!
//! In: random frames of every shape that is hard. Out: the greatest difference, which is none.
//! Prints what is left out where there is no C++ compiler.
//! Must not know: models, drivers.

mod device;

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use doorward_kernels::crop::{Crop, TEMPLATE};
use libloading::Library;

use super::layout::{Parameters, TensorLayout};
use super::*;
use crate::camera::NormalisedRect;
use crate::clock::Timestamp;
use crate::face::{ALIGNED_SIDE, Landmarks, Point};
use crate::frame::{CameraId, ColourMatrix, ColourRange, DevicePixels, Frame, PixelLayout, Plane, Size};
use crate::infer::align::align;
use crate::infer::host::{CanvasShape, Letterbox, Placement, Target, fill_face};
use crate::models::{Colour, InputEntry, Manifest};

/// How far a value of a tensor may be from the host's, in levels of a byte: the kernels are made to
/// agree to the bit.
const DIFFERENCE_MAX: f32 = 0.0;

// SAFETY: the type that kernels.cpp states; the call says what its arguments have to be.
type RunKernel = unsafe extern "C" fn(*const c_char, *const c_uint, *const c_uint, *mut *mut c_void) -> c_int;

/// The kernels as a C++ compiler makes them, or nothing where there is none.
fn kernels(left_out: &str) -> Option<&'static Library> {
    static KERNELS: OnceLock<Option<Library>> = OnceLock::new();
    let library = KERNELS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, library) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/kernels.cpp"), folder.path().join("kernels.so"));
        // Fused multiply-adds are off, as NVRTC has them off.
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fPIC", "-shared", "-o"]);
        let status = compiler.arg(&library).arg(source).status().ok()?;
        assert!(status.success(), "the kernels are C++");
        // SAFETY: the library was made just now; loading it runs nothing.
        Some(unsafe { Library::new(library) }.expect("it loads"))
    });
    if library.is_none() {
        println!("LEFT OUT: {left_out}: there is no c++ (Debian package g++)");
    }
    library.as_ref()
}

/// Runs a kernel over `grid` blocks of 16 by 16 threads.
fn run(library: &Library, name: &std::ffi::CStr, (grid, parameters): ([c_uint; 3], &mut [*mut c_void])) {
    // SAFETY: the function has this type (tests/cuda/kernels.cpp).
    let run = unsafe { library.get::<RunKernel>(b"doorward_run_kernel") }.expect("it is there");
    // SAFETY: the parameters are those of the kernel, and every address in them is alive.
    let status = unsafe { run(name.as_ptr(), grid.as_ptr(), [16, 16, 1].as_ptr(), parameters.as_mut_ptr()) };
    assert_eq!(status, 0, "{name:?} is a kernel");
}

/// The host's memory, standing for a device's.
struct HostMemory(Arc<Vec<u8>>);

impl DevicePixels for HostMemory {
    fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn to_host(&self) -> Result<Vec<u8>, String> {
        Ok(self.0.to_vec())
    }
}

/// A picture of noise, as the host and as the kernels see it.
struct Noise {
    frame: Frame,
    surface: Surface,
}

impl Noise {
    fn new(random: &mut fastrand::Rng, size: Size) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        let (pairs, half_height) = (width.div_ceil(2) * 2, height.div_ceil(2));
        let mut padding = || if random.bool() { 0 } else { random.usize(1..70) };
        let (before, luma_stride, between, chroma_stride) = (padding(), width + padding(), padding(), pairs + padding());
        let chroma = before + luma_stride * height + between;
        let mut bytes = vec![0_u8; chroma + chroma_stride * half_height];
        random.fill(&mut bytes);
        let format = PixelFormat {
            size,
            layout: PixelLayout::Nv12,
            matrix: if random.bool() { ColourMatrix::Bt601 } else { ColourMatrix::Bt709 },
            range: if random.bool() { ColourRange::Limited } else { ColourRange::Full },
            planes: [Plane { offset: before, stride: luma_stride }, Plane { offset: chroma, stride: chroma_stride }, Plane::default()],
        };
        let bytes = Arc::new(bytes);
        let camera = CameraId::parse("c").expect("a good id");
        let frame = Frame::new(camera, Timestamp::default(), format, bytes.clone()).expect("it fits");
        Self { frame, surface: Surface::new(format, Arc::new(HostMemory(bytes))).expect("it fits") }
    }
}

fn inputs() -> [InputEntry; 2] {
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    let plain = manifest.detector.model.input;
    let mut other = plain.clone();
    (other.colour, other.mean, other.scale) = (Colour::Rgb, [127.5, 120.25, 3.0], 1.0 / 128.0);
    [plain, other]
}

/// The greatest difference of two tensors, in levels of a byte.
fn greatest_difference(found: &[f32], expected: &[f32], input: &InputEntry) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs.map(|(found, expected)| if found.is_nan() { f32::INFINITY } else { (found - expected).abs() / input.scale }).fold(0.0, f32::max)
}

/// Letterboxes all frames at once by the kernel and one by one by the host.
fn letterbox_difference(library: &Library, frames: &[(Noise, Placement)], input: &InputEntry) -> f32 {
    let values = |canvas: Size| 3 * (canvas.width * canvas.height) as usize;
    // What an earlier picture left behind must not be seen, nor may a picture reach beyond its own.
    let mut tensors: Vec<Vec<f32>> = frames.iter().map(|(_, placement)| vec![77.0; values(placement.canvas)]).collect();
    let mut parameters = Parameters::default();
    let own = frames.iter().zip(&mut tensors).map(|((noise, placement), tensor)| {
        (&noise.surface, placement, TensorLayout::new(tensor.as_mut_ptr() as u64, placement.canvas, input))
    });
    parameters.letterboxes(own);
    // Eight bytes at a time, so that it is aligned as device memory is.
    let mut memory = vec![0_u64; parameters.letterbox_bytes().div_ceil(8)];
    let mut address = memory.as_mut_ptr() as u64;
    let bytes = parameters.letterboxes_at(address);
    for (place, chunk) in memory.iter_mut().zip(bytes.chunks(8)) {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        *place = u64::from_ne_bytes(eight);
    }
    let largest = |side: fn(Size) -> u32| frames.iter().map(|(_, placement)| side(placement.canvas)).max().unwrap_or(0);
    let grid = [largest(|canvas| canvas.width).div_ceil(32), largest(|canvas| canvas.height).div_ceil(32), frames.len() as u32];
    run(library, c"letterbox_nv12", (grid, &mut [(&raw mut address).cast()]));
    let differences = tensors.iter().zip(frames).map(|(found, (noise, placement))| {
        let mut expected = vec![55.0_f32; values(placement.canvas)];
        Letterbox::default().fill_tensor(&noise.frame, placement, &mut Target { input, values: &mut expected });
        greatest_difference(found, &expected, input)
    });
    differences.fold(0.0, f32::max)
}

#[test]
fn the_kernel_letterboxes_as_the_host_does() {
    let Some(library) = kernels("the letterbox kernel against the host") else { return };
    let mut random = fastrand::Rng::with_seed(11);
    let sizes =
        [(1, 1), (1, 2), (2, 1), (3, 5), (64, 36), (99, 77), (129, 65), (200, 112), (333, 201), (640, 360), (1281, 719), (1920, 1080)];
    let regions = [
        None,
        Some(NormalisedRect { x: 0.1, y: 0.2, width: 0.7, height: 0.6 }),
        Some(NormalisedRect { x: 0.37, y: 0.55, width: 0.63, height: 0.45 }),
        Some(NormalisedRect { x: 0.99, y: 0.99, width: 0.01, height: 0.01 }),
    ];
    let (mut greatest, mut frames) = (0.0_f32, 0);
    for (width, height) in sizes {
        for region in regions {
            // Upscaled, copied and downscaled, by whole and by broken factors.
            for side in [32, 64, 160, 224, 640] {
                let size = Size { width, height };
                let placement = Placement::new(size, region, side, CanvasShape::Fitted);
                let batch: Vec<_> = (0..random.usize(1..4)).map(|_| (Noise::new(&mut random, size), placement)).collect();
                let input = &inputs()[random.usize(0..2)];
                let difference = letterbox_difference(library, &batch, input);
                assert!(difference <= DIFFERENCE_MAX, "{width}x{height} {region:?} on {side}: {difference} levels");
                (greatest, frames) = (greatest.max(difference), frames + batch.len());
            }
        }
    }
    println!("letterbox: {frames} frames, greatest difference {greatest} levels");
}

#[test]
fn frames_of_several_canvases_go_in_one_launch() {
    let Some(library) = kernels("the letterbox kernel on several canvases") else { return };
    let mut random = fastrand::Rng::with_seed(16);
    let frames = [((1920, 1080), 640), ((1080, 1920), 640), ((99, 77), 160), ((640, 480), 320), ((333, 201), 32)];
    let batch = frames.map(|((width, height), side)| {
        let size = Size { width, height };
        (Noise::new(&mut random, size), Placement::new(size, None, side, CanvasShape::Fitted))
    });
    let canvases: std::collections::HashSet<_> =
        batch.iter().map(|(_, placement)| (placement.canvas.width, placement.canvas.height)).collect();
    assert_eq!(canvases.len(), 5, "each has its own");
    for input in inputs() {
        assert!(letterbox_difference(library, &batch, &input) <= DIFFERENCE_MAX);
    }
}

#[test]
fn frames_of_several_shapes_share_a_canvas() {
    let Some(library) = kernels("the letterbox kernel on mixed shapes") else { return };
    let mut random = fastrand::Rng::with_seed(12);
    let sizes = [(1920, 1080), (1920, 1088), (640, 360), (333, 190), (704, 420)];
    let batch: Vec<_> = sizes
        .map(|(width, height)| {
            let size = Size { width, height };
            (Noise::new(&mut random, size), Placement::new(size, None, 320, CanvasShape::Fitted))
        })
        .into();
    assert!(batch.iter().all(|(_, placement)| placement.canvas == Size { width: 320, height: 192 }));
    assert!(letterbox_difference(library, &batch, &inputs()[0]) <= DIFFERENCE_MAX);
}

/// The landmarks of a face that lies in the frame as the template lies in the crop.
fn placed(scale: f32, angle: f32, shift: (f32, f32)) -> Landmarks {
    let (sine, cosine) = angle.sin_cos();
    Landmarks(
        TEMPLATE.map(|p| Point { x: scale * (cosine * p.x - sine * p.y) + shift.0, y: scale * (sine * p.x + cosine * p.y) + shift.1 }),
    )
}

/// Aligns all faces at once by the kernel and one by one by the host.
fn align_difference(library: &Library, faces: &[(&Noise, Landmarks, bool)], input: &InputEntry) -> f32 {
    const VALUES: usize = 3 * ALIGNED_SIDE * ALIGNED_SIDE;
    let mut tensor = vec![77.0_f32; VALUES * faces.len()];
    let mut parameters = Parameters::default();
    let bytes =
        parameters.faces(faces.iter().map(|(noise, landmarks, is_mirrored)| (&noise.surface, Crop::of(&landmarks.0), *is_mirrored)));
    let memory: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|eight| u64::from_ne_bytes(*eight)).collect();
    let mut address = memory.as_ptr() as u64;
    let size = Size { width: ALIGNED_SIDE as u32, height: ALIGNED_SIDE as u32 };
    let mut layout = TensorLayout::new(tensor.as_mut_ptr() as u64, size, input);
    run(library, c"align_nv12", ([7, 7, faces.len() as u32], &mut [(&raw mut address).cast(), (&raw mut layout).cast()]));
    let mut expected = vec![55.0_f32; VALUES];
    let differences = tensor.chunks(VALUES).zip(faces).map(|(found, (noise, landmarks, is_mirrored))| {
        let face = align(&noise.frame, landmarks);
        let face = if *is_mirrored { face.mirrored() } else { face };
        fill_face(&face, &mut Target { input, values: &mut expected });
        greatest_difference(found, &expected, input)
    });
    differences.fold(0.0, f32::max)
}

#[test]
fn the_kernel_aligns_as_the_host_does() {
    let Some(library) = kernels("the alignment kernel against the host") else { return };
    let mut random = fastrand::Rng::with_seed(13);
    let (mut greatest, mut faces) = (0.0_f32, 0);
    for (width, height) in [(1, 1), (1, 7), (6, 1), (33, 21), (160, 120), (641, 361), (1920, 1080)] {
        let pictures = [0; 3].map(|_| Noise::new(&mut random, Size { width, height }));
        for input in &inputs() {
            // Small, large, turned by any angle, inside, over the edge and wholly outside.
            let batch: Vec<_> = (0..14)
                .map(|face| {
                    let scale = [0.05, 0.3, 1.0, 1.9, 2.1, 4.0, 9.0][face % 7];
                    let shift =
                        |side: u32, random: &mut fastrand::Rng| (random.f32() * 1.6 - 0.5) * side as f32 - 56.0 * scale * random.f32();
                    let shift = (shift(width, &mut random), shift(height, &mut random));
                    (&pictures[random.usize(0..3)], placed(scale, random.f32() * 6.3, shift), random.bool())
                })
                .collect();
            let difference = align_difference(library, &batch, input);
            assert!(difference <= DIFFERENCE_MAX, "{width}x{height}: {difference} levels");
            (greatest, faces) = (greatest.max(difference), faces + batch.len());
        }
    }
    // As many samples a pixel as there can be, and more than that would want.
    let picture = Noise::new(&mut random, Size { width: 1920, height: 1080 });
    let huge = [placed(15.9, 0.4, (300.0, -200.0)), placed(70.0, 1.0, (900.0, -3_000.0))].map(|landmarks| (&picture, landmarks, false));
    greatest = greatest.max(align_difference(library, &huge, &inputs()[0]));
    assert!(greatest <= DIFFERENCE_MAX, "huge faces: {greatest} levels");
    println!("alignment: {} faces, greatest difference {greatest} levels", faces + huge.len());
}

#[test]
fn landmarks_that_are_no_numbers_are_black_on_both() {
    let Some(library) = kernels("the alignment kernel on what is no number") else { return };
    let picture = Noise::new(&mut fastrand::Rng::with_seed(14), Size { width: 64, height: 48 });
    for bad in [f32::NAN, f32::INFINITY, 0.0, 1e30] {
        let landmarks = Landmarks([Point { x: bad, y: bad }; 5]);
        assert!(align_difference(library, &[(&picture, landmarks, false)], &inputs()[0]) <= DIFFERENCE_MAX, "{bad}");
    }
}

#[test]
fn a_surface_that_the_kernels_would_read_beyond_is_refused() {
    let size = Size { width: 64, height: 48 };
    let plane = |offset, stride| Plane { offset, stride };
    let format = PixelFormat {
        size,
        layout: PixelLayout::Nv12,
        matrix: ColourMatrix::Bt709,
        range: ColourRange::Limited,
        planes: [plane(0, 64), plane(64 * 48, 64), Plane::default()],
    };
    let refusal = |format: PixelFormat, bytes: usize| {
        let pixels = Arc::new(HostMemory(Arc::new(vec![0; bytes])));
        Surface::new(format, pixels).err().map(|error| error.to_string())
    };
    assert_eq!(refusal(format, 64 * 72), None);
    assert!(refusal(format, 64 * 72 - 1).is_some_and(|words| words.contains("beyond the memory")));
    assert!(refusal(PixelFormat { layout: PixelLayout::I420, ..format }, 64 * 72).is_some_and(|words| words.contains("NV12")));
    assert!(refusal(PixelFormat { planes: [plane(0, 63), plane(64 * 48, 64), Plane::default()], ..format }, 64 * 72).is_some());
    let wide = PixelFormat { size: Size { width: 70_000, height: 2 }, planes: [plane(0, 70_000); 3], ..format };
    assert!(refusal(wide, 1 << 20).is_some_and(|words| words.contains("65,535")));
}
