//! Makes a clip of photos, as if each person stood before a camera and moved a little.
//!
//! In: photos (JPEG, PNG, PGM). Out: an H.264 MP4.
//! Must not know: doorward, whose photos they are.

use std::path::PathBuf;

use clap::Parser;

#[path = "../tests/it/clip.rs"]
mod clip;
#[path = "../tests/it/stills.rs"]
mod stills;

/// Makes a clip of photos, as if each person stood before a camera and moved a little.
#[derive(Debug, Parser)]
struct Arguments {
    /// The MP4 to write.
    output: PathBuf,
    /// Pictures a second.
    #[arg(long, default_value_t = 25)]
    fps: u32,
    /// How long each photo is shown.
    #[arg(long, default_value_t = 3.0)]
    seconds_per_photo: f32,
    /// How long the background is empty after each photo.
    #[arg(long, default_value_t = 1.0)]
    seconds_between: f32,
    /// Width and height of the clip.
    #[arg(long, default_value = "1280x720", value_parser = parse_size)]
    size: (u32, u32),
    /// The photos in order.
    #[arg(required = true)]
    photos: Vec<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { output, fps, seconds_per_photo, seconds_between, size, photos } = Arguments::parse();
    let pictures = stills::show(&photos, stills::Showing { size, fps, seconds_per_photo, seconds_between })?;
    clip::encode(&output, clip::ClipSettings { size, fps, is_h265: false }, pictures)
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let parse = |text: &str| text.parse().ok().filter(|side| (32..=7680).contains(side) && side % 2 == 0);
    let size = text.split_once('x').and_then(|(width, height)| Some((parse(width)?, parse(height)?)));
    size.ok_or_else(|| format!("{text:?} is no size: use two even numbers such as 1280x720"))
}
