//! Whether a camera can be watched as the operator states it.
//!
//! In: a camera. Out: nothing, or the first field that is not allowed and why.
//! Must not know: the store, the sources.

use super::CamerasError;
use crate::camera::{Camera, NormalisedPoint, Region, holds_credential};
use crate::telling::{DAY_MINUTES, Telling};

const NAME_BYTES_MAX: usize = 256;
const REGIONS_MAX: usize = 32;
const POINTS_MAX: usize = 64;
const RULES_MAX: usize = 32;
/// A track is told from noise by its second sighting, which must come before the track is given up.
const FPS_MIN: f32 = 1.0;
const FPS_MAX: f32 = 120.0;
const FACE_PIXELS_MAX: u32 = 4_096;

/// Checks every field.
pub(super) fn camera(camera: &Camera) -> Result<(), CamerasError> {
    url(camera)?;
    require(camera.display_name.len() <= NAME_BYTES_MAX, "display_name", || format!("more than {NAME_BYTES_MAX} bytes"))?;
    require(camera.face_pixels_min <= FACE_PIXELS_MAX, "face_pixels_min", || {
        format!("{} is not allowed: 0 to {FACE_PIXELS_MAX}", camera.face_pixels_min)
    })?;
    if let Some(fps) = camera.analysis_fps_max {
        let allowed = (FPS_MIN..=FPS_MAX).contains(&fps);
        require(allowed, "analysis_fps_max", || {
            format!("{fps} is not allowed: {FPS_MIN} to {FPS_MAX}, or 0 for as many as can be analysed")
        })?;
    }
    if let Some(side) = camera.detector_side {
        let allowed = (160..=1920).contains(&side) && side.is_multiple_of(32);
        require(allowed, "detector_side", || format!("{side} is not allowed: a multiple of 32 from 160 to 1920"))?;
    }
    if let Some(threshold) = camera.threshold {
        let allowed = (-1.0..=1.0).contains(&threshold);
        require(allowed, "threshold", || format!("{threshold} is not allowed: -1 to 1 (cosine similarity)"))?;
    }
    if let Some(rate) = camera.target_fpir {
        let allowed = rate > 0.0 && rate < 1.0 && camera.threshold.is_none();
        require(allowed, "target_fpir", || {
            format!("{rate} is not allowed: above 0 and below 1 (a share of strangers), and no threshold beside it")
        })?;
    }
    if let Some(r) = camera.region_of_interest {
        let inside = r.x >= 0.0 && r.y >= 0.0 && r.width > 0.0 && r.height > 0.0 && r.x + r.width <= 1.0 && r.y + r.height <= 1.0;
        require(inside, "region_of_interest", || "it must lie in the frame: x, y, width, height from 0 to 1".into())?;
    }
    regions("lines", &camera.lines, 2..=2)?;
    regions("zones", &camera.zones, 3..=POINTS_MAX)?;
    telling(&camera.telling)
}

fn telling(telling: &Telling) -> Result<(), CamerasError> {
    if let Some(ms) = telling.actionable_ms {
        require((100..=60_000).contains(&ms), "actionable_ms", || format!("{ms} is not allowed: 100 to 60000, or 0 for the default"))?;
    }
    require(telling.rules.len() <= RULES_MAX, "rules", || format!("more than {RULES_MAX}"))?;
    for (index, rule) in telling.rules.iter().enumerate() {
        let days = rule.days.iter().all(|day| (1..=7).contains(day));
        require(days, "rules", || format!("rule {index} has a day that is not 1 (Monday) to 7 (Sunday)"))?;
        let hours = rule.from_minute < DAY_MINUTES && (1..=DAY_MINUTES).contains(&rule.until_minute);
        require(hours, "rules", || format!("rule {index}: from_minute must be 0 to 1439 and until_minute 1 to 1440"))?;
    }
    Ok(())
}

fn url(camera: &Camera) -> Result<(), CamerasError> {
    let url = &camera.url;
    // Before anything else is said of the URL: an error must not repeat a password.
    if holds_credential(url) {
        return Err(CamerasError::CredentialInUrl);
    }
    let scheme = url.scheme();
    require(matches!(scheme, "rtsp" | "rtsps"), "url", || format!("scheme {scheme:?} is not allowed: rtsp or rtsps"))?;
    require(url.host_str().is_some_and(|host| !host.is_empty()), "url", || "it names no host".into())
}

fn regions(field: &'static str, regions: &[Region], points: std::ops::RangeInclusive<usize>) -> Result<(), CamerasError> {
    require(regions.len() <= REGIONS_MAX, field, || format!("more than {REGIONS_MAX}"))?;
    for (index, region) in regions.iter().enumerate() {
        let name = &region.name;
        require(!name.is_empty() && name.len() <= NAME_BYTES_MAX, field, || {
            format!("entry {index} needs a name of 1 to {NAME_BYTES_MAX} bytes")
        })?;
        require(!regions[..index].iter().any(|other| &other.name == name), field, || format!("the name {name:?} is used twice"))?;
        require(points.contains(&region.points.len()), field, || {
            format!("{name:?} has {} points; allowed: {} to {}", region.points.len(), points.start(), points.end())
        })?;
        let has_length = region.points.iter().any(|point| *point != region.points[0]);
        require(has_length, field, || format!("{name:?} is a single point: nobody could cross or enter it"))?;
        let inside = |p: &NormalisedPoint| (0.0..=1.0).contains(&p.x) && (0.0..=1.0).contains(&p.y);
        require(region.points.iter().all(inside), field, || format!("{name:?} has a point outside the frame: 0 to 1"))?;
    }
    Ok(())
}

fn require(allowed: bool, field: &'static str, reason: impl FnOnce() -> String) -> Result<(), CamerasError> {
    if allowed { Ok(()) } else { Err(CamerasError::BadField { field, reason: reason() }) }
}

#[cfg(test)]
pub(in crate::cameras) mod tests {
    use url::Url;

    use super::*;
    use crate::camera::{CameraId, NormalisedRect, Role, Transport};
    use crate::clock::Timestamp;

    pub(in crate::cameras) fn door() -> Camera {
        Camera {
            id: CameraId::parse("door").expect("a good id"),
            url: Url::parse("rtsp://camera.example/stream").expect("a URL"),
            has_credential: false,
            display_name: String::new(),
            role: Role::Entry,
            transport: Transport::Tcp,
            lines: Vec::new(),
            zones: Vec::new(),
            telling: Telling::default(),
            analysis_fps_max: None,
            detector_side: None,
            region_of_interest: None,
            face_pixels_min: 32,
            threshold: None,
            target_fpir: None,
            enabled: true,
            create_time: Timestamp::default(),
            update_time: Timestamp::default(),
            revision: 1,
        }
    }

    fn field_of(changed: &Camera) -> &'static str {
        match camera(changed) {
            Err(CamerasError::BadField { field, .. }) => field,
            other => panic!("a bad field was expected: {other:?}"),
        }
    }

    #[test]
    fn a_plain_camera_is_allowed() {
        assert!(camera(&door()).is_ok());
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        for url in [
            "rtsp://admin:hunter2@camera.example/stream",
            "rtsp://camera.example/stream?user=admin&Password=hunter2",
            "rtsp://camera.example/user=admin&password=hunter2&channel=1",
        ] {
            let url = Url::parse(url).expect("a URL");
            let refused = camera(&Camera { url, ..door() }).expect_err("it holds a password");
            assert!(matches!(refused, CamerasError::CredentialInUrl));
            assert!(!refused.to_string().contains("hunter2"));
        }
        let url = Url::parse("rtsp://camera.example/stream?channel=1").expect("a URL");
        assert!(camera(&Camera { url, ..door() }).is_ok());
    }

    #[test]
    fn every_bad_field_is_named() {
        let http = Url::parse("http://camera.example/").expect("a URL");
        assert_eq!(field_of(&Camera { url: http, ..door() }), "url");
        for fps in [f32::NAN, 1e-30, 0.25, 121.0] {
            assert_eq!(field_of(&Camera { analysis_fps_max: Some(fps), ..door() }), "analysis_fps_max");
        }
        assert_eq!(field_of(&Camera { detector_side: Some(100), ..door() }), "detector_side");
        assert_eq!(field_of(&Camera { threshold: Some(1.5), ..door() }), "threshold");
        assert_eq!(field_of(&Camera { target_fpir: Some(1.0), ..door() }), "target_fpir");
        assert_eq!(field_of(&Camera { target_fpir: Some(f64::NAN), ..door() }), "target_fpir");
        let outside = NormalisedRect { x: 0.5, y: 0.0, width: 0.6, height: 1.0 };
        assert_eq!(field_of(&Camera { region_of_interest: Some(outside), ..door() }), "region_of_interest");
        let point = NormalisedPoint { x: 0.5, y: 0.5 };
        let line = Region { name: "in".into(), points: vec![point; 3] };
        let point = Region { name: "door".into(), points: vec![NormalisedPoint { x: 0.5, y: 0.5 }; 2] };
        assert_eq!(field_of(&Camera { lines: vec![point], ..door() }), "lines", "nobody could cross it");
        assert_eq!(field_of(&Camera { lines: vec![line.clone()], ..door() }), "lines");
        assert_eq!(field_of(&Camera { zones: vec![line.clone(), line], ..door() }), "zones");
    }
}
