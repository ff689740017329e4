//! Tests of the similarity transform and of the sampling, on pictures made here.
//!
//! In: gradients. Out: nothing.
//! Must not know: models.

use proptest::prelude::*;

use super::*;
use crate::colour::ToRgb;
use crate::picture::{ColourMatrix, ColourRange, PixelFormat, PixelLayout, Plane, Size};

/// A picture that owns its pixels.
struct Owned(PixelFormat, Vec<u8>);

fn face(Owned(format, bytes): &Owned, landmarks: &[Point; 5]) -> Vec<u8> {
    assert!(format.bytes_needed().is_some_and(|needed| needed <= bytes.len()), "{format:?}");
    let mut pixels = vec![77; ALIGNED_SIDE * ALIGNED_SIDE * 3];
    cut(&Picture { format, bytes }, Crop::of(landmarks), &mut pixels);
    pixels
}

/// A picture whose red grows to the right and whose green grows downwards.
fn gradient(width: u32, height: u32) -> Owned {
    let bytes = (0..height).flat_map(|y| (0..width).flat_map(move |x| [(x * 255 / width) as u8, (y * 255 / height) as u8, 90]));
    Owned(PixelFormat::rgb8(Size { width, height }), bytes.collect())
}

fn placed(scale: f32, angle: f32, shift: (f32, f32)) -> [Point; 5] {
    let (sine, cosine) = angle.sin_cos();
    TEMPLATE.map(|p| Point { x: scale * (cosine * p.x - sine * p.y) + shift.0, y: scale * (sine * p.x + cosine * p.y) + shift.1 })
}

fn pixel(face: &[u8], x: usize, y: usize) -> [u8; 3] {
    face.as_chunks::<3>().0[y * ALIGNED_SIDE + x]
}

proptest! {
    #[test]
    fn a_similarity_is_found_again(scale in 0.2_f32..9.0, angle in -3.0_f32..3.0, x in -500.0_f32..2_000.0, y in -500.0_f32..2_000.0) {
        let landmarks = placed(scale, angle, (x, y));
        let found = Similarity::between(&landmarks, &TEMPLATE);
        for (point, expected) in landmarks.iter().zip(TEMPLATE) {
            let (x, y) = found.apply(point.x, point.y);
            prop_assert!((x - expected.x).abs() < 0.05 && (y - expected.y).abs() < 0.05, "{x} {y} for {expected:?}");
        }
        let there = found.apply(x + 10.0, y - 7.0);
        let back = found.inverse().apply(there.0, there.1);
        prop_assert!((back.0 - x - 10.0).abs() < 0.1 && (back.1 - y + 7.0).abs() < 0.1);
    }
}

#[test]
fn a_face_that_lies_as_the_template_is_copied() {
    let picture = gradient(200, 200);
    let face = face(&picture, &placed(1.0, 0.0, (30.0, 20.0)));
    for (x, y) in [(0, 0), (50, 60), (111, 111)] {
        let at = ((y + 20) * 200 + x + 30) * 3;
        let expected = &picture.1[at..at + 3];
        let found = pixel(&face, x, y);
        assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{found:?} {expected:?}");
    }
}

#[test]
fn a_large_face_is_averaged_and_not_picked_out() {
    // A fine checkerboard: single samples give black and white, means give grey.
    let (width, height) = (900, 900);
    let bytes = (0..height).flat_map(|y| (0..width).flat_map(move |x| [((x + y) % 2 * 255) as u8; 3]));
    let picture = Owned(PixelFormat::rgb8(Size { width, height }), bytes.collect());
    let face = face(&picture, &placed(7.3, 0.2, (150.0, 10.0)));
    let inside = (30..80).map(|i| pixel(&face, i, i)[0]);
    assert!(inside.clone().all(|value| (96..160).contains(&value)), "{:?}", inside.collect::<Vec<_>>());
}

#[test]
fn beyond_the_picture_is_black() {
    let face = face(&gradient(64, 64), &placed(1.0, 0.0, (-20.0, -20.0)));
    assert_eq!(pixel(&face, 3, 3), [0, 0, 0]);
    assert_eq!(pixel(&face, 111, 111), [0, 0, 0]);
    assert_eq!(pixel(&face, 40, 40)[2], 90);
}

#[test]
fn landmarks_that_are_no_numbers_do_no_harm() {
    for bad in [f32::NAN, f32::INFINITY, 0.0, 1e30] {
        let face = face(&gradient(64, 64), &[Point { x: bad, y: bad }; 5]);
        assert!(!face.contains(&77) || bad.is_finite(), "every pixel is written: {bad}");
    }
}

#[test]
fn planar_and_interleaved_chroma_give_the_same_face_and_rgb_a_similar_one() {
    let (width, height) = (160_usize, 120_usize);
    let luma: Vec<u8> = (0..width * height).map(|i| (40 + i % width) as u8).collect();
    let u: Vec<u8> = (0..width * height / 4).map(|i| (100 + i % 50) as u8).collect();
    let v: Vec<u8> = (0..width * height / 4).map(|i| (150 - i % 40) as u8).collect();
    let format = |layout, planes| PixelFormat {
        size: Size { width: width as u32, height: height as u32 },
        layout,
        matrix: ColourMatrix::Bt709,
        range: ColourRange::Limited,
        planes,
    };
    let (area, half) = (width * height, width / 2);
    let plane = |offset, stride| Plane { offset, stride };
    let planar = format(PixelLayout::I420, [plane(0, width), plane(area, half), plane(area + area / 4, half)]);
    let interleaved = format(PixelLayout::Nv12, [plane(0, width), plane(area, width), Plane::default()]);
    let planar = Owned(planar, [luma.clone(), u.clone(), v.clone()].concat());
    let pairs: Vec<u8> = u.iter().zip(&v).flat_map(|(u, v)| [*u, *v]).collect();
    let interleaved = Owned(interleaved, [luma.clone(), pairs].concat());
    let landmarks = placed(0.9, 0.1, (25.0, 5.0));
    let found = face(&planar, &landmarks);
    assert_eq!(found, face(&interleaved, &landmarks));
    let colour = ToRgb::new(ColourMatrix::Bt709, ColourRange::Limited);
    let at = |x: usize, y: usize| {
        let chroma = y / 2 * half + x / 2;
        colour.rgb(f32::from(luma[y * width + x]), f32::from(u[chroma]), f32::from(v[chroma])).map(|c| (c + 0.5) as u8)
    };
    let rgb: Vec<u8> = (0..area).flat_map(|i| at(i % width, i / width)).collect();
    let rgb = Owned(PixelFormat::rgb8(Size { width: width as u32, height: height as u32 }), rgb);
    let expected = face(&rgb, &landmarks);
    let difference: u64 = found.iter().zip(&expected).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    let mean = difference as f32 / found.len() as f32;
    assert!(mean < 4.0, "{mean}");
}

/// A picture of noise whose planes have strides of their own.
fn noise(strides: [usize; 3]) -> Owned {
    let (width, height) = (64_u32, 64_u32);
    let offsets = [0, strides[0] * 64, strides[0] * 64 + strides[1] * 32];
    let planes = [0, 1, 2].map(|plane| Plane { offset: offsets[plane], stride: strides[plane] });
    let (matrix, range) = (ColourMatrix::Bt709, ColourRange::Limited);
    let mut bytes = vec![0; offsets[2] + strides[2] * 32];
    for (plane, Plane { offset, stride }) in planes.iter().enumerate() {
        let side = if plane == 0 { 64 } else { 32 };
        for (x, y) in (0..side * side).map(|at| (at % side, at / side)) {
            bytes[offset + y * stride + x] = ((x * 97 + y * 31) * (plane + 3) % 251) as u8;
        }
    }
    Owned(PixelFormat { size: Size { width, height }, layout: PixelLayout::I420, matrix, range, planes }, bytes)
}

#[test]
fn chroma_is_read_by_the_strides_of_its_own_planes() {
    let expected = face(&noise([64, 32, 32]), &placed(0.5, 0.1, (5.0, 3.0)));
    for strides in [[80, 32, 48], [64, 48, 32], [64, 4_096, 32]] {
        assert!(face(&noise(strides), &placed(0.5, 0.1, (5.0, 3.0))) == expected, "{strides:?}");
    }
}

#[test]
#[should_panic(expected = "hold all of its rows")]
fn planes_that_lie_are_not_read() {
    // Nobody checked it: a frame refuses such a picture.
    let mut format = PixelFormat::rgb8(Size { width: 200, height: 200 });
    format.planes[0].stride = 60_000;
    cut(&Picture { format: &format, bytes: &[7; 200 * 600] }, Crop::of(&TEMPLATE), &mut vec![0; ALIGNED_SIDE * ALIGNED_SIDE * 3]);
}

#[test]
#[should_panic(expected = "more than 2 GiB")]
fn a_picture_whose_offsets_do_not_fit_in_31_bits_is_not_read() {
    // Never written, so that it takes no memory.
    let bytes = vec![0; 2_400_000_000];
    let format = PixelFormat::rgb8(Size { width: 20_000, height: 40_000 });
    let low = TEMPLATE.map(|point| Point { x: point.x + 100.0, y: point.y + 39_800.0 });
    cut(&Picture { format: &format, bytes: &bytes }, Crop::of(&low), &mut vec![0; ALIGNED_SIDE * ALIGNED_SIDE * 3]);
}
