//! Tests of the gallery: the answer of a plain scan, whole versions, and what a change copies.
//!
//! In: seeded random vectors. Out: nothing. Must not know: photos, models.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use uuid::Uuid;

use super::*;
use crate::clock::SimulatedClock;
use crate::face::Quality;
use crate::subject::{Sample, SampleId};

const SEEDS: [u64; 4] = [1, 20_260, 77, 4_096];

fn space() -> TemplateSpace {
    TemplateSpace::new("space")
}

fn uid(number: u128) -> SubjectUid {
    SubjectUid(Uuid::from_u128(number))
}

fn subject(number: u128) -> Subject {
    Subject { display_name: format!("number {number}"), ..Subject::made_up(&format!("s{number}"), number) }
}

fn template(values: &[f32]) -> Template {
    Template::normalised(space(), values).expect("it has a direction")
}

fn put_sample(owner: u128, sample: u128, template: Template) -> Mutation {
    put(owner, sample, (template, false))
}

/// A photo of somebody who must never be taken for `owner`.
fn put_negative(owner: u128, sample: u128, template: Template) -> Mutation {
    put(owner, sample, (template, true))
}

fn put(owner: u128, sample: u128, (template, negative): (Template, bool)) -> Mutation {
    let sample = Sample {
        id: SampleId(Uuid::from_u128(sample)),
        subject: uid(owner),
        quality: Quality::default(),
        content_sha256: [0; 32],
        create_time: Timestamp::default(),
        folder_path: None,
        negative,
    };
    Mutation::PutSample { sample, template, photo: Arc::from(&[][..]) }
}

fn erase_sample(owner: u128, sample: u128) -> Mutation {
    Mutation::EraseSample { subject: uid(owner), sample: SampleId(Uuid::from_u128(sample)) }
}

/// A vector of one of three kinds: anywhere, close to one of a few centres, or a repeat.
fn random_vector(rng: &mut Rng, dimension: usize, earlier: &[Template]) -> Template {
    let kind = rng.u8(0..3);
    if kind == 0 && !earlier.is_empty() {
        return earlier[rng.usize(0..earlier.len())].clone();
    }
    let centre = rng.usize(0..4);
    let values: Vec<f32> =
        (0..dimension).map(|i| if kind == 1 { rng.f32() - 0.5 } else { f32::from(i % 4 == centre) + 0.05 * (rng.f32() - 0.5) }).collect();
    template(&values)
}

/// What the gallery holds, kept the plainest way.
#[derive(Default)]
struct Plain {
    rows: Vec<(u128, u128, Template)>,
    negatives: Vec<(u128, u128, Template)>,
}

impl Plain {
    fn search(&self, probe: &Template, k: usize) -> Vec<(SubjectUid, f32)> {
        let mut best: BTreeMap<u128, f32> = BTreeMap::new();
        for (owner, _, row) in &self.rows {
            let similarity = row.similarity(probe).expect("one space");
            let known = best.entry(*owner).or_insert(similarity);
            *known = known.max(similarity);
        }
        best.retain(|owner, similarity| {
            let mut against = self.negatives.iter().filter(|negative| negative.0 == *owner);
            against.all(|(.., negative)| negative.similarity(probe).expect("one space") < *similarity)
        });
        let mut all: Vec<_> = best.into_iter().map(|(owner, similarity)| (uid(owner), similarity)).collect();
        all.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("no NaN").then(a.0.cmp(&b.0)));
        all.truncate(k);
        all
    }
}

/// Random changes of a gallery and of the plain list beside it.
fn churn(rng: &mut Rng, dimension: usize, plain: &mut Plain) -> Vec<Mutation> {
    let mut mutations = Vec::new();
    for _ in 0..rng.usize(1..60) {
        match rng.u8(0..12) {
            10 => {
                let earlier: Vec<Template> = plain.rows.iter().map(|row| row.2.clone()).collect();
                let (owner, sample) = (rng.u128(0..80), rng.u128(..));
                let row = random_vector(rng, dimension, &earlier);
                plain.negatives.push((owner, sample, row.clone()));
                mutations.push(Mutation::PutSubject(subject(owner)));
                mutations.push(put_negative(owner, sample, row));
            }
            11 if !plain.negatives.is_empty() => {
                let (owner, sample, _) = plain.negatives.swap_remove(rng.usize(0..plain.negatives.len()));
                mutations.push(erase_sample(owner, sample));
            }
            0 if !plain.rows.is_empty() => {
                let (owner, ..) = plain.rows[rng.usize(0..plain.rows.len())];
                plain.rows.retain(|row| row.0 != owner);
                plain.negatives.retain(|row| row.0 != owner);
                mutations.push(Mutation::EraseSubject(uid(owner)));
            }
            1 | 2 if !plain.rows.is_empty() => {
                let (owner, sample, _) = plain.rows.swap_remove(rng.usize(0..plain.rows.len()));
                mutations.push(erase_sample(owner, sample));
            }
            _ => {
                let earlier: Vec<Template> = plain.rows.iter().map(|row| row.2.clone()).collect();
                let (owner, sample) = (rng.u128(0..80), rng.u128(..));
                let row = random_vector(rng, dimension, &earlier);
                plain.rows.push((owner, sample, row.clone()));
                mutations.push(Mutation::PutSubject(subject(owner)));
                mutations.push(put_sample(owner, sample, row));
            }
        }
    }
    mutations
}

#[test]
fn the_answer_is_that_of_a_plain_scan_for_any_segment_size() {
    for seed in SEEDS {
        for segment_rows_max in [1, 2, 7, 64, 4096] {
            let mut rng = Rng::with_seed(seed);
            let dimension = [3, 16, 50, 128][rng.usize(0..4)];
            let gallery = Gallery::with_segments_of(segment_rows_max, space(), Arc::new(SimulatedClock::default()));
            let mut plain = Plain::default();
            for version in 1..40 {
                gallery.apply(version, &churn(&mut rng, dimension, &mut plain));
                let current = gallery.current();
                let owners: std::collections::BTreeSet<u128> = plain.rows.iter().map(|row| row.0).collect();
                assert_eq!(current.template_count(), plain.rows.len() as u64, "seed {seed}, version {version}");
                assert_eq!(current.subject_count(), owners.len() as u64, "seed {seed}, version {version}");
                let earlier: Vec<Template> = plain.rows.iter().map(|row| row.2.clone()).collect();
                for k in [0, 1, 2, 5, 1000] {
                    let probe = random_vector(&mut rng, dimension, &earlier);
                    let found: Vec<_> = current.search(&probe, k).expect("one space").iter().map(|c| (c.subject, c.similarity)).collect();
                    assert_eq!(found, plain.search(&probe, k), "seed {seed}, segments of {segment_rows_max}, version {version}, k {k}");
                }
                let asked = rng.u128(0..80);
                let probe = random_vector(&mut rng, dimension, &earlier);
                let wanted = plain.search(&probe, 1000).iter().find(|c| c.0 == uid(asked)).map(|c| c.1);
                let found = current.similarity_to(&probe, uid(asked)).expect("one space").filter(|found| !found.is_somebody_else);
                assert_eq!(found.map(|found| found.similarity), wanted, "seed {seed}, version {version}");
            }
        }
    }
}

#[test]
fn segments_stay_at_least_half_full_whatever_is_erased() {
    for seed in SEEDS {
        let mut rng = Rng::with_seed(seed);
        let gallery = Gallery::with_segments_of(16, space(), Arc::new(SimulatedClock::default()));
        let mut plain = Plain::default();
        for version in 1..80 {
            gallery.apply(version, &churn(&mut rng, 8, &mut plain));
            let current = gallery.current();
            let sizes: Vec<usize> = current.segments.iter().map(|segment| segment.rows()).collect();
            let all_but_last = &sizes[..sizes.len().saturating_sub(1)];
            assert!(all_but_last.iter().all(|rows| (8..=16).contains(rows)), "seed {seed}, version {version}: {sizes:?}");
        }
    }
}

#[test]
fn a_change_copies_only_the_segments_it_touches() {
    let gallery = Gallery::with_segments_of(10, space(), Arc::new(SimulatedClock::default()));
    let rows: Vec<Mutation> =
        (0..95).flat_map(|n| [Mutation::PutSubject(subject(n)), put_sample(n, n, template(&[1.0, n as f32]))]).collect();
    gallery.apply(1, &rows);
    let before = gallery.current();
    gallery.apply(2, &[erase_sample(33, 33), Mutation::PutSubject(subject(95)), put_sample(95, 95, template(&[1.0, 2.0]))]);
    let after = gallery.current();
    assert_eq!(before.segments.len(), 10);
    let copied: Vec<usize> = (0..10).filter(|i| !Arc::ptr_eq(&before.segments[*i], &after.segments[*i])).collect();
    assert_eq!(copied, [3, 9], "the erased row's segment and the last one");
    // Names and lists change nothing about matching.
    gallery.apply(3, &[Mutation::PutSubject(Subject { display_name: "new".into(), ..subject(5) })]);
    let renamed = gallery.current();
    assert!(after.segments.iter().zip(&renamed.segments).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert_eq!(gallery.subject(uid(5)).map(|s| s.display_name.clone()), Some("new".to_owned()));
}

#[test]
fn mutations_of_one_call_act_in_their_order() {
    let gallery = Gallery::new(space());
    let put = |sample| put_sample(1, sample, template(&[1.0, 0.0]));
    gallery.apply(1, &[Mutation::PutSubject(subject(1)), put(1), put(2)]);
    gallery.apply(2, &[put(3), Mutation::EraseSubject(uid(1)), Mutation::PutSubject(subject(1)), put(4), put(5), erase_sample(1, 5)]);
    let current = gallery.current();
    assert_eq!((current.version(), current.template_count(), current.subject_count()), (2, 1, 1));
    assert!(gallery.subject(uid(1)).is_some());
    gallery.apply(3, &[Mutation::EraseSubject(uid(1))]);
    assert_eq!(gallery.current().template_count(), 0);
    assert!(gallery.subject(uid(1)).is_none() && !gallery.current().holds(uid(1)));
    assert_eq!(current.template_count(), 1, "a held version stays as it was");
}

#[test]
fn templates_of_another_space_are_left_out_and_counted_and_never_compared() {
    let gallery = Gallery::new(space());
    let foreign = Template::normalised(TemplateSpace::new("old model"), &[1.0, 0.0]).expect("it has a direction");
    let own = template(&[1.0, 0.0]);
    let longer = template(&[1.0, 0.0, 0.0]);
    gallery.apply(1, &[Mutation::PutSubject(subject(1)), put_sample(1, 1, foreign.clone()), put_sample(1, 2, own.clone())]);
    gallery.apply(2, &[put_sample(1, 3, longer.clone())]);
    let current = gallery.current();
    assert_eq!((gallery.foreign_template_count(), current.template_count()), (2, 1));
    for probe in [&foreign, &longer] {
        assert!(matches!(current.search(probe, 1), Err(TemplateError::SpaceMismatch { .. })));
        assert!(matches!(current.similarity_to(probe, uid(1)), Err(TemplateError::SpaceMismatch { .. })));
    }
    assert_eq!(current.search(&own, 5).map(|found| found.len()), Ok(1));
}

#[test]
fn an_expired_subject_stops_matching_and_matches_again_when_extended() {
    let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(100)));
    let gallery = Gallery::with_clock(space(), clock.clone());
    let until = |micros| Mutation::PutSubject(Subject { expire_time: Some(Timestamp::from_micros(micros)), ..subject(1) });
    gallery.apply(1, &[until(200), put_sample(1, 1, template(&[1.0, 0.0])), Mutation::PutSubject(subject(2))]);
    gallery.apply(2, &[put_sample(2, 2, template(&[0.0, 1.0]))]);
    let found = |gallery: &Gallery| {
        let found = gallery.current().search(&template(&[1.0, 0.1]), 5).expect("one space");
        found.iter().map(|c| c.subject).collect::<Vec<_>>()
    };
    assert_eq!(found(&gallery), [uid(1), uid(2)]);
    clock.advance(Duration::from_micros(100));
    assert_eq!(found(&gallery), [uid(2)], "no change was applied: the time alone ends it");
    let enrolled = gallery.current().search_enrolled(&[&template(&[1.0, 0.1])], &Search::best(5)).expect("one space").remove(0);
    assert_eq!(enrolled.iter().map(|c| c.subject).collect::<Vec<_>>(), [uid(1), uid(2)]);
    assert_eq!(gallery.current().similarity_to(&template(&[1.0, 0.1]), uid(1)), Ok(None));
    assert!(gallery.current().holds(uid(1)));
    gallery.apply(3, &[until(300)]);
    assert_eq!(found(&gallery), [uid(1), uid(2)]);
    gallery.apply(4, &[until(150)]);
    assert_eq!(found(&gallery), [uid(2)]);
}

#[test]
fn who_is_closer_to_a_negative_sample_is_not_taken_for_the_subject() {
    let gallery = Gallery::with_clock(space(), Arc::new(SimulatedClock::default()));
    let subjects = [subject(1), subject(2)].map(Mutation::PutSubject);
    let anna = [put_sample(1, 1, template(&[1.0, 0.0, 0.0])), put_sample(2, 2, template(&[0.0, 0.0, 1.0]))];
    gallery.apply(1, &[&subjects[..], &anna[..]].concat());
    let twin = template(&[1.0, 0.3, 0.0]);
    let found = |gallery: &Gallery, probe: &Template| gallery.current().search(probe, 5).expect("one space")[0].subject;
    assert_eq!(found(&gallery, &twin), uid(1), "at first the twin is taken for her");

    gallery.apply(2, &[put_negative(1, 3, template(&[1.0, 0.4, 0.0]))]);
    let before = gallery.current();
    assert_eq!(found(&gallery, &twin), uid(2), "the twin is nobody but the next best");
    assert_eq!(found(&gallery, &template(&[1.0, 0.1, 0.0])), uid(1), "she herself still is");
    let closeness = before.similarity_to(&twin, uid(1)).expect("one space").expect("she is there");
    assert!(closeness.is_somebody_else && closeness.similarity > 0.95);
    assert_eq!((before.template_count(), before.subject_count()), (2, 2), "it is no template of hers");

    gallery.apply(3, &[erase_sample(1, 3)]);
    assert_eq!(found(&gallery, &twin), uid(1));
    let held = before.search(&twin, 5).expect("one space");
    assert_eq!(held[0].subject, uid(2), "a version that is held stays as it was");
}

#[test]
fn filling_equals_applying() {
    let rows = |n: u128| row_of(n % 7, n, template(&[1.0, n as f32, -2.0]));
    let filled = Gallery::with_segments_of(10, space(), Arc::new(SimulatedClock::default()));
    filled.fill(9, (0..7).map(subject).collect(), (0..55).map(|n| sound(rows(n)))).expect("nothing fails");
    let applied = Gallery::with_segments_of(10, space(), Arc::new(SimulatedClock::default()));
    applied.apply(8, &(0..7).map(|n| Mutation::PutSubject(subject(n))).collect::<Vec<_>>());
    for n in 0..55 {
        applied.apply(9, &[put_sample(n % 7, n, template(&[1.0, n as f32, -2.0]))]);
    }
    let (filled, applied) = (filled.current(), applied.current());
    let probe = template(&[0.3, 1.0, 0.2]);
    assert_eq!(filled.search(&probe, 7), applied.search(&probe, 7));
    assert_eq!((filled.version(), filled.subject_count(), filled.template_count()), (9, 7, 55));
}

fn row_of(owner: u128, sample: u128, template: Template) -> Row {
    Row { subject: uid(owner), sample: SampleId(Uuid::from_u128(sample)), negative: false, template }
}

/// A row that was read without an error.
fn sound<T>(row: T) -> Result<T, Infallible> {
    Ok(row)
}

#[test]
fn a_fill_that_fails_publishes_nothing_and_one_that_starts_with_another_space_takes_the_rest() {
    let gallery = Gallery::new(space());
    let row = |n: u128| row_of(n, n, template(&[1.0, n as f32]));
    let damaged = gallery.fill(3, vec![subject(1)], [Ok(row(1)), Err("damaged"), Ok(row(2))].into_iter());
    assert_eq!(damaged, Err("damaged"));
    assert_eq!((gallery.current().version(), gallery.current().template_count()), (0, 0));

    let gallery = Gallery::new(space());
    let foreign = Template::normalised(TemplateSpace::new("another"), &[1.0, 2.0, 3.0]).expect("a direction");
    let rows = [row_of(1, 9, foreign), row(1), row(2)];
    gallery.fill(3, (1..3).map(subject).collect(), rows.into_iter().map(sound)).expect("nothing fails");
    assert_eq!((gallery.current().template_count(), gallery.foreign_template_count()), (2, 1));
}

/// Each version holds rows of one generation only, and all of them: a reader that ever saw two
/// generations, or fewer rows, has seen a torn version.
#[test]
fn readers_during_writes_always_see_a_whole_version() {
    const SUBJECTS: u128 = 40;
    let gallery = Gallery::with_segments_of(8, space(), Arc::new(SimulatedClock::default()));
    let generation = |g: u64| {
        let mut mutations = Vec::new();
        for n in 0..SUBJECTS {
            if g > 1 {
                mutations.push(Mutation::EraseSubject(uid(u128::from(g - 1) * 1000 + n)));
            }
            mutations.push(Mutation::PutSubject(subject(u128::from(g) * 1000 + n)));
            mutations.push(put_sample(u128::from(g) * 1000 + n, u128::from(g) * 1000 + n, template(&[1.0, n as f32])));
        }
        mutations
    };
    gallery.apply(1, &generation(1));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut versions_seen = 0;
                    while !done.load(Ordering::Acquire) || versions_seen == 0 {
                        let current = gallery.current();
                        let found = current.search(&template(&[1.0, 1.0]), 1000).expect("one space");
                        let whose = |c: &Candidate| u64::try_from(c.subject.0.as_u128() / 1000).expect("small");
                        assert_eq!(found.len(), SUBJECTS as usize, "version {}", current.version());
                        assert!(found.iter().all(|c| whose(c) == current.version()), "version {}", current.version());
                        versions_seen += 1;
                    }
                })
            })
            .collect();
        for version in 2..300 {
            gallery.apply(version, &generation(version));
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().expect("the reader saw whole versions");
        }
    });
}

#[test]
fn filling_at_the_start_reserves_no_more_than_it_needs() {
    let gallery = Gallery::new(space());
    let rows = 100_000_u128;
    let row = |n: u128| sound(row_of(n, n, template(&[1.0, n as f32])));
    gallery.fill(1, (0..rows).map(subject).collect(), (0..rows).map(row)).expect("nothing fails");
    let current = gallery.current();
    let full = current.segments.iter().filter(|segment| segment.is_full()).count();
    assert_eq!((full, current.segments.len()), (24, 25), "24 full segments of 4096 and the rest");
    assert_eq!(current.template_count(), 100_000);
    let found = current.search(&template(&[1.0, 77_777.0]), 1).expect("one space");
    assert!(found[0].similarity > 0.999_999);
}

#[test]
fn probes_asked_together_on_any_number_of_cores_get_the_answers_of_each_alone() {
    for seed in [SEEDS[0], SEEDS[1]] {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let gallery = Gallery::with_segments_of(64, space(), Arc::new(SimulatedClock::default()));
        let mut plain = Plain::default();
        // Enough numbers that several cores pay.
        let mut mutations = Vec::new();
        for owner in 0..1_500 {
            let earlier: Vec<Template> = plain.rows.iter().rev().take(3).map(|row| row.2.clone()).collect();
            let row = random_vector(&mut rng, 512, &earlier);
            mutations.extend([Mutation::PutSubject(subject(owner / 2)), put_sample(owner / 2, owner, row.clone())]);
            plain.rows.push((owner / 2, owner, row));
        }
        gallery.apply(1, &mutations);
        let current = gallery.current();
        let probes: Vec<Template> = (0..29).map(|_| random_vector(&mut rng, 512, &[])).collect();
        for (count, cores) in [(1, 1), (29, 1), (29, 2), (29, 64), (13, 7)] {
            let probes: Vec<&Template> = probes[..count].iter().collect();
            let together = current.search_all(&probes, &Search { cores_max: Some(cores), ..Search::best(7) }).expect("one space");
            assert_eq!(together.len(), count);
            for (probe, found) in probes.iter().zip(together) {
                let found: Vec<_> = found.iter().map(|c| (c.subject, c.similarity)).collect();
                assert_eq!(found, plain.search(probe, 7), "seed {seed}, {count} probes on {cores} cores");
            }
        }
    }
}

#[test]
fn rows_that_their_codes_do_not_tell_apart_are_all_compared() {
    for seed in [SEEDS[0], SEEDS[3]] {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let gallery = Gallery::new(space());
        let mut plain = Plain::default();
        let mut mutations = Vec::new();
        // All close to one direction, by far closer than six bits; every third a repeat.
        for owner in 0..2_000_u128 {
            let values: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) + 1e-5 * (rng.f32() - 0.5)).collect();
            let row = if owner % 3 == 2 { plain.rows[rng.usize(0..plain.rows.len())].2.clone() } else { template(&values) };
            mutations.extend([Mutation::PutSubject(subject(owner / 2)), put_sample(owner / 2, owner, row.clone())]);
            plain.rows.push((owner / 2, owner, row));
        }
        gallery.apply(1, &mutations);
        let probes: Vec<&Template> = plain.rows.iter().step_by(211).map(|row| &row.2).collect();
        for k in [1, 10, 300] {
            let found = gallery.current().search_all(&probes, &Search::best(k)).expect("one space");
            for (probe, found) in probes.iter().zip(found) {
                let found: Vec<_> = found.iter().map(|c| (c.subject, c.similarity)).collect();
                assert_eq!(found, plain.search(probe, k), "seed {seed}, k {k}");
            }
        }
    }
}

#[test]
fn only_admitted_subjects_are_found_and_all_of_them() {
    let gallery = Gallery::new(space());
    let mut rng = Rng::with_seed(3);
    let rows: Vec<Template> = (0..300).map(|_| random_vector(&mut rng, 64, &[])).collect();
    let mutations: Vec<Mutation> = (0_u128..)
        .zip(&rows)
        .flat_map(|(owner, row)| [Mutation::PutSubject(subject(owner)), put_sample(owner, owner, row.clone())])
        .collect();
    gallery.apply(1, &mutations);
    let admits = |subject: SubjectUid| subject.0.as_u128().is_multiple_of(100);
    let search = Search { admits: &admits, ..Search::best(10) };
    let found = gallery.current().search_all(&[&rows[7]], &search).expect("one space").remove(0);
    let who: std::collections::BTreeSet<u128> = found.iter().map(|candidate| candidate.subject.0.as_u128()).collect();
    assert_eq!(who, [0, 100, 200].into());
}
