//! The pictures of a clip in which people stand before a camera, one after the other, and move a
//! little: each photo on a grey background at a natural size, panning and zooming slowly, then an
//! empty background, so that one person has gone before the next comes.
//!
//! In: photos (JPEG, PNG, PGM). Out: pictures.
//! Must not know: doorward, whose photos they are.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use image::imageops::FilterType;
use image::{Rgb, RgbImage};

const BACKGROUND: Rgb<u8> = Rgb([118, 120, 122]);
/// The photo's height beside the picture's, so that a head-and-shoulders photo looks like a person near the camera.
const HEIGHT_SHARE: f32 = 0.75;
/// Small photos are not blown up beyond this: there is nothing more in them.
const ENLARGED_MAX: f32 = 3.0;
const ZOOM: f32 = 0.10;
const PAN_SHARE: f32 = 0.04;

/// How the photos are shown.
#[derive(Clone, Copy, Debug)]
pub struct Showing {
    /// Width and height of the pictures.
    pub size: (u32, u32),
    /// Pictures a second.
    pub fps: u32,
    /// How long each photo is shown.
    pub seconds_per_photo: f32,
    /// How long the background is empty after each photo.
    pub seconds_between: f32,
}

/// All pictures of the clip, in order.
///
/// # Errors
/// A photo that cannot be read.
pub fn show(files: &[PathBuf], showing: Showing) -> anyhow::Result<impl Iterator<Item = RgbImage>> {
    let photos = files.iter().map(|file| load(file, showing.size)).collect::<anyhow::Result<Vec<_>>>()?;
    let frames = move |seconds: f32| (seconds * showing.fps as f32).round().max(0.0) as u32;
    let (shown, between) = (frames(showing.seconds_per_photo), frames(showing.seconds_between));
    Ok(photos.into_iter().flat_map(move |photo| {
        let standing = (0..shown).map(move |number| place(&photo, showing.size, number as f32 / shown as f32));
        standing.chain((0..between).map(move |_| empty(showing.size)))
    }))
}

fn empty((width, height): (u32, u32)) -> RgbImage {
    RgbImage::from_pixel(width, height, BACKGROUND)
}

/// Loads a photo at the size at which it will stand, before zoom.
fn load(file: &Path, (width, height): (u32, u32)) -> anyhow::Result<RgbImage> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let photo = image::load_from_memory(&bytes).with_context(|| format!("{} is no JPEG, PNG or PGM", file.display()))?.into_rgb8();
    ensure!(photo.width() > 0 && photo.height() > 0, "{} is empty", file.display());
    let by_height = height as f32 * HEIGHT_SHARE / photo.height() as f32;
    let scale = by_height.min(width as f32 * HEIGHT_SHARE / photo.width() as f32).min(ENLARGED_MAX);
    let side = |length: u32| ((length as f32 * scale).round() as u32).max(2);
    Ok(image::imageops::resize(&photo, side(photo.width()), side(photo.height()), FilterType::CatmullRom))
}

/// The picture at `progress`, 0 to 1, of the photo's time.
fn place(photo: &RgbImage, size: (u32, u32), progress: f32) -> RgbImage {
    let mut picture = empty(size);
    let zoom = 1.0 + ZOOM * progress;
    let (width, height) = (photo.width() as f32 * zoom, photo.height() as f32 * zoom);
    let left = (size.0 as f32 - width) / 2.0 + (progress - 0.5) * PAN_SHARE * size.0 as f32;
    let top = (size.1 as f32 - height) / 2.0;
    // Only what lies in the clip and has four neighbours in the photo.
    let range = |begin: f32, length: f32, limit: u32| {
        (begin + zoom).ceil().max(0.0) as u32..((begin + length - zoom).floor().max(0.0) as u32).min(limit)
    };
    for y in range(top, height, size.1) {
        for x in range(left, width, size.0) {
            let at = ((x as f32 + 0.5 - left) / zoom - 0.5, (y as f32 + 0.5 - top) / zoom - 0.5);
            picture.put_pixel(x, y, between_pixels(photo, at));
        }
    }
    picture
}

/// Bilinear interpolation, in 1/256 of a pixel.
fn between_pixels(photo: &RgbImage, (x, y): (f32, f32)) -> Rgb<u8> {
    let (left, top) = (x as u32, y as u32);
    let (right, bottom) = ((left + 1).min(photo.width() - 1), (top + 1).min(photo.height() - 1));
    let (part_x, part_y) = ((x.fract() * 256.0) as u32, (y.fract() * 256.0) as u32);
    let corners = [(left, top), (right, top), (left, bottom), (right, bottom)].map(|(x, y)| photo.get_pixel(x, y).0);
    let weights = [(256 - part_x) * (256 - part_y), part_x * (256 - part_y), (256 - part_x) * part_y, part_x * part_y];
    Rgb([0, 1, 2].map(|channel| {
        let sum: u32 = corners.iter().zip(weights).map(|(corner, weight)| u32::from(corner[channel]) * weight).sum();
        ((sum + (1 << 15)) >> 16) as u8
    }))
}
