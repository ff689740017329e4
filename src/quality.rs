//! How usable a face is: the one place, used at the door and at enrolment. Pure.
//!
//! In: a detection and its aligned crop. Out: [`Quality`], and what is most wrong with a face.
//! Drops nothing.
//! Must not know: frames, models, who asks.
//!
//! Each component is brought to a mark between 0 (useless) and 1 (as good as needed) by a straight
//! line between two measured values; the overall quality is the lowest mark. So it is monotone in
//! every component, and the lowest mark is the reason.

use crate::face::{ALIGNED_SIDE, AlignedFace, Detection, Landmarks, MEASURED_MARGIN as MARGIN, Moments, Photometry, Point, Quality};

/// Why a face should not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It has too few pixels.
    TooSmall,
    /// It has no edges.
    Blurred,
    /// It is underexposed.
    TooDark,
    /// It is overexposed.
    TooBright,
    /// It is flat.
    LowContrast,
    /// It looks elsewhere.
    TurnedAway,
    /// It hardly looks like a face to the detector.
    LowDetectionScore,
}

impl Fault {
    /// A stable name for the wire and the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooSmall => "too_small",
            Self::Blurred => "blurred",
            Self::TooDark => "too_dark",
            Self::TooBright => "too_bright",
            Self::LowContrast => "low_contrast",
            Self::TurnedAway => "turned_away",
            Self::LowDetectionScore => "low_detection_score",
        }
    }
}

/// Values of a component at which its mark is 0 and 1. Falling where `good` is below `useless`.
#[derive(Clone, Copy)]
struct Scale {
    useless: f32,
    good: f32,
}

impl Scale {
    fn mark(self, value: f32) -> f32 {
        let mark = (value - self.useless) / (self.good - self.useless);
        // A value that is no number marks nothing good.
        if mark.is_nan() { 0.0 } else { mark.clamp(0.0, 1.0) }
    }
}

// The scales, from 1,163 faces of LFW and 400 of AT&T (all but a handful mark 0.3 and above) and
// from 70 mated pairs of LFW with one face made worse; in brackets the share then rejected at 0.363.

/// Smaller side of the box, in pixels. (28 px: 3 %; 20 px: 6 %; 14 px: 20 %.)
const SIZE: Scale = Scale { useless: 14.0, good: 54.0 };
/// Variance of the Laplacian. Least of LFW: 20. (Gaussian blur of 2 px, median 9: 4 %; 3 px, 4.2:
/// 11 %; 4 px, 2.9: 36 %.)
const SHARPNESS: Scale = Scale { useless: 1.5, good: 20.0 };
/// Mean luma, from dark. Least of LFW: 0.21. (0.13: 1 %; 0.06: 3 %; 0.03: 26 %, without noise.)
const LIGHT: Scale = Scale { useless: 0.03, good: 0.2 };
/// Mean luma, from bright. Most of LFW: 0.78. (0.92: 13 %; 0.98: 33 %.)
const GLARE: Scale = Scale { useless: 0.96, good: 0.82 };
/// Standard deviation of luma. Least of LFW: 0.07. (0.04: 3 %; 0.02: 56 %.)
const CONTRAST: Scale = Scale { useless: 0.01, good: 0.07 };
/// Turn to the side, in degrees. Most of LFW: 62.
const YAW: Scale = Scale { useless: 75.0, good: 25.0 };
/// Nod, in degrees. Most of LFW: 27.
const PITCH: Scale = Scale { useless: 65.0, good: 30.0 };
/// Detection score.
const SCORE: Scale = Scale { useless: 0.4, good: 0.85 };

/// Measures the pixels of a crop.
pub fn photometry(face: &AlignedFace) -> Photometry {
    let luma = luma(face);
    let laplacian = (MARGIN..ALIGNED_SIDE - MARGIN).flat_map(|y| {
        (MARGIN..ALIGNED_SIDE - MARGIN).map({
            let luma = &luma;
            move |x| {
                let at = y * ALIGNED_SIDE + x;
                luma[at - 1] + luma[at + 1] + luma[at - ALIGNED_SIDE] + luma[at + ALIGNED_SIDE] - 4.0 * luma[at]
            }
        })
    });
    Photometry::of(&Moments::of(inner_rows(&luma).flatten().copied()), &Moments::of(laplacian))
}

/// Measures a face, whose pixels were measured.
pub fn assess(detection: &Detection, measured: &Photometry) -> Quality {
    let pose = pose(&detection.landmarks);
    let mut quality = Quality {
        overall: 0.0,
        size_pixels: size_of(detection),
        sharpness: measured.sharpness,
        brightness: measured.brightness,
        contrast: measured.contrast,
        yaw_degrees: pose.yaw,
        pitch_degrees: pose.pitch,
        roll_degrees: pose.roll,
        detection_score: detection.score,
    };
    quality.overall = worst(&quality).1;
    quality
}

/// What is most wrong with a face whose overall quality is below `overall_min` or that is useless
/// in some component; `None` when it is usable.
pub fn fault(quality: &Quality, overall_min: f32) -> Option<Fault> {
    let (fault, mark) = worst(quality);
    (mark <= 0.0 || mark < overall_min).then_some(fault)
}

/// What the box, the score and the landmarks alone promise of the overall quality, 0 to 1: never
/// less than the overall quality will be, and cheap enough for every frame.
pub fn promise(detection: &Detection) -> f32 {
    let pose = pose(&detection.landmarks);
    let marks = [SIZE.mark(size_of(detection)), YAW.mark(pose.yaw.abs()), PITCH.mark(pose.pitch.abs()), SCORE.mark(detection.score)];
    marks.into_iter().fold(1.0, f32::min)
}

/// The component with the lowest mark, and the mark. Of equal marks the first counts.
fn worst(quality: &Quality) -> (Fault, f32) {
    let turned = YAW.mark(quality.yaw_degrees.abs()).min(PITCH.mark(quality.pitch_degrees.abs()));
    let marks = [
        (Fault::TooSmall, SIZE.mark(quality.size_pixels)),
        (Fault::TooDark, LIGHT.mark(quality.brightness)),
        (Fault::TooBright, GLARE.mark(quality.brightness)),
        (Fault::LowContrast, CONTRAST.mark(quality.contrast)),
        (Fault::Blurred, SHARPNESS.mark(quality.sharpness)),
        (Fault::TurnedAway, turned),
        (Fault::LowDetectionScore, SCORE.mark(quality.detection_score)),
    ];
    marks.into_iter().fold((Fault::TooSmall, f32::INFINITY), |worst, mark| if mark.1 < worst.1 { mark } else { worst })
}

fn size_of(detection: &Detection) -> f32 {
    detection.box_in_frame.width.min(detection.box_in_frame.height)
}

/// Luma of each pixel of the crop, 0 to 255 (ITU-R BT.601).
fn luma(face: &AlignedFace) -> Vec<f32> {
    let (pixels, _) = face.rgb().as_chunks::<3>();
    pixels.iter().map(|p| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])).collect()
}

/// The rows of the measured part, each cut to it.
fn inner_rows(luma: &[f32]) -> impl Iterator<Item = &[f32]> {
    let rows = luma.chunks_exact(ALIGNED_SIDE).skip(MARGIN).take(ALIGNED_SIDE - 2 * MARGIN);
    rows.map(|row| &row[MARGIN..ALIGNED_SIDE - MARGIN])
}

/// Where a face looks, in degrees.
struct Pose {
    yaw: f32,
    pitch: f32,
    roll: f32,
}

/// How far apart the eyes are from the middle, over how far the nose's tip stands before them.
const HALF_EYES_OVER_NOSE: f32 = 1.2;
/// How far the mouth is below the eyes, over how far the nose's tip stands before them.
const EYES_TO_MOUTH_OVER_NOSE: f32 = 3.0;
/// Where the nose's tip of a frontal face is on the way from the eyes to the mouth: as in the
/// template that faces are aligned to.
const NOSE_FRONTAL: f32 = 0.495;

/// The pose from five landmarks, by a rigid head whose nose stands before the plane of eyes and
/// mouth: turned by θ, its tip moves by `tan θ` of its height against the foreshortened plane.
/// Roll is taken out first. Coarse (the proportions are an average face's), and enough to tell a
/// profile from a portrait. Landmarks that fall together look away.
fn pose(landmarks: &Landmarks) -> Pose {
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = landmarks.0;
    let middle = |a: Point, b: Point| ((a.x + b.x) / 2.0, (a.y + b.y) / 2.0);
    let (across_x, across_y) = (right_eye.x - left_eye.x, right_eye.y - left_eye.y);
    let (eyes, mouth) = (middle(left_eye, right_eye), middle(left_mouth, right_mouth));
    let length = across_x.hypot(across_y);
    // Upright coordinates: along the line of the eyes, and down from it.
    let upright = |x: f32, y: f32| ((x * across_x + y * across_y) / length, (y * across_x - x * across_y) / length);
    let (nose_across, nose_down) = upright(nose.x - eyes.0, nose.y - eyes.1);
    let (mouth_across, mouth_down) = upright(mouth.0 - eyes.0, mouth.1 - eyes.1);
    let nose_share = nose_down / mouth_down;
    // The middle of the face at the nose's height lies on the line from the eyes to the mouth.
    let aside = nose_across - mouth_across * nose_share;
    let degrees = |tangent: f32| if tangent.is_nan() { 90.0 } else { tangent.atan().to_degrees() };
    Pose {
        yaw: degrees(aside / (length / 2.0) * HALF_EYES_OVER_NOSE),
        pitch: degrees((nose_share - NOSE_FRONTAL) * EYES_TO_MOUTH_OVER_NOSE),
        roll: across_y.atan2(across_x).to_degrees(),
    }
}

#[cfg(test)]
mod tests;
