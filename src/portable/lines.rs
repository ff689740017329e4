//! Subjects and samples as the JSON lines of the file, and back.
//!
//! In: domain values. Out: records; domain values from them, or what is wrong with them. A key that is
//! not known is an error, since to leave out what it says might change who somebody is.
//! Must not know: where lines lie.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::face::{Quality, Template, TemplateSpace};
use crate::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OriginName {
    Rpc,
    Folder,
}

/// A line of `subjects.jsonl`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubjectLine {
    id: String,
    uid: Uuid,
    display_name: String,
    watchlists: Vec<String>,
    attributes: BTreeMap<String, String>,
    consent_reference: String,
    expire_time_us: Option<i64>,
    origin: OriginName,
    create_time_us: i64,
    update_time_us: i64,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QualityLine {
    overall: f32,
    size_pixels: f32,
    sharpness: f32,
    brightness: f32,
    contrast: f32,
    yaw_degrees: f32,
    pitch_degrees: f32,
    roll_degrees: f32,
    detection_score: f32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TemplateLine {
    pub space: String,
    /// Base64 of the numbers as little-endian f32.
    values: String,
}

/// A line of `samples.jsonl`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleLine {
    id: Uuid,
    /// The uid of its subject.
    pub subject: Uuid,
    quality: QualityLine,
    /// Lower-case hex.
    pub content_sha256: String,
    create_time_us: i64,
    folder_path: Option<String>,
    /// Whether it shows somebody else, who must never be taken for the subject.
    negative: bool,
    /// At least one, each of another space.
    pub templates: Vec<TemplateLine>,
    /// Where the photo lies in the file; `null` where it was left out.
    pub photo: Option<String>,
}

impl SubjectLine {
    pub fn of(subject: &Subject) -> Self {
        Self {
            id: subject.id.as_str().to_owned(),
            uid: subject.uid.0,
            display_name: subject.display_name.clone(),
            watchlists: subject.watchlists.clone(),
            attributes: subject.attributes.clone(),
            consent_reference: subject.consent_reference.clone(),
            expire_time_us: subject.expire_time.map(Timestamp::as_micros),
            origin: match subject.origin {
                Origin::Rpc => OriginName::Rpc,
                Origin::Folder => OriginName::Folder,
            },
            create_time_us: subject.create_time.as_micros(),
            update_time_us: subject.update_time.as_micros(),
            revision: subject.revision,
        }
    }

    pub fn into_subject(self) -> Result<Subject, String> {
        Ok(Subject {
            id: SubjectId::parse(&self.id).map_err(|invalid| invalid.to_string())?,
            uid: SubjectUid(self.uid),
            display_name: self.display_name,
            watchlists: self.watchlists,
            attributes: self.attributes,
            consent_reference: self.consent_reference,
            expire_time: self.expire_time_us.map(Timestamp::from_micros),
            origin: match self.origin {
                OriginName::Rpc => Origin::Rpc,
                OriginName::Folder => Origin::Folder,
            },
            create_time: Timestamp::from_micros(self.create_time_us),
            update_time: Timestamp::from_micros(self.update_time_us),
            revision: self.revision,
        })
    }
}

impl SampleLine {
    pub fn of(sample: &Sample, templates: &[Template], photo: Option<&str>) -> Self {
        let q = &sample.quality;
        Self {
            id: sample.id.0,
            subject: sample.subject.0,
            quality: QualityLine {
                overall: q.overall,
                size_pixels: q.size_pixels,
                sharpness: q.sharpness,
                brightness: q.brightness,
                contrast: q.contrast,
                yaw_degrees: q.yaw_degrees,
                pitch_degrees: q.pitch_degrees,
                roll_degrees: q.roll_degrees,
                detection_score: q.detection_score,
            },
            content_sha256: hex(&sample.content_sha256),
            create_time_us: sample.create_time.as_micros(),
            folder_path: sample.folder_path.clone(),
            negative: sample.negative,
            templates: templates.iter().map(TemplateLine::of).collect(),
            photo: photo.map(str::to_owned),
        }
    }

    pub fn sample_id(&self) -> SampleId {
        SampleId(self.id)
    }

    pub fn into_sample(self) -> Result<Sample, String> {
        let q = self.quality;
        Ok(Sample {
            id: SampleId(self.id),
            subject: SubjectUid(self.subject),
            quality: Quality {
                overall: q.overall,
                size_pixels: q.size_pixels,
                sharpness: q.sharpness,
                brightness: q.brightness,
                contrast: q.contrast,
                yaw_degrees: q.yaw_degrees,
                pitch_degrees: q.pitch_degrees,
                roll_degrees: q.roll_degrees,
                detection_score: q.detection_score,
            },
            content_sha256: unhex(&self.content_sha256).ok_or("content_sha256 must be 64 lower-case hex digits")?,
            create_time: Timestamp::from_micros(self.create_time_us),
            folder_path: self.folder_path,
            negative: self.negative,
        })
    }
}

impl TemplateLine {
    fn of(template: &Template) -> Self {
        let numbers: Vec<u8> = template.values().iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { space: template.space().as_str().to_owned(), values: STANDARD.encode(numbers) }
    }

    /// The template, bit for bit as it was written.
    pub fn template(&self, dimension: usize) -> Result<Template, String> {
        let bytes = STANDARD.decode(&self.values).map_err(|_| "its values are no base64")?;
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || words.len() != dimension {
            return Err(format!("it has {} bytes; its space has {dimension} numbers of 4 bytes", bytes.len()));
        }
        let values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Template::from_stored(TemplateSpace::new(&self.space), values).map_err(|_| "it is no vector of length 1".into())
    }
}

/// Lower-case hex, as `sha256sum` prints.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate().take_while(|_| is_hex) {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    is_hex.then_some(bytes)
}
