//! A file that is whole gives its people to the bit; any other gives nobody.
//!
//! In: made-up people. Out: verdicts. Must not know: the database.

use std::io::{Cursor, Read, Write};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::lines::hex;
use super::*;
use crate::clock::Timestamp;
use crate::face::{Quality, Template, TemplateSpace};
use crate::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};

type Part = (String, Vec<u8>);

/// A person of `photos` samples, each with a template of random numbers in `space`.
pub(crate) fn person(random: &mut fastrand::Rng, (id, photos, space): (&str, u8, &str)) -> Person {
    let subject = Subject {
        id: SubjectId::parse(id).expect("a good id"),
        uid: SubjectUid(Uuid::new_v4()),
        display_name: format!("The \"person\" called {id}\u{2028}"),
        watchlists: vec!["night".into(), "staff".into()],
        attributes: [("floor".to_owned(), "3".to_owned())].into(),
        consent_reference: "file 7".into(),
        expire_time: None,
        origin: Origin::Folder,
        create_time: Timestamp::from_micros(1),
        update_time: Timestamp::from_micros(2),
        revision: 3,
    };
    let samples = (0..photos).map(|number| {
        let photo: Vec<u8> =
            [0xff, 0xd8].into_iter().chain(std::iter::repeat_with(|| random.u8(..)).take(700 + usize::from(number))).collect();
        let values: Vec<f32> = (0..32).map(|_| random.f32() - 0.5).collect();
        let sample = Sample {
            id: SampleId(Uuid::new_v4()),
            subject: subject.uid,
            quality: Quality { overall: 0.7, yaw_degrees: -12.5, detection_score: 0.1 + 0.2, ..Quality::default() },
            content_sha256: Sha256::digest(&photo).into(),
            create_time: Timestamp::from_micros(5),
            folder_path: Some(format!("{id}/{number}.jpg")),
            negative: number == 2,
        };
        let template = Template::normalised(TemplateSpace::new(space), &values).expect("it has a direction");
        PortableSample { sample, templates: vec![template], photo: Some(photo.into()) }
    });
    let samples = samples.collect();
    Person { subject, samples }
}

/// The file of `people`, who stand in the order of their ids.
pub(crate) fn file_of(people: &[Person]) -> Vec<u8> {
    let mut manifest = Manifest::new(1_795_000_000_000_000);
    manifest.subjects = people.len() as u64;
    let samples = || people.iter().flat_map(|person| person.samples.iter().map(move |sample| (&person.subject, sample)));
    manifest.samples = samples().count() as u64;
    manifest.photos = samples().filter(|(_, sample)| sample.photo.is_some()).count() as u64;
    for template in samples().flat_map(|(_, sample)| &sample.templates) {
        match manifest.template_spaces.iter_mut().find(|space| space.name == template.space().as_str()) {
            Some(space) => space.templates += 1,
            None => manifest.template_spaces.push(SpaceFacts {
                name: template.space().to_string(),
                dimension: template.values().len(),
                templates: 1,
            }),
        }
    }
    let photo = |(subject, sample): &(&Subject, &PortableSample)| {
        sample.photo.as_ref().map(|bytes| (photo_path(&subject.id, sample.sample.id, bytes), bytes.clone()))
    };
    let mut writer = Writer::begin(Cursor::new(Vec::new()), &manifest).expect("begun");
    writer.subjects(|lines| people.iter().try_for_each(|person| lines.subject(&person.subject))).expect("written");
    let lines = |lines: &mut Lines<'_>| {
        samples().try_for_each(|both| lines.sample(&both.1.sample, &both.1.templates, photo(&both).map(|(path, _)| path).as_deref()))
    };
    writer.samples(lines).expect("written");
    samples().filter_map(|both| photo(&both)).for_each(|(path, bytes)| writer.photo(&path, &bytes).expect("written"));
    let sums = |lines: &mut Lines<'_>| {
        samples().try_for_each(|both| photo(&both).map_or(Ok(()), |(path, _)| lines.sum(&both.1.sample.content_sha256, &path)))
    };
    writer.finish(sums).expect("finished").into_inner()
}

/// `bytes` as a file that is open.
pub(crate) fn opened(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

fn read(bytes: &[u8]) -> Result<Vec<Person>, PortableError> {
    let mut people = Vec::new();
    Portable::open(opened(bytes))?.each_person(|person| {
        people.push(person);
        Ok::<_, PortableError>(())
    })?;
    Ok(people)
}

fn people() -> Vec<Person> {
    let mut random = fastrand::Rng::with_seed(31);
    [("anna", 2, "sface-1"), ("bert", 1, "other"), ("joão-2", 3, "sface-1")].map(|who| person(&mut random, who)).into()
}

/// The parts of a good file but its sums.
fn parts(bytes: &[u8]) -> Vec<Part> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        let (name, mut bytes) = (entry.path().expect("a path").display().to_string(), Vec::new());
        entry.read_to_end(&mut bytes).expect("read");
        (name, bytes)
    });
    entries.filter(|(name, _)| name != SUMS).collect()
}

/// Packs parts as another tool would, with sums that are right.
fn packed(mut parts: Vec<Part>) -> Vec<u8> {
    let sums: String = parts.iter().map(|(name, bytes)| format!("{}  {name}\n", hex(&Sha256::digest(bytes)))).collect();
    parts.push((SUMS.into(), sums.into_bytes()));
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in parts {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).expect("packed");
    }
    tar.into_inner().expect("packed")
}

/// A good file of which one part was changed by somebody who knows about sums.
fn forged(part: &str, change: impl Fn(&str) -> String) -> Result<Vec<Person>, PortableError> {
    let mut parts = parts(&file_of(&people()));
    let found = parts.iter_mut().find(|(name, _)| name == part).expect("a part");
    let changed = change(std::str::from_utf8(&found.1).expect("text"));
    assert_ne!(changed.as_bytes(), found.1, "the test changes something");
    found.1 = changed.into_bytes();
    read(&packed(parts))
}

#[test]
fn people_come_back_to_the_bit() {
    let mut people = people();
    let in_another_space = Template::normalised(TemplateSpace::new("newer"), &[0.3; 8]).expect("it has a direction");
    people[0].samples[1].templates.push(in_another_space);
    let file = file_of(&people);
    assert_eq!(read(&file).as_ref(), Ok(&people));
    assert_eq!(read(&packed(parts(&file))).as_ref(), Ok(&people), "packed again by another tool");
    assert_eq!(read(&file_of(&[])), Ok(Vec::new()));
    let without_photos = people.into_iter().map(|mut person| {
        person.samples.iter_mut().for_each(|sample| sample.photo = None);
        person
    });
    let without_photos: Vec<Person> = without_photos.collect();
    assert_eq!(read(&file_of(&without_photos)), Ok(without_photos));
}

#[test]
fn a_file_that_is_cut_anywhere_gives_nobody() {
    let file = file_of(&people());
    // Around the borders of blocks, and in the middle of them.
    let lengths = (0..file.len()).filter(|length| matches!(length % 512, 0 | 1 | 300 | 511));
    for length in lengths {
        let outcome = read(&file[..length]);
        assert!(matches!(outcome, Err(PortableError::Cut(_) | PortableError::NotOurs(_))), "{length} of {}: {outcome:?}", file.len());
    }
    assert!(matches!(read(&file[..file.len() / 2]), Err(PortableError::Cut(_))));
}

#[test]
fn a_byte_that_was_altered_anywhere_gives_nobody() {
    let file = file_of(&people());
    let mut random = fastrand::Rng::with_seed(32);
    let headers: Vec<u64> = {
        let mut archive = tar::Archive::new(&file[..]);
        archive.entries().expect("a tar").map(|entry| entry.expect("an entry").raw_header_position()).collect()
    };
    let (mut altered, mut named) = (file.clone(), 0);
    for at in (0..file.len()).filter(|at| at % 7 == 0) {
        // The field that sums a header up has bytes behind its number that mean nothing.
        if headers.iter().any(|header| (148..156).contains(&(at as u64).wrapping_sub(*header))) {
            continue;
        }
        altered[at] ^= 1 << random.u8(0..8);
        let outcome = read(&altered);
        assert!(outcome.is_err(), "byte {at} of {}", file.len());
        named += usize::from(matches!(outcome, Err(PortableError::Altered { .. })));
        altered[at] = file[at];
    }
    assert!(named > file.len() / 7 / 2, "{named} were told by their part");
}

#[test]
fn another_format_version_is_told_as_such() {
    let newer = forged(MANIFEST, |text| text.replace("\"format_version\": 1", "\"format_version\": 7, \"something_new\": []"));
    assert_eq!(newer, Err(PortableError::WrongVersion { found: 7 }));
    assert!(matches!(forged(MANIFEST, |text| text.replace(FORMAT, "holiday-photos")), Err(PortableError::NotOurs(_))));
}

#[test]
fn a_template_that_is_no_unit_vector_of_its_space_gives_nobody() {
    let with_values = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        forged(SAMPLES, move |text| {
            let second = text.find('\n').expect("lines") + 1;
            let at = second + text[second..].find("\"values\":\"").expect("a template") + 10;
            let end = at + text[at..].find('"').expect("its end");
            format!("{}{encoded}{}", &text[..at], &text[end..])
        })
    };
    let mut unit = [0.0_f32; 32];
    unit[3] = 1.0;
    assert!(with_values(&unit).is_ok(), "the forger is good at it");
    for (what, values) in [
        ("NaN", [f32::NAN; 32].as_slice()),
        ("infinity", &[f32::INFINITY; 32]),
        ("zeros", &[0.0; 32]),
        ("too long", &[0.5; 32]),
        ("another dimension", &unit[..31]),
        ("none", &[]),
    ] {
        let outcome = with_values(values);
        assert!(matches!(outcome, Err(PortableError::BadTemplate { line: 2, .. })), "{what}: {outcome:?}");
    }
    let doubled = forged(SAMPLES, |text| {
        let at = text.find("{\"space\"").expect("a template");
        let end = at + text[at..].find('}').expect("its end") + 1;
        format!("{},{}", &text[..end], &text[at..])
    });
    assert!(matches!(doubled, Err(PortableError::BadTemplate { line: 1, .. })), "{doubled:?}");
    let none = forged(SAMPLES, |text| {
        let at = text.find("{\"space\"").expect("a template");
        let end = at + text[at..].find('}').expect("its end") + 1;
        format!("{}{}", &text[..at], &text[end..])
    });
    assert!(matches!(none, Err(PortableError::BadTemplate { line: 1, .. })), "{none:?}");
    let other_space = forged(SAMPLES, |text| text.replacen("\"space\":\"sface-1\"", "\"space\":\"unheard-of\"", 1));
    assert!(matches!(other_space, Err(PortableError::BadTemplate { line: 1, .. })), "{other_space:?}");
}

#[test]
fn lines_that_make_no_sense_give_nobody() {
    let bad = |outcome: Result<Vec<Person>, PortableError>, file: &str| match outcome {
        Err(PortableError::BadLine { file: found, .. }) => assert_eq!(found, file),
        other => panic!("{other:?}"),
    };
    bad(forged(SUBJECTS, |text| text.replacen("\"id\":\"anna\"", "\"id\":\"../anna\"", 1)), SUBJECTS);
    bad(forged(SUBJECTS, |text| text.replacen("\"id\":\"anna\"", "\"id\":\"zoe\"", 1)), SAMPLES);
    bad(forged(SUBJECTS, |text| text.replacen("\"revision\"", "\"is_twin\":true,\"revision\"", 1)), SUBJECTS);
    bad(forged(SUBJECTS, |text| text.lines().skip(1).map(|line| format!("{line}\n")).collect()), SUBJECTS);
    bad(forged(SUBJECTS, |text| text.lines().rev().map(|line| format!("{line}\n")).collect()), SUBJECTS);
    bad(forged(SUBJECTS, |text| text.trim_end().to_owned()), SUBJECTS);
    bad(forged(SAMPLES, |text| text.replacen("\"content_sha256\":\"", "\"content_sha256\":\"00", 1)), SAMPLES);
    bad(forged(SAMPLES, |text| text.replacen("photos/anna/", "photos/bert/", 1)), SAMPLES);
    bad(forged(SAMPLES, |text| format!("{}{}", text, text.lines().next().map(|line| format!("{line}\n")).expect("a line"))), SAMPLES);
    let miscounted = forged(MANIFEST, |text| text.replacen("\"samples\": 6", "\"samples\": 7", 1));
    assert!(matches!(miscounted, Err(PortableError::NotOurs(_))), "{miscounted:?}");
}

#[test]
fn a_part_that_is_missing_added_or_moved_gives_nobody() {
    let good = parts(&file_of(&people()));
    for part in 0..good.len() {
        let mut missing = good.clone();
        missing.remove(part);
        assert!(read(&packed(missing)).is_err(), "without {}", good[part].0);
        let mut added = good.clone();
        added.insert(part, ("photos/anna/of-nobody.jpg".into(), vec![1]));
        assert!(read(&packed(added)).is_err(), "more before {}", good[part].0);
    }
    let mut moved = good.clone();
    moved.swap(3, 4);
    assert!(read(&packed(moved)).is_err());
    let mut outside = good;
    outside[3].0 = "photos/anna/x/evil.jpg".into();
    assert!(read(&packed(outside)).is_err());
}
