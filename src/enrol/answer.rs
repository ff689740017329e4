//! Answers as records that can be stored and read again: what a repeated request returns.
//!
//! In: answers. Out: serde records, and answers from them; `None` where a record is of another
//! make.
//! Must not know: requests, the store.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::folder::REMARKS_MAX;
use super::{Enrolled, Erased, FileRemark, ReloadReport, SampleInfo};
use crate::clock::Timestamp;
use crate::face::Quality;
use crate::store::Committed;
use crate::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};

/// Something that a call answers.
pub(super) trait Answer: Sized {
    /// Its storable form.
    type Record: Serialize + DeserializeOwned;
    fn to_record(&self) -> Self::Record;
    fn from_record(record: Self::Record) -> Option<Self>;
}

#[derive(Serialize, Deserialize)]
pub(super) struct SubjectRecord {
    id: String,
    uid: SubjectUid,
    display_name: String,
    watchlists: Vec<String>,
    attributes: BTreeMap<String, String>,
    consent_reference: String,
    expire_time_us: Option<i64>,
    is_from_folder: bool,
    create_time_us: i64,
    update_time_us: i64,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SampleRecord {
    id: Uuid,
    subject: SubjectUid,
    /// In the order of [`Quality`]'s fields.
    quality: [f32; 9],
    content_sha256: [u8; 32],
    create_time_us: i64,
    folder_path: Option<String>,
    similarity_to_rest: Option<f32>,
    #[serde(default)]
    negative: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EnrolledRecord {
    subject: Option<SubjectRecord>,
    samples: Vec<SampleRecord>,
    version: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ErasedRecord {
    uid: SubjectUid,
    version: u64,
    templates_erased: u32,
    samples_erased: u32,
    snapshots_erased: u32,
    time_us: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReloadRecord {
    version: u64,
    added: u32,
    changed: u32,
    removed: u32,
    unchanged_samples: u32,
    /// How many remarks there were, and not what they said: paths and messages name people, whose erasure would not find them here.
    #[serde(default)]
    files_refused: usize,
    #[serde(default)]
    files_doubtful: usize,
}

impl Answer for Subject {
    type Record = SubjectRecord;

    fn to_record(&self) -> SubjectRecord {
        SubjectRecord {
            id: self.id.as_str().to_owned(),
            uid: self.uid,
            display_name: self.display_name.clone(),
            watchlists: self.watchlists.clone(),
            attributes: self.attributes.clone(),
            consent_reference: self.consent_reference.clone(),
            expire_time_us: self.expire_time.map(Timestamp::as_micros),
            is_from_folder: self.origin == Origin::Folder,
            create_time_us: self.create_time.as_micros(),
            update_time_us: self.update_time.as_micros(),
            revision: self.revision,
        }
    }

    fn from_record(record: SubjectRecord) -> Option<Self> {
        Some(Self {
            id: SubjectId::parse(&record.id).ok()?,
            uid: record.uid,
            display_name: record.display_name,
            watchlists: record.watchlists,
            attributes: record.attributes,
            consent_reference: record.consent_reference,
            expire_time: record.expire_time_us.map(Timestamp::from_micros),
            origin: if record.is_from_folder { Origin::Folder } else { Origin::Rpc },
            create_time: Timestamp::from_micros(record.create_time_us),
            update_time: Timestamp::from_micros(record.update_time_us),
            revision: record.revision,
        })
    }
}

impl Answer for (Subject, u32) {
    type Record = (SubjectRecord, u32);

    fn to_record(&self) -> Self::Record {
        (self.0.to_record(), self.1)
    }

    fn from_record((subject, samples): Self::Record) -> Option<Self> {
        Some((Subject::from_record(subject)?, samples))
    }
}

impl Answer for SampleInfo {
    type Record = SampleRecord;

    fn to_record(&self) -> SampleRecord {
        let Sample { id, subject, quality: q, content_sha256, create_time, folder_path, negative } = &self.sample;
        SampleRecord {
            id: id.0,
            subject: *subject,
            quality: [
                q.overall,
                q.size_pixels,
                q.sharpness,
                q.brightness,
                q.contrast,
                q.yaw_degrees,
                q.pitch_degrees,
                q.roll_degrees,
                q.detection_score,
            ],
            content_sha256: *content_sha256,
            create_time_us: create_time.as_micros(),
            folder_path: folder_path.clone(),
            negative: *negative,
            similarity_to_rest: self.similarity_to_rest,
        }
    }

    fn from_record(record: SampleRecord) -> Option<Self> {
        let [overall, size_pixels, sharpness, brightness, contrast, yaw_degrees, pitch_degrees, roll_degrees, detection_score] =
            record.quality;
        let sample = Sample {
            id: SampleId(record.id),
            subject: record.subject,
            quality: Quality {
                overall,
                size_pixels,
                sharpness,
                brightness,
                contrast,
                yaw_degrees,
                pitch_degrees,
                roll_degrees,
                detection_score,
            },
            content_sha256: record.content_sha256,
            create_time: Timestamp::from_micros(record.create_time_us),
            folder_path: record.folder_path,
            negative: record.negative,
        };
        Some(Self { sample, similarity_to_rest: record.similarity_to_rest })
    }
}

impl Answer for Enrolled {
    type Record = EnrolledRecord;

    fn to_record(&self) -> EnrolledRecord {
        EnrolledRecord {
            subject: self.subject.as_ref().map(Answer::to_record),
            samples: self.samples.iter().map(Answer::to_record).collect(),
            version: self.version,
        }
    }

    fn from_record(record: EnrolledRecord) -> Option<Self> {
        let subject = match record.subject {
            Some(subject) => Some(Subject::from_record(subject)?),
            None => None,
        };
        let samples = record.samples.into_iter().map(SampleInfo::from_record).collect::<Option<_>>()?;
        Some(Self { subject, samples, version: record.version })
    }
}

impl Answer for Erased {
    type Record = ErasedRecord;

    fn to_record(&self) -> ErasedRecord {
        let Committed { version, templates_erased, samples_erased, snapshots_erased } = self.committed;
        ErasedRecord { uid: self.uid, version, templates_erased, samples_erased, snapshots_erased, time_us: self.time.as_micros() }
    }

    fn from_record(record: ErasedRecord) -> Option<Self> {
        let ErasedRecord { uid, version, templates_erased, samples_erased, snapshots_erased, time_us } = record;
        let committed = Committed { version, templates_erased, samples_erased, snapshots_erased };
        Some(Self { uid, committed, time: Timestamp::from_micros(time_us) })
    }
}

/// A gallery version.
impl Answer for u64 {
    type Record = u64;

    fn to_record(&self) -> u64 {
        *self
    }

    fn from_record(record: u64) -> Option<Self> {
        Some(record)
    }
}

impl Answer for ReloadReport {
    type Record = ReloadRecord;

    fn to_record(&self) -> ReloadRecord {
        ReloadRecord {
            version: self.version,
            added: self.added,
            changed: self.changed,
            removed: self.removed,
            unchanged_samples: self.unchanged_samples,
            files_refused: self.refused.len(),
            files_doubtful: self.doubtful.len(),
        }
    }

    fn from_record(record: ReloadRecord) -> Option<Self> {
        let of_all = |count: usize, reason, was| {
            let least = if count > REMARKS_MAX { "at least " } else { "" };
            let count_told = count.min(REMARKS_MAX);
            let message = format!("files {was}: {least}{count_told}; the first answer named them: reload again for what is still so");
            (count > 0).then(|| FileRemark { path: String::new(), reason, message }).into_iter().collect()
        };
        Some(Self {
            version: record.version,
            added: record.added,
            changed: record.changed,
            removed: record.removed,
            unchanged_samples: record.unchanged_samples,
            refused: of_all(record.files_refused, "MORE_FILES_REFUSED", "that were refused"),
            doubtful: of_all(record.files_doubtful, "MORE_FILES_DOUBTFUL", "that are doubtful"),
        })
    }
}
