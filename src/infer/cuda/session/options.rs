//! What a provider is told, as keys and values, and for which shapes an engine is built. Pure.
//!
//! In: the device, the arithmetic, shapes, where engines are kept. Out: pairs that the runtime takes.
//! Drops nothing.
//! Must not know: sessions, streams.

use std::path::Path;

use super::choice::GpuPrecision;

/// The shapes of an input that an engine is built for: batch, planes, height, width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The least of each.
    pub min: [usize; 4],
    /// What it is made fastest for.
    pub best: [usize; 4],
    /// The most of each.
    pub max: [usize; 4],
}

/// The least side of a canvas: what the coarsest head of a detector sees as one cell.
const CANVAS_SIDE_MIN: usize = 32;

impl Profile {
    /// A detector's: any canvas up to `side`, in any batch up to `pictures`, and best for full batches of `usual` canvases
    /// (height, width).
    pub(super) fn of_detector(side: usize, usual: (usize, usize), pictures: usize) -> Self {
        let pictures = pictures.max(1);
        Self {
            min: [1, 3, CANVAS_SIDE_MIN.min(side), CANVAS_SIDE_MIN.min(side)],
            best: [pictures, 3, usual.0, usual.1],
            max: [pictures, 3, side, side],
        }
    }

    /// An encoder's: one size, any batch up to `faces`, and best for `usual` faces.
    pub(super) fn of_encoder(side: usize, usual: usize, faces: usize) -> Self {
        let of = |batch: usize| [batch, 3, side, side];
        Self { min: of(1), best: of(usual.clamp(1, faces)), max: of(faces) }
    }

    /// Whether an engine of this profile runs inputs of `shape`.
    pub(super) fn holds(&self, shape: [usize; 4]) -> bool {
        (0..4).all(|axis| (self.min[axis]..=self.max[axis]).contains(&shape[axis]))
    }

    /// Everything that an engine depends on, for its key.
    pub(super) fn words(&self) -> String {
        [self.min, self.best, self.max].map(sides).join(" ")
    }
}

/// `1x3x112x112`.
fn sides(shape: [usize; 4]) -> String {
    shape.map(|side| side.to_string()).join("x")
}

/// What providers are told.
pub(super) type Options = Vec<(&'static str, String)>;

/// What TensorRT is told. Its engine is built when the session is opened, since the shapes are stated.
pub(super) fn tensorrt((ordinal, precision): (u32, GpuPrecision), input: &str, profile: &Profile, cache: Option<&Path>) -> Options {
    let on = |is_on: bool| if is_on { "1" } else { "0" }.to_owned();
    let shapes = |shape: [usize; 4]| format!("{input}:{}", sides(shape));
    let mut options = vec![
        ("device_id", ordinal.to_string()),
        ("trt_fp16_enable", on(precision == GpuPrecision::Fp16)),
        ("trt_profile_min_shapes", shapes(profile.min)),
        ("trt_profile_opt_shapes", shapes(profile.best)),
        ("trt_profile_max_shapes", shapes(profile.max)),
        ("trt_engine_cache_enable", on(cache.is_some())),
        ("trt_timing_cache_enable", on(cache.is_some())),
    ];
    if let Some(cache) = cache {
        let cache = cache.display().to_string();
        options.extend([("trt_engine_cache_path", cache.clone()), ("trt_timing_cache_path", cache)]);
    }
    options
}

/// What the CUDA provider is told.
pub(super) fn cuda(ordinal: u32) -> Options {
    vec![
        ("device_id", ordinal.to_string()),
        // f32 is f32: templates of all devices are of one space.
        ("use_tf32", "0".to_owned()),
        // Trying out every algorithm of cuDNN would stall the first batch of each size.
        ("cudnn_conv_algo_search", "HEURISTIC".to_owned()),
        // Surfaces of decoders need the rest of the device's memory.
        ("arena_extend_strategy", "kSameAsRequested".to_owned()),
    ]
}
