//! What the kernels are told, as it lies in device memory.
//!
//! In: surfaces, placements, crops, a model's input. Out: bytes that kernels.cu reads.
//! Drops nothing. The tables of taps are made by the host path's own code, so both sample alike.
//! Must not know: streams, memory, who reads the bytes.

use doorward_kernels::colour::ToRgb;
use doorward_kernels::crop::Crop;
use doorward_kernels::taps::{Sampling, Taps, WEIGHT_SUM};

use super::Surface;
use crate::face::{ALIGNED_SIDE, MEASURED_MARGIN, Moments, Photometry};
use crate::frame::Size;
use crate::infer::host::Placement;
use crate::models::{Colour, InputEntry};

/// A value without padding that the kernels read as it lies.
///
/// # Safety
/// Every byte of the value must be initialised: `repr(C)`, no padding.
unsafe trait Plain: Copy {}

/// `ToRgb` of kernels.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ColourLayout {
    luma_zero: f32,
    luma_gain: f32,
    red_of_v: f32,
    green_of_u: f32,
    green_of_v: f32,
    blue_of_u: f32,
}

impl ColourLayout {
    /// The coefficients, read off the one conversion that there is.
    fn of(colour: &ToRgb) -> Self {
        let luma_zero = f32::from(colour.luma_of_black());
        let mut luma_gain = [luma_zero + 1.0];
        colour.stretch(&mut luma_gain);
        let [_, green_of_u, blue_of_u] = colour.shift(129.0, 128.0);
        let [red_of_v, green_of_v, _] = colour.shift(128.0, 129.0);
        Self { luma_zero, luma_gain: luma_gain[0], red_of_v, green_of_u, green_of_v, blue_of_u }
    }
}

/// `Surface` of kernels.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct SurfaceLayout {
    luma: u64,
    chroma: u64,
    luma_stride: i32,
    chroma_stride: i32,
    width: i32,
    height: i32,
    colour: ColourLayout,
}

impl SurfaceLayout {
    fn of(surface: &Surface) -> Self {
        let (format, address) = (surface.format(), surface.address());
        let [luma, chroma, _] = format.planes;
        Self {
            luma: address + luma.offset as u64,
            chroma: address + chroma.offset as u64,
            // `Surface::new` refuses what does not fit in 31 bits.
            luma_stride: luma.stride as i32,
            chroma_stride: chroma.stride as i32,
            width: format.size.width as i32,
            height: format.size.height as i32,
            colour: ColourLayout::of(&ToRgb::new(format.matrix, format.range)),
        }
    }
}

/// `Tensor` of kernels.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorLayout {
    values: u64,
    width: i32,
    height: i32,
    first_component: i32,
    scale: f32,
    mean: [f32; 3],
    unused: i32,
}

impl TensorLayout {
    /// Crops of bytes as they are, in red, green and blue.
    pub(super) fn of_bytes(address: u64, size: Size) -> Self {
        let (width, height) = (size.width as i32, size.height as i32);
        Self { values: address, width, height, first_component: 0, scale: 1.0, mean: [0.0; 3], unused: 0 }
    }

    /// A tensor at `address` whose planes have `size`, as `input` wants its values.
    pub(super) fn new(address: u64, size: Size, input: &InputEntry) -> Self {
        Self {
            values: address,
            width: size.width as i32,
            height: size.height as i32,
            first_component: if input.colour == Colour::Rgb { 0 } else { 2 },
            scale: input.scale,
            mean: input.mean,
            unused: 0,
        }
    }
}

/// The rows of a crop that are measured, and the sums of each: of luma, of its square, of the Laplacian, of its square.
pub(super) const MEASURED_SIDE: usize = ALIGNED_SIDE - 2 * MEASURED_MARGIN;
const SUMS: usize = 4;
/// How many bytes the sums of one face take.
pub(super) const SUMS_BYTES: usize = MEASURED_SIDE * SUMS * size_of::<f64>();

/// What the sums of one face's rows say, added up in the order of the rows.
pub(super) fn photometry(bytes: &[u8]) -> Photometry {
    let (mut luma, mut laplacian) = (Moments::default(), Moments::default());
    for row in bytes.as_chunks::<{ SUMS * size_of::<f64>() }>().0 {
        let sum = |place: usize| row[place * 8..].first_chunk().map_or(0.0, |bytes| f64::from_ne_bytes(*bytes));
        for (moments, first) in [(&mut luma, 0), (&mut laplacian, 2)] {
            moments.count += MEASURED_SIDE as f64;
            moments.sum += sum(first);
            moments.squares += sum(first + 1);
        }
    }
    Photometry::of(&luma, &laplacian)
}

/// `Tap` of kernels.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct TapLayout {
    index: u16,
    weight: u16,
}

/// `Taps` of kernels.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct TapsLayout {
    /// Counted from the first byte of the parameters, until their address is known.
    first: u64,
    count: i32,
    is_mean: i32,
    unit: f32,
    unused: i32,
}

/// `Letterbox` of kernels.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct LetterboxLayout {
    surface: SurfaceLayout,
    canvas: TensorLayout,
    x: i32,
    y: i32,
    width: i32,
    height: i32,
    content_width: i32,
    content_height: i32,
    columns: [TapsLayout; 2],
    rows: [TapsLayout; 2],
}

/// `Face` of kernels.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct FaceLayout {
    surface: SurfaceLayout,
    a: [f32; 2],
    b: [f32; 2],
    per_axis: i32,
    unit: f32,
    is_mirrored: i32,
    unused: i32,
}

// SAFETY: `repr(C)` without padding: the sizes below are the sums of the fields'.
unsafe impl Plain for LetterboxLayout {}
// SAFETY: as above.
unsafe impl Plain for FaceLayout {}
// SAFETY: as above.
unsafe impl Plain for TapLayout {}

const _: () = assert!(size_of::<SurfaceLayout>() == 56 && size_of::<TensorLayout>() == 40 && size_of::<TapLayout>() == 4);
const _: () = assert!(size_of::<TapsLayout>() == 24 && size_of::<LetterboxLayout>() == 216 && size_of::<FaceLayout>() == 88);

/// How far two faces' parameters are apart, in bytes.
pub(super) const FACE_BYTES: usize = size_of::<FaceLayout>();

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain values have no uninitialised byte, and the slice covers just them.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// A table that was made already: its lengths and where it lies.
struct Table {
    lengths: (usize, usize),
    layout: TapsLayout,
}

/// The parameters of one batch. Nothing is allocated once it has grown.
#[derive(Default)]
pub(super) struct Parameters {
    letterboxes: Vec<LetterboxLayout>,
    tables: Vec<Table>,
    taps: Vec<TapLayout>,
    scratch: Taps,
    bytes: Vec<u8>,
}

impl Parameters {
    /// Lays out how each frame is letterboxed, and into which planes. Frames of one geometry share their tables.
    pub(super) fn letterboxes<'a>(&mut self, frames: impl Iterator<Item = (&'a Surface, &'a Placement, TensorLayout)>) {
        self.letterboxes.clear();
        self.tables.clear();
        self.taps.clear();
        for (surface, placement, canvas) in frames {
            let half = |length: u32| length.div_ceil(2) as usize;
            let (region, content) = (placement.region, placement.content);
            let columns = [self.table(region.width as usize, content.width as usize), self.table(half(region.width), half(content.width))];
            let rows = [self.table(region.height as usize, content.height as usize), self.table(half(region.height), half(content.height))];
            self.letterboxes.push(LetterboxLayout {
                surface: SurfaceLayout::of(surface),
                canvas,
                x: placement.origin.0 as i32,
                y: placement.origin.1 as i32,
                width: region.width as i32,
                height: region.height as i32,
                content_width: content.width as i32,
                content_height: content.height as i32,
                columns,
                rows,
            });
        }
    }

    /// Where the taps of a line of `from` samples that becomes `to` long will lie.
    fn table(&mut self, from: usize, to: usize) -> TapsLayout {
        if let Some(table) = self.tables.iter().find(|table| table.lengths == (from, to)) {
            return table.layout;
        }
        self.scratch.refill(from, to, Sampling::Video);
        let (count, is_mean) = (self.scratch.count, self.scratch.is_mean);
        let one = f32::from(WEIGHT_SUM);
        let layout = TapsLayout {
            first: size_of_val(&self.taps[..]) as u64,
            count: count as i32,
            is_mean: i32::from(is_mean),
            unit: if is_mean { 1.0 / (one * count as f32) } else { 1.0 / (one * one) },
            unused: 0,
        };
        let pairs = self.scratch.index.iter().zip(&self.scratch.weight);
        self.taps.extend(pairs.map(|(index, weight)| TapLayout { index: *index as u16, weight: *weight }));
        self.tables.push(Table { lengths: (from, to), layout });
        layout
    }

    /// How many bytes the letterboxes and their tables take.
    pub(super) fn letterbox_bytes(&self) -> usize {
        size_of_val(&self.letterboxes[..]) + size_of_val(&self.taps[..])
    }

    /// The letterboxes and behind them their tables, for memory that begins at `address`.
    pub(super) fn letterboxes_at(&mut self, address: u64) -> &[u8] {
        let tables_at = address + size_of_val(&self.letterboxes[..]) as u64;
        self.bytes.clear();
        for letterbox in &self.letterboxes {
            let placed = |taps: TapsLayout| TapsLayout { first: taps.first + tables_at, ..taps };
            let (columns, rows) = (letterbox.columns.map(placed), letterbox.rows.map(placed));
            self.bytes.extend_from_slice(bytes_of(&[LetterboxLayout { columns, rows, ..*letterbox }]));
        }
        self.bytes.extend_from_slice(bytes_of(&self.taps));
        &self.bytes
    }

    /// How each face is cut out, and whether it is seen in a mirror.
    pub(super) fn faces<'a>(&mut self, faces: impl Iterator<Item = (&'a Surface, Crop, bool)>) -> &[u8] {
        self.bytes.clear();
        for (surface, Crop { to_frame, per_axis, unit }, is_mirrored) in faces {
            let face = FaceLayout {
                surface: SurfaceLayout::of(surface),
                a: to_frame.a.into(),
                b: to_frame.b.into(),
                per_axis: per_axis as i32,
                unit,
                is_mirrored: i32::from(is_mirrored),
                unused: 0,
            };
            self.bytes.extend_from_slice(bytes_of(&[face]));
        }
        &self.bytes
    }
}
