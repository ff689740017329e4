//! Draws what was found into a picture: boxes, landmarks, and the number of each face.
//!
//! In: a photo's bytes and faces in pixels of it, upright. Out: the picture, annotated.
//! Drops: what lies outside the picture.
//! Must not know: the daemon.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageReader, Rgb, RgbImage};

use crate::pb;

const JPEG_QUALITY: u8 = 92;
const BOX_COLOUR: Rgb<u8> = Rgb([0, 230, 64]);
const LANDMARK_COLOUR: Rgb<u8> = Rgb([255, 64, 32]);
const DIGIT_COLOUR: Rgb<u8> = Rgb([0, 0, 0]);

/// Ten digits of 3×5 dots, five rows of three bits each, the top row in the highest bits.
const DIGITS: [u16; 10] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_010_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
];
const DIGIT_COLUMNS: i32 = 3;
const DIGIT_ROWS: i32 = 5;

/// The picture in `photo`, turned upright as its EXIF data says: faces are told in this one.
///
/// # Errors
/// The bytes are no picture, or one that is too large to be opened.
pub fn upright(photo: &[u8]) -> anyhow::Result<RgbImage> {
    let mut decoder = ImageReader::new(Cursor::new(photo)).with_guessed_format()?.into_decoder().context("cannot read the picture")?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder).context("cannot read the picture")?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// Draws `faces` into `picture`, numbered from 1 in their order.
pub fn annotate(picture: &mut RgbImage, faces: &[pb::Face]) {
    // Lines that are as easy to see in a large picture as in a small one.
    let thickness = (picture.width().max(picture.height()) as i32 / 400).max(1);
    for (number, face) in (1_usize..).zip(faces) {
        let area = face.r#box.unwrap_or_default();
        let (left, top) = (area.x.round() as i32, area.y.round() as i32);
        let (right, bottom) = ((area.x + area.width).round() as i32, (area.y + area.height).round() as i32);
        for (x, y, width, height) in [
            (left, top, right - left, thickness),
            (left, bottom - thickness, right - left, thickness),
            (left, top, thickness, bottom - top),
            (right - thickness, top, thickness, bottom - top),
        ] {
            fill(picture, [x, y, width, height], BOX_COLOUR);
        }
        for landmark in &face.landmarks {
            let (x, y) = (landmark.x.round() as i32 - thickness, landmark.y.round() as i32 - thickness);
            fill(picture, [x, y, 2 * thickness + 1, 2 * thickness + 1], LANDMARK_COLOUR);
        }
        write_number(picture, number, (left, top), thickness * 2);
    }
}

/// Writes `number` on a plate whose lower left corner is `at`, or below it where there is no room.
fn write_number(picture: &mut RgbImage, number: usize, at: (i32, i32), dot: i32) {
    let digits = number.to_string();
    let width = (digits.len() as i32 * (DIGIT_COLUMNS + 1) + 1) * dot;
    let height = (DIGIT_ROWS + 2) * dot;
    let (left, top) = (at.0.max(0), if at.1 >= height { at.1 - height } else { at.1.max(0) });
    fill(picture, [left, top, width, height], BOX_COLOUR);
    for (place, digit) in (0..).zip(digits.bytes()) {
        let dots = DIGITS[usize::from(digit - b'0')];
        let origin = left + (place * (DIGIT_COLUMNS + 1) + 1) * dot;
        for cell in 0..DIGIT_COLUMNS * DIGIT_ROWS {
            if dots >> (DIGIT_COLUMNS * DIGIT_ROWS - 1 - cell) & 1 == 1 {
                let (column, row) = (cell % DIGIT_COLUMNS, cell / DIGIT_COLUMNS);
                fill(picture, [origin + column * dot, top + (row + 1) * dot, dot, dot], DIGIT_COLOUR);
            }
        }
    }
}

/// Fills x, y, width, height; what lies outside the picture is left out.
fn fill(picture: &mut RgbImage, [x, y, width, height]: [i32; 4], colour: Rgb<u8>) {
    let (picture_width, picture_height) = (picture.width() as i32, picture.height() as i32);
    for row in y.clamp(0, picture_height)..y.saturating_add(height).clamp(0, picture_height) {
        for column in x.clamp(0, picture_width)..x.saturating_add(width).clamp(0, picture_width) {
            picture.put_pixel(column as u32, row as u32, colour);
        }
    }
}

/// Writes `picture` as JPEG or PNG, as the name of `file` says.
///
/// # Errors
/// The name says neither, or what the system says of the file.
pub fn save(picture: &RgbImage, file: &Path) -> anyhow::Result<()> {
    ensure!(picture.width() > 0 && picture.height() > 0, "the picture is empty");
    let mut bytes = Cursor::new(Vec::new());
    match file.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("jpg" | "jpeg") => picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?,
        Some("png") => picture.write_to(&mut bytes, image::ImageFormat::Png)?,
        _ => bail!("cannot tell the format of {}: name it .jpg or .png", file.display()),
    }
    std::fs::write(file, bytes.into_inner()).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f32, y: f32, side: f32) -> pb::Face {
        let landmarks = vec![pb::Point { x: x + side / 2.0, y: y + side / 2.0 }];
        pb::Face { r#box: Some(pb::PixelBox { x, y, width: side, height: side }), landmarks, ..pb::Face::default() }
    }

    #[test]
    fn a_face_gets_a_box_a_landmark_and_its_number() {
        let mut picture = RgbImage::new(100, 80);
        annotate(&mut picture, &[face(20.0, 30.0, 40.0)]);
        for (x, y) in [(20, 30), (59, 30), (20, 69), (59, 69), (40, 30), (20, 50)] {
            assert_eq!(*picture.get_pixel(x, y), BOX_COLOUR, "the box at {x},{y}");
        }
        assert_eq!(*picture.get_pixel(40, 50), LANDMARK_COLOUR);
        assert_eq!(*picture.get_pixel(30, 45), Rgb([0, 0, 0]), "the face itself stays to be seen");
        // The middle dot of the top row of a 1, on its plate above the box.
        assert_eq!(*picture.get_pixel(20 + 2 * 2, 30 - 7 * 2 + 2), DIGIT_COLOUR);
        assert_eq!(*picture.get_pixel(20 + 2, 30 - 7 * 2 + 2), BOX_COLOUR);
    }

    #[test]
    fn a_face_beyond_the_edge_is_cut_off() {
        let mut picture = RgbImage::new(32, 32);
        annotate(&mut picture, &[face(-10.0, -10.0, 30.0), face(25.0, 25.0, 1e9), face(f32::NAN, 0.0, 5.0)]);
        assert_eq!(*picture.get_pixel(19, 10), BOX_COLOUR);
    }

    #[test]
    fn a_picture_is_saved_as_its_name_says() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let picture = RgbImage::from_pixel(8, 6, Rgb([10, 200, 30]));
        for name in ["a.png", "a.JPG"] {
            let file = folder.path().join(name);
            save(&picture, &file).expect("it is writable");
            let read = upright(&std::fs::read(&file).expect("it is there")).expect("it is a picture");
            assert_eq!(read.dimensions(), (8, 6), "{name}");
        }
        assert!(save(&picture, &folder.path().join("a.gif")).expect_err("no GIF").to_string().contains(".jpg or .png"));
    }
}
