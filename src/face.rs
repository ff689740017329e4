//! Faces: where they are, how usable they are, and the vector that stands for them.
//!
//! In: numbers from the detector, the encoder and `quality`. Out: values.
//! Coordinates are pixels of the frame unless a name says otherwise; x grows to the right, y down.
//! Must not know: how any of it was computed.

use std::fmt;
use std::sync::Arc;

pub use doorward_kernels::crop::{ALIGNED_SIDE, Point};

/// An upright rectangle in pixels of the frame; it may reach beyond the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Extent to the right.
    pub width: f32,
    /// Extent downwards.
    pub height: f32,
}

impl Rect {
    /// The point in the middle.
    pub fn centre(&self) -> Point {
        Point { x: self.x + self.width / 2.0, y: self.y + self.height / 2.0 }
    }

    /// Width times height, zero for an empty rectangle.
    pub fn area(&self) -> f32 {
        self.width.max(0.0) * self.height.max(0.0)
    }

    /// Intersection over union (Jaccard index), 0 to 1.
    pub fn iou(&self, other: &Self) -> f32 {
        let width = (self.x + self.width).min(other.x + other.width) - self.x.max(other.x);
        let height = (self.y + self.height).min(other.y + other.height) - self.y.max(other.y);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let shared = width * height;
        shared / (self.area() + other.area() - shared)
    }
}

/// Five points of a face, as `YuNet` orders them, image-left first: eye, eye, nose, mouth corner,
/// mouth corner.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Landmarks(pub [Point; 5]);

/// A face in one frame, as the detector saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Detection {
    /// Where.
    pub box_in_frame: Rect,
    /// The detector's own number, 0 to 1. Not a probability.
    pub score: f32,
    /// Its eyes, nose and mouth corners.
    pub landmarks: Landmarks,
}

/// A face cut out and brought into the encoder's pose: 112×112 interleaved RGB bytes.
#[derive(Clone)]
pub struct AlignedFace {
    pixels: Box<[u8; ALIGNED_SIDE * ALIGNED_SIDE * 3]>,
}

impl AlignedFace {
    /// A face over its pixels, rows from the top.
    pub fn new(pixels: Box<[u8; ALIGNED_SIDE * ALIGNED_SIDE * 3]>) -> Self {
        Self { pixels }
    }

    /// The same face, seen in a mirror.
    pub fn mirrored(&self) -> Self {
        let mut pixels = self.pixels.clone();
        let rows = pixels.chunks_exact_mut(ALIGNED_SIDE * 3);
        rows.for_each(|row| row.as_chunks_mut::<3>().0.reverse());
        Self { pixels }
    }

    /// The pixels: R, G, B bytes, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.pixels[..]
    }
}

impl fmt::Debug for AlignedFace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AlignedFace(112x112)")
    }
}

/// Sums over the values of a picture or of a part of it, from which mean and deviation follow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// How many values there are.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub squares: f64,
}

impl Moments {
    /// Of all these values.
    pub fn of(values: impl Iterator<Item = f32>) -> Self {
        values.map(f64::from).fold(Self::default(), |all, value| Self {
            count: all.count + 1.0,
            sum: all.sum + value,
            squares: all.squares + value * value,
        })
    }

    /// The mean.
    pub fn mean(&self) -> f32 {
        (self.sum / self.count) as f32
    }

    /// The standard deviation.
    pub fn deviation(&self) -> f32 {
        let mean = self.sum / self.count;
        (self.squares / self.count - mean * mean).max(0.0).sqrt() as f32
    }
}

/// The part of an aligned crop that is measured begins so far from its edge: beyond it there is hair, background, and black
/// where the frame ends.
pub const MEASURED_MARGIN: usize = 16;

/// What the pixels of an aligned crop say of how usable a face is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Photometry {
    /// Variance of the four-neighbour Laplacian of luma (Pech-Pacheco et al., 2000).
    pub sharpness: f32,
    /// Mean luma, 0 to 1.
    pub brightness: f32,
    /// Standard deviation of luma, 0 to 1.
    pub contrast: f32,
}

impl Photometry {
    /// By the luma (0 to 255) of the measured part and its Laplacian.
    pub fn of(luma: &Moments, laplacian: &Moments) -> Self {
        Self { sharpness: laplacian.deviation().powi(2), brightness: luma.mean() / 255.0, contrast: luma.deviation() / 255.0 }
    }
}

/// How usable a face is, with its components; `quality` is the only place that makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// All components in one number, 0 (useless) to 1 (as good as needed).
    pub overall: f32,
    /// The smaller side of the face's box, in pixels.
    pub size_pixels: f32,
    /// Variance of the Laplacian of the aligned crop's luma (Pech-Pacheco et al., 2000).
    pub sharpness: f32,
    /// Mean luma of the aligned crop, 0 to 1.
    pub brightness: f32,
    /// Standard deviation of the aligned crop's luma, 0 to 1.
    pub contrast: f32,
    /// Turn to the side, in degrees, from the landmarks: 0 is frontal, positive towards the image's right.
    pub yaw_degrees: f32,
    /// Nod, in degrees, from the landmarks: 0 is frontal, positive looks down.
    pub pitch_degrees: f32,
    /// Tilt in the picture plane, in degrees, positive clockwise.
    pub roll_degrees: f32,
    /// The detector's score.
    pub detection_score: f32,
}

/// The space that templates can be compared in: the published encoder's hash, the version of
/// alignment and normalisation, and the projection head, if any. Never the provider, the
/// precision, the device or the rewritten graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplateSpace(Arc<str>);

impl TemplateSpace {
    /// The space named by `name`, as [`Display`](fmt::Display) prints it.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name, stable across restarts: it is stored beside every template.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A face as a unit vector in its template space.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    space: TemplateSpace,
    values: Arc<[f32]>,
}

/// A face that is looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Its template.
    pub template: Template,
    /// How good the picture was, overall, 0 to 1: poor ones have thresholds of their own.
    pub quality: f32,
}

/// Why a vector is no template, or two templates cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The encoder answered something that has no direction.
    #[error("the vector holds NaN or infinity, or is all zeros, and stands for no face")]
    NoDirection,
    /// Templates of two spaces say nothing about each other.
    #[error("templates of different spaces cannot be compared: {left} and {right}; enrol again with the model in use")]
    SpaceMismatch {
        /// One template's space.
        left: TemplateSpace,
        /// The other's.
        right: TemplateSpace,
    },
}

impl Template {
    /// L2-normalises `values` and binds them to `space`.
    ///
    /// # Errors
    /// [`TemplateError::NoDirection`] for NaN, infinity or a zero vector.
    pub fn normalised(space: TemplateSpace, values: &[f32]) -> Result<Self, TemplateError> {
        let norm = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        if !norm.is_finite() || norm < 1e-12 {
            return Err(TemplateError::NoDirection);
        }
        let values = values.iter().map(|v| (f64::from(*v) / norm) as f32).collect();
        Ok(Self { space, values })
    }

    /// The template over `values` as they were stored: bit for bit, so that a restart changes no
    /// similarity.
    ///
    /// # Errors
    /// [`TemplateError::NoDirection`] when they are no unit vector.
    pub fn from_stored(space: TemplateSpace, values: Vec<f32>) -> Result<Self, TemplateError> {
        let norm = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        if (norm - 1.0).abs() < 1e-3 { Ok(Self { space, values: values.into() }) } else { Err(TemplateError::NoDirection) }
    }

    /// What points between two templates of one space.
    ///
    /// # Errors
    /// [`TemplateError::SpaceMismatch`]; [`TemplateError::NoDirection`] for opposite ones.
    pub fn mean(&self, other: &Self) -> Result<Self, TemplateError> {
        if self.space != other.space || self.values.len() != other.values.len() {
            return Err(TemplateError::SpaceMismatch { left: self.space.clone(), right: other.space.clone() });
        }
        let sum: Vec<f32> = self.values.iter().zip(other.values.iter()).map(|(a, b)| a + b).collect();
        Self::normalised(self.space.clone(), &sum)
    }

    /// The space it lives in.
    pub fn space(&self) -> &TemplateSpace {
        &self.space
    }

    /// The unit vector.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Cosine similarity, -1 to 1.
    ///
    /// # Errors
    /// [`TemplateError::SpaceMismatch`] when the spaces differ.
    pub fn similarity(&self, other: &Self) -> Result<f32, TemplateError> {
        if self.space != other.space || self.values.len() != other.values.len() {
            return Err(TemplateError::SpaceMismatch { left: self.space.clone(), right: other.space.clone() });
        }
        Ok(dot(&self.values, &other.values))
    }
}

/// Lanes of the one summation order that every similarity in doorward is computed in: as many as it
/// takes for the widest vectors to add without waiting for each other.
pub const LANES: usize = 64;

/// The dot product of two vectors of one length, always summed in the same order: [`LANES`] lanes
/// over the elements, then the lanes pairwise. So the same pair gives the same bits everywhere.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (lane, (x, y)) in a_chunks.remainder().iter().zip(b_chunks.remainder()).enumerate() {
        lanes[lane] = x * y;
    }
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_a_unit_vector() {
        let template = Template::normalised(TemplateSpace::new("s"), &[3.0, 4.0]).expect("it has a direction");
        assert_eq!(template.values(), [0.6, 0.8]);
        for bad in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            assert_eq!(Template::normalised(TemplateSpace::new("s"), &bad), Err(TemplateError::NoDirection));
        }
    }

    #[test]
    fn a_mirror_turns_left_and_right_and_twice_gives_the_face_again() {
        let pixels: Vec<u8> = (0..ALIGNED_SIDE * ALIGNED_SIDE * 3).map(|i| (i * 7 % 251) as u8).collect();
        let face = AlignedFace::new(pixels.try_into().expect("as many as it takes"));
        let mirrored = face.mirrored();
        let pixel = |face: &AlignedFace, x: usize, y: usize| face.rgb()[(y * ALIGNED_SIDE + x) * 3..][..3].to_vec();
        assert_eq!(pixel(&mirrored, 0, 5), pixel(&face, ALIGNED_SIDE - 1, 5));
        assert_eq!(mirrored.mirrored().rgb(), face.rgb());
    }

    #[test]
    fn templates_of_two_spaces_are_never_compared() {
        let of = |space: &str| Template::normalised(TemplateSpace::new(space), &[1.0, 0.0]).expect("it has a direction");
        assert_eq!(of("a").similarity(&of("a")), Ok(1.0));
        assert!(matches!(of("a").similarity(&of("b")), Err(TemplateError::SpaceMismatch { .. })));
    }

    #[test]
    fn the_overlap_of_boxes_is_intersection_over_union() {
        let a = Rect { x: 0.0, y: 0.0, width: 2.0, height: 2.0 };
        let b = Rect { x: 1.0, y: 0.0, width: 2.0, height: 2.0 };
        assert!((a.iou(&b) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(a.iou(&Rect { x: 5.0, ..b }), 0.0);
    }
}
