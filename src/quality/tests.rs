//! Tests of the marks, each on a good face made worse in one way.
//!
//! In: crops made here. Out: nothing.
//! Must not know: models.

use proptest::prelude::*;

use super::*;
use crate::face::Rect;

const FRONTAL: [(f32, f32); 5] = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)];

fn landmarks(of: impl Fn(f32, f32) -> (f32, f32)) -> Landmarks {
    Landmarks(FRONTAL.map(|(x, y)| of(x, y)).map(|(x, y)| Point { x, y }))
}

fn detection(side: f32, score: f32) -> Detection {
    Detection { box_in_frame: Rect { x: 0.0, y: 0.0, width: side, height: side * 1.3 }, score, landmarks: landmarks(|x, y| (x, y)) }
}

/// Something with edges and a middling light, changed pixel by pixel.
fn crop(change: impl Fn(f32) -> f32) -> AlignedFace {
    let mut pixels = Box::new([0; ALIGNED_SIDE * ALIGNED_SIDE * 3]);
    for (at, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (x, y) = ((at % ALIGNED_SIDE) as f32, (at / ALIGNED_SIDE) as f32);
        let wave = 128.0 + 60.0 * (x / 3.0).sin() * (y / 4.0).cos();
        *pixel = [change(wave).round() as u8; 3];
    }
    AlignedFace::new(pixels)
}

fn fault_of(detection: &Detection, face: &AlignedFace) -> Option<Fault> {
    fault(&assess(detection, &photometry(face)), 0.3)
}

#[test]
fn a_good_face_is_usable() {
    let quality = assess(&detection(90.0, 0.92), &photometry(&crop(|v| v)));
    assert_eq!(fault(&quality, 0.3), None);
    assert!(quality.overall > 0.95, "{quality:?}");
    assert!(quality.yaw_degrees.abs() < 5.0 && quality.pitch_degrees.abs() < 5.0 && quality.roll_degrees.abs() < 1.0, "{quality:?}");
}

#[test]
fn each_way_of_being_bad_has_its_fault() {
    let (good, sharp) = (detection(90.0, 0.92), crop(|v| v));
    assert_eq!(fault_of(&detection(20.0, 0.92), &sharp), Some(Fault::TooSmall));
    assert_eq!(fault_of(&detection(90.0, 0.45), &sharp), Some(Fault::LowDetectionScore));
    assert_eq!(fault_of(&good, &crop(|v| 5.0 + (v - 128.0) / 20.0)), Some(Fault::TooDark));
    assert_eq!(fault_of(&good, &crop(|v| (v + 118.0).min(255.0))), Some(Fault::TooBright));
    assert_eq!(fault_of(&good, &crop(|v| 128.0 + (v - 128.0) / 20.0)), Some(Fault::LowContrast));
    // A slow wave: light and contrast without edges.
    let mut pixels = Box::new([0; ALIGNED_SIDE * ALIGNED_SIDE * 3]);
    pixels.iter_mut().enumerate().for_each(|(at, byte)| *byte = 60 + (at / 3 % ALIGNED_SIDE) as u8);
    assert_eq!(fault_of(&good, &AlignedFace::new(pixels)), Some(Fault::Blurred));
    let turned =
        |shift: f32| Detection { landmarks: landmarks(|x, y| if (60.0..80.0).contains(&y) { (x + shift, y) } else { (x, y) }), ..good };
    assert_eq!(fault_of(&turned(30.0), &sharp), Some(Fault::TurnedAway));
    assert_eq!(fault_of(&turned(-30.0), &sharp), Some(Fault::TurnedAway));
    assert_eq!(fault_of(&turned(5.0), &sharp), None);
}

#[test]
fn the_pose_has_its_signs() {
    let at = |of: &dyn Fn(f32, f32) -> (f32, f32)| pose(&landmarks(of));
    let nose = |y: f32| (60.0..80.0).contains(&y);
    assert!(at(&|x, y| (x + if nose(y) { 8.0 } else { 0.0 }, y)).yaw > 15.0, "the nose to the right");
    assert!(at(&|x, y| (x, y + if nose(y) { 6.0 } else { 0.0 })).pitch > 15.0, "the nose towards the mouth");
    // Turned clockwise in the picture, where y grows downwards.
    let (sine, cosine) = 20.0_f32.to_radians().sin_cos();
    let rolled = at(&|x, y| (cosine * x - sine * y, sine * x + cosine * y));
    assert!((rolled.roll - 20.0).abs() < 1.0 && rolled.yaw.abs() < 5.0 && rolled.pitch.abs() < 5.0, "{}", rolled.roll);
    assert!(pose(&Landmarks::default()).yaw >= 90.0, "landmarks that fall together look away");
}

proptest! {
    #[test]
    fn the_overall_quality_is_a_fraction_and_never_more_than_was_promised(
        (width, height, score) in (0.0_f32..300.0, 0.0_f32..300.0, 0.0_f32..1.0),
        points in prop::array::uniform5((-50.0_f32..300.0, -50.0_f32..300.0)),
        gain in 0.0_f32..1.0,
    ) {
        let box_in_frame = Rect { x: 0.0, y: 0.0, width, height };
        let detection = Detection { box_in_frame, score, landmarks: Landmarks(points.map(|(x, y)| Point { x, y })) };
        let quality = assess(&detection, &photometry(&crop(|v| v * gain)));
        prop_assert!((0.0..=1.0).contains(&quality.overall));
        prop_assert!(quality.overall <= promise(&detection));
    }

    #[test]
    fn more_of_a_good_thing_is_never_worse(base in prop::array::uniform5(0.0_f32..1.0), more in 0.0_f32..1.0, which in 0_usize..5) {
        let of = |m: [f32; 5]| worst(&Quality {
            size_pixels: m[0] * 100.0,
            sharpness: m[1] * 300.0,
            contrast: m[2] * 0.3,
            detection_score: m[3],
            brightness: 0.5,
            yaw_degrees: 90.0 - m[4] * 90.0,
            ..Quality::default()
        }).1;
        let mut better = base;
        better[which] = (better[which] + more).min(1.0);
        prop_assert!(of(better) >= of(base));
    }
}
