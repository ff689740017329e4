//! What an operator says of a camera when adding or changing it.
//!
//! In: options. Out: fields of the wire's `Camera`, and the mask of those that were given.
//! Drops: nothing.
//! Must not know: the connection.

use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::failure::Usage;
use super::telling_settings::TellingSettings;
use crate::pb;

/// What the camera looks at.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// People come in here: served first
    Entry,
    /// People leave here
    Exit,
    /// Anything else
    Interior,
}

/// How pictures reach the daemon.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Transport {
    /// Interleaved in the RTSP connection: loses nothing
    Tcp,
    /// Datagrams: lower delay on networks that lose none
    Udp,
}

/// The options that adding and changing a camera share.
#[derive(Debug, Args)]
pub struct CameraSettings {
    /// What people call the camera
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// What it looks at; entry cameras are served first [default of a new camera: interior]
    #[arg(long)]
    role: Option<Role>,
    /// How pictures are carried [default of a new camera: tcp]
    #[arg(long)]
    transport: Option<Transport>,
    /// The most frames a second that are analysed
    #[arg(long, value_name = "FPS")]
    analysis_fps_max: Option<f32>,
    /// The longer side of the detector's input in pixels, a multiple of 32; larger sees smaller faces
    #[arg(long, value_name = "PIXELS")]
    detector_side: Option<u32>,
    /// Smaller faces are ignored
    #[arg(long, value_name = "PIXELS")]
    face_pixels_min: Option<u32>,
    /// The least similarity that identifies somebody here, -1 to 1
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// The share of strangers who may be taken for somebody here, such as 0.001; the threshold follows from it
    #[arg(long, value_name = "RATE", conflicts_with = "threshold")]
    target_fpir: Option<f64>,
    /// The part of the picture in which faces are looked for, as parts of its width and height
    #[arg(long, value_name = "X,Y,WIDTH,HEIGHT", value_parser = parse_box)]
    region_of_interest: Option<pb::NormalisedBox>,
    /// A line that people cross (repeatable); with one, ENTRY and EXIT are told of those who cross it only
    #[arg(long = "line", value_name = "NAME=X,Y:X,Y", value_parser = parse_region)]
    lines: Vec<pb::Region>,
    /// A zone of three or more corners (repeatable)
    #[arg(long = "zone", value_name = "NAME=X,Y:X,Y:X,Y…", value_parser = parse_region)]
    zones: Vec<pb::Region>,
    #[command(flatten)]
    telling: TellingSettings,
}

impl CameraSettings {
    /// Writes what was given into `camera` and answers the names of those fields.
    pub fn apply(self, camera: &mut pb::Camera) -> Vec<&'static str> {
        let mut given = Vec::new();
        let mut note = |is_given: bool, field: &'static str| {
            if is_given {
                given.push(field);
            }
        };
        note(self.name.is_some(), "display_name");
        note(self.role.is_some(), "role");
        note(self.transport.is_some(), "transport");
        note(self.analysis_fps_max.is_some(), "analysis_fps_max");
        note(self.detector_side.is_some(), "detector_side");
        note(self.face_pixels_min.is_some(), "face_pixels_min");
        note(self.threshold.is_some(), "threshold");
        note(self.target_fpir.is_some(), "target_fpir");
        note(self.region_of_interest.is_some(), "region_of_interest");
        note(!self.lines.is_empty(), "lines");
        note(!self.zones.is_empty(), "zones");
        camera.display_name = self.name.unwrap_or_default();
        camera.role = self.role.map_or(pb::CameraRole::Unspecified, |role| match role {
            Role::Entry => pb::CameraRole::Entry,
            Role::Exit => pb::CameraRole::Exit,
            Role::Interior => pb::CameraRole::Interior,
        }) as i32;
        camera.transport = self.transport.map_or(pb::CameraTransport::Unspecified, |transport| match transport {
            Transport::Tcp => pb::CameraTransport::Tcp,
            Transport::Udp => pb::CameraTransport::Udp,
        }) as i32;
        camera.analysis_fps_max = self.analysis_fps_max.unwrap_or_default();
        camera.detector_side = self.detector_side.unwrap_or_default();
        camera.face_pixels_min = self.face_pixels_min.unwrap_or_default();
        (camera.threshold, camera.target_fpir) = (self.threshold, self.target_fpir);
        camera.region_of_interest = self.region_of_interest;
        camera.lines = self.lines;
        camera.zones = self.zones;
        given.extend(self.telling.apply(camera));
        given
    }
}

/// Refuses a URL that carries a user or a password before it goes anywhere.
///
/// # Errors
/// [`Usage`], which does not repeat the URL.
pub fn without_credential(url: String) -> anyhow::Result<String> {
    // What is no URL at all is left to the daemon, which says why; but an `@` before the path
    // means that somebody wrote a credential, whatever else is wrong.
    let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    if authority.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
        let advice = "the URL holds a user name or password: give it without, and those by --username and --password-file (or be asked); \
                      the shell's history may hold them now";
        return Err(Usage(advice.into()).into());
    }
    Ok(url)
}

fn numbers<const N: usize>(text: &str) -> Option<[f32; N]> {
    let numbers: Result<Vec<f32>, _> = text.split(',').map(|number| f32::from_str(number.trim())).collect();
    numbers.ok()?.try_into().ok()
}

fn parse_box(text: &str) -> Result<pb::NormalisedBox, String> {
    let [x, y, width, height] = numbers(text).ok_or("write four numbers from 0 to 1, such as 0.1,0,0.8,1")?;
    Ok(pb::NormalisedBox { x, y, width, height })
}

fn parse_region(text: &str) -> Result<pb::Region, String> {
    let wrong = "write it like door=0.1,0.9:0.9,0.9, with parts of the picture's width and height";
    let (name, corners) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or(wrong)?;
    let points: Option<Vec<_>> = corners.split(':').map(|corner| numbers(corner).map(|[x, y]| pb::NormalisedPoint { x, y })).collect();
    Ok(pb::Region { name: name.to_owned(), points: points.filter(|points| points.len() > 1).ok_or(wrong)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_refused_without_being_repeated() {
        for url in ["rtsp://admin:hunter2@192.0.2.7/s", "rtsp://hunter2@cam", "admin:hunter2@cam/s", "rtsp://a:hunter2@[::1"] {
            let refused = without_credential(url.into()).expect_err(url).to_string();
            assert!(!refused.contains("hunter2") && refused.contains("--password-file"), "{refused}");
        }
        for url in ["rtsp://192.0.2.7/s?user=@", "rtsp://cam/a@b", "nonsense"] {
            assert_eq!(without_credential(url.into()).expect("no credential"), url);
        }
    }

    #[test]
    fn regions_are_read_from_text() {
        let region = parse_region("door=0.1,0.9: 0.9 ,0.8").expect("a line");
        assert_eq!((region.name.as_str(), region.points.len(), region.points[1].x), ("door", 2, 0.9));
        for wrong in ["door", "=0,0:1,1", "door=0,0", "door=0,0:1", "door=a,b:c,d"] {
            assert!(parse_region(wrong).is_err(), "{wrong}");
        }
        assert!(parse_box("0,0,1").is_err() && parse_box("0,0,1,1").is_ok());
    }
}
