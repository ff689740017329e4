//! Tests of letterboxing, on pictures made here.
//!
//! In: small frames. Out: nothing.
//! Must not know: models.

use std::sync::Arc;

use doorward_kernels::colour::{ToRgb, level};

use super::*;
use crate::clock::Timestamp;
use crate::frame::{CameraId, ColourMatrix, ColourRange, PixelFormat, PixelLayout, Plane};
use crate::models::Manifest;

fn input() -> InputEntry {
    let manifest = Manifest::load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    manifest.detector.model.input
}

fn frame(format: PixelFormat, bytes: Vec<u8>) -> Frame {
    Frame::new(CameraId::parse("c").expect("a good id"), Timestamp::default(), format, Arc::new(bytes)).expect("it fits")
}

fn fill(frame: &Frame, placement: &Placement, input: &InputEntry) -> Vec<f32> {
    // What an earlier picture left behind must not be seen.
    let mut tensor = vec![77.0; 3 * (placement.canvas.width * placement.canvas.height) as usize];
    Letterbox::default().fill_tensor(frame, placement, &mut Target { input, values: &mut tensor });
    tensor
}

fn rgb(width: u32, height: u32, of: impl Fn(u32, u32) -> [u8; 3]) -> Frame {
    let bytes: Vec<u8> = (0..width * height).flat_map(|i| of(i % width, i / width)).collect();
    frame(PixelFormat::rgb8(Size { width, height }), bytes)
}

/// An I420 and an NV12 frame of the same picture, with padding after each row.
fn yuv(width: usize, height: usize, of: impl Fn(usize, usize) -> [u8; 3]) -> [Frame; 2] {
    let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
    let (stride, half_stride) = (width + 6, half_width + 5);
    let mut planar = vec![0_u8; stride * height + 2 * half_stride * half_height];
    let mut interleaved = vec![0_u8; stride * height + 2 * half_stride * half_height];
    let (u_at, v_at) = (stride * height, stride * height + half_stride * half_height);
    for (x, y) in (0..width * height).map(|i| (i % width, i / width)) {
        let [luma, u, v] = of(x, y);
        (planar[y * stride + x], interleaved[y * stride + x]) = (luma, luma);
        let (cx, cy) = (x / 2, y / 2);
        (planar[u_at + cy * half_stride + cx], planar[v_at + cy * half_stride + cx]) = (u, v);
        (interleaved[u_at + cy * 2 * half_stride + cx * 2], interleaved[u_at + cy * 2 * half_stride + cx * 2 + 1]) = (u, v);
    }
    let plane = |offset, stride| Plane { offset, stride };
    let format = |layout, planes| PixelFormat {
        size: Size { width: width as u32, height: height as u32 },
        layout,
        matrix: ColourMatrix::Bt709,
        range: ColourRange::Limited,
        planes,
    };
    [
        frame(format(PixelLayout::I420, [plane(0, stride), plane(u_at, half_stride), plane(v_at, half_stride)]), planar),
        frame(format(PixelLayout::Nv12, [plane(0, stride), plane(u_at, 2 * half_stride), Plane::default()]), interleaved),
    ]
}

#[test]
fn a_canvas_is_as_small_as_the_picture_allows() {
    let canvas = |width, height, shape| {
        let Size { width, height } = Placement::new(Size { width, height }, None, 640, shape).canvas;
        (width, height)
    };
    assert_eq!(canvas(640, 360, CanvasShape::Fitted), (640, 384));
    assert_eq!(canvas(1920, 1080, CanvasShape::Fitted), (640, 384));
    assert_eq!(canvas(1080, 1920, CanvasShape::Fitted), (384, 640));
    assert_eq!(canvas(320, 320, CanvasShape::Fitted), (640, 640));
    assert_eq!(canvas(4000, 1, CanvasShape::Fitted), (640, 32));
    assert_eq!(canvas(1920, 1080, CanvasShape::Square), (640, 640));
}

#[test]
fn a_point_on_the_canvas_is_found_again_in_the_frame() {
    let region = NormalisedRect { x: 0.5, y: 0.25, width: 0.5, height: 0.5 };
    let placement = Placement::new(Size { width: 1920, height: 1080 }, Some(region), 640, CanvasShape::Fitted);
    assert_eq!(placement.point_in_frame(Point { x: 0.0, y: 0.0 }), Point { x: 960.0, y: 270.0 });
    let far = placement.point_in_frame(Point { x: 640.0, y: 360.0 });
    assert!((far.x - 1920.0).abs() < 1e-3 && (far.y - 810.0).abs() < 1e-3, "{far:?}");
}

#[test]
fn regions_at_the_edges_stay_in_the_frame() {
    for (x, y, width, height) in [(0.0, 0.0, 1.0, 1.0), (0.99, 0.99, 0.01, 0.01), (1.0, 1.0, 0.5, 0.5), (0.3, 0.7, 1e-9, 1e-9)] {
        for (frame_width, frame_height) in [(1, 1), (3, 5), (65, 33)] {
            for frame in yuv(frame_width, frame_height, |_, _| [100, 128, 128]) {
                let region = NormalisedRect { x, y, width, height };
                let placement = Placement::new(frame.size(), Some(region), 160, CanvasShape::Fitted);
                fill(&frame, &placement, &input());
            }
        }
    }
}

#[test]
fn a_photo_of_the_canvas_size_is_copied_in_the_order_of_the_model() {
    let photo = rgb(64, 32, |x, y| [x as u8, y as u8, 200]);
    let placement = Placement::new(photo.size(), None, 64, CanvasShape::Square);
    let mut input = input();
    let tensor = fill(&photo, &placement, &input);
    let at = |tensor: &[f32], plane: usize, x: usize, y: usize| tensor[plane * 64 * 64 + y * 64 + x];
    assert_eq!([0, 1, 2].map(|plane| at(&tensor, plane, 9, 5)), [200.0, 5.0, 9.0]);
    assert_eq!([0, 1, 2].map(|plane| at(&tensor, plane, 9, 40)), [0.0; 3]);
    input.colour = ColourOrder::Rgb;
    (input.mean, input.scale) = ([1.0, 2.0, 100.0], 0.5);
    let tensor = fill(&photo, &placement, &input);
    assert_eq!([0, 1, 2].map(|plane| at(&tensor, plane, 9, 5)), [4.0, 1.5, 50.0]);
    assert_eq!([0, 1, 2].map(|plane| at(&tensor, plane, 9, 40)), [-0.5, -1.0, -50.0]);
}

#[test]
fn both_chroma_layouts_give_the_same_tensor_at_any_size() {
    let of = |x: usize, y: usize| [(x * 3 + y) as u8, (x / 2 * 2) as u8, (y / 2 * 2) as u8];
    let region = NormalisedRect { x: 0.1, y: 0.2, width: 0.7, height: 0.6 };
    for (width, height) in [(64, 36), (99, 77), (200, 112), (333, 200), (30, 20)] {
        for region in [None, Some(region)] {
            let tensors = yuv(width, height, of).map(|frame| {
                let placement = Placement::new(frame.size(), region, 64, CanvasShape::Fitted);
                fill(&frame, &placement, &input())
            });
            assert_eq!(tensors[0], tensors[1], "{width}x{height}");
        }
    }
}

#[test]
fn video_shrinks_to_about_what_a_photo_of_it_shrinks_to() {
    // Smooth in luma and constant in chroma, so that every fair way of sampling agrees.
    let luma = |x: usize, y: usize| 60.0 + 80.0 * ((x as f32 / 60.0).sin() * (y as f32 / 45.0).cos()).abs();
    let colour = ToRgb::new(ColourMatrix::Bt709, ColourRange::Limited);
    for (width, height) in [(64_usize, 48_usize), (100, 75), (128, 96), (192, 144), (400, 300), (48, 36)] {
        let photo =
            rgb(width as u32, height as u32, |x, y| colour.rgb(luma(x as usize, y as usize), 110.0, 140.0).map(|c| (c + 0.5) as u8));
        let placement = Placement::new(photo.size(), None, 64, CanvasShape::Fitted);
        let expected = fill(&photo, &placement, &input());
        for video in yuv(width, height, |x, y| [(luma(x, y) + 0.5) as u8, 110, 140]) {
            let found = fill(&video, &placement, &input());
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 6.0, "{width}x{height}: {worst}");
        }
    }
}

#[test]
fn a_pixel_of_the_canvas_is_the_mean_of_points_at_the_middles_of_its_equal_parts() {
    // Rows are all the same, columns of luma as different as can be, so that each point that is taken shows.
    let luma = |x: usize| (x * 97 % 220 + 16) as u8;
    let colour = ToRgb::new(ColourMatrix::Bt709, ColourRange::Limited);
    for (factor, points) in [(1, vec![0]), (2, vec![0, 1]), (3, vec![0, 1, 2]), (4, vec![0, 1, 2, 3]), (6, vec![0, 2, 3, 5])] {
        let side = 64;
        for video in yuv(side * factor, 32 * factor, |x, _| [luma(x), 128, 128]) {
            let placement = Placement::new(video.size(), None, side as u32, CanvasShape::Fitted);
            let found = fill(&video, &placement, &input());
            for (x, found) in found[..side].iter().enumerate() {
                let mean = points.iter().map(|point| f32::from(luma(x * factor + point))).sum::<f32>() / points.len() as f32;
                let expected = f32::from(level(colour.rgb(mean, 128.0, 128.0)[0]));
                assert!((found - expected).abs() <= 1.0, "column {x} of a picture {factor} times as wide: {found}, not {expected}");
            }
        }
    }
}
