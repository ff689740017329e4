//! Tests of the sampling, on pictures made here.
//!
//! In: gradients. Out: nothing.
//! Must not know: models.

use std::sync::Arc;

use doorward_kernels::colour::ToRgb;
use doorward_kernels::crop::TEMPLATE;

use super::*;
use crate::clock::Timestamp;
use crate::face::Point;
use crate::frame::{CameraId, ColourMatrix, ColourRange, PixelFormat, PixelLayout, Plane, Size};

fn frame(format: PixelFormat, bytes: Vec<u8>) -> Frame {
    Frame::new(CameraId::parse("c").expect("a good id"), Timestamp::default(), format, Arc::new(bytes)).expect("it fits")
}

/// A picture whose red grows to the right and whose green grows downwards.
fn gradient(width: u32, height: u32) -> Frame {
    let bytes = (0..height).flat_map(|y| (0..width).flat_map(move |x| [(x * 255 / width) as u8, (y * 255 / height) as u8, 90]));
    frame(PixelFormat::rgb8(Size { width, height }), bytes.collect())
}

fn placed(scale: f32, angle: f32, shift: (f32, f32)) -> Landmarks {
    let (sine, cosine) = angle.sin_cos();
    Landmarks(
        TEMPLATE.map(|p| Point { x: scale * (cosine * p.x - sine * p.y) + shift.0, y: scale * (sine * p.x + cosine * p.y) + shift.1 }),
    )
}

fn pixel(face: &AlignedFace, x: usize, y: usize) -> [u8; 3] {
    let at = (y * ALIGNED_SIDE + x) * 3;
    [face.rgb()[at], face.rgb()[at + 1], face.rgb()[at + 2]]
}

#[test]
fn a_face_that_lies_as_the_template_is_copied() {
    let picture = gradient(200, 200);
    let face = align(&picture, &placed(1.0, 0.0, (30.0, 20.0)));
    for (x, y) in [(0, 0), (50, 60), (111, 111)] {
        let at = ((y + 20) * 200 + x + 30) * 3;
        let expected = &picture.plane(0)[at..at + 3];
        let found = pixel(&face, x, y);
        assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{found:?} {expected:?}");
    }
}

#[test]
fn a_large_face_is_averaged_and_not_picked_out() {
    // A fine checkerboard: single samples give black and white, means give grey.
    let (width, height) = (900, 900);
    let bytes = (0..height).flat_map(|y| (0..width).flat_map(move |x| [((x + y) % 2 * 255) as u8; 3]));
    let picture = frame(PixelFormat::rgb8(Size { width, height }), bytes.collect());
    let face = align(&picture, &placed(7.3, 0.2, (150.0, 10.0)));
    let inside = (30..80).map(|i| pixel(&face, i, i)[0]);
    assert!(inside.clone().all(|value| (96..160).contains(&value)), "{:?}", inside.collect::<Vec<_>>());
}

#[test]
fn beyond_the_frame_is_black() {
    let face = align(&gradient(64, 64), &placed(1.0, 0.0, (-20.0, -20.0)));
    assert_eq!(pixel(&face, 3, 3), [0, 0, 0]);
    assert_eq!(pixel(&face, 111, 111), [0, 0, 0]);
    assert_eq!(pixel(&face, 40, 40)[2], 90);
}

#[test]
fn landmarks_that_are_no_numbers_do_no_harm() {
    for bad in [f32::NAN, f32::INFINITY, 0.0, 1e30] {
        let face = align(&gradient(64, 64), &Landmarks([Point { x: bad, y: bad }; 5]));
        assert_eq!(face.rgb().len(), ALIGNED_SIDE * ALIGNED_SIDE * 3);
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
    let planar = frame(planar, [luma.clone(), u.clone(), v.clone()].concat());
    let pairs: Vec<u8> = u.iter().zip(&v).flat_map(|(u, v)| [*u, *v]).collect();
    let interleaved = frame(interleaved, [luma.clone(), pairs].concat());
    let landmarks = placed(0.9, 0.1, (25.0, 5.0));
    let face = align(&planar, &landmarks);
    assert_eq!(face.rgb(), align(&interleaved, &landmarks).rgb());
    let colour = ToRgb::new(ColourMatrix::Bt709, ColourRange::Limited);
    let at = |x: usize, y: usize| {
        let chroma = y / 2 * half + x / 2;
        colour.rgb(f32::from(luma[y * width + x]), f32::from(u[chroma]), f32::from(v[chroma])).map(|c| (c + 0.5) as u8)
    };
    let rgb: Vec<u8> = (0..area).flat_map(|i| at(i % width, i / width)).collect();
    let rgb = frame(PixelFormat::rgb8(Size { width: width as u32, height: height as u32 }), rgb);
    let expected = align(&rgb, &landmarks);
    let difference: u64 = face.rgb().iter().zip(expected.rgb()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    let mean = difference as f32 / face.rgb().len() as f32;
    assert!(mean < 4.0, "{mean}");
}
