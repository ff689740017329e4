//! Thresholds from planted scores whose rates are known.

use super::*;

const SEED: u64 = 5;

/// A calibration of `count` non-mated scores that are spread evenly from -0.5 to 0.5.
fn even(count: u32) -> Calibration {
    let mut non_mated = Histogram::over(-1.0, 1.0, 0.002);
    (0..count).for_each(|i| non_mated.add(i as f32 / count as f32 - 0.5));
    let mut mated = Histogram::over(-1.0, 1.0, 0.002);
    (0..10).for_each(|i| mated.add(0.1 * i as f32 + 0.05));
    let bands = vec![Band::new(0.0, (non_mated, mated), 10_000)];
    Calibration::new(&TemplateSpace::new("space"), "cosine", ("planted", "none"), Measured { people: 10_000, photos: 20_000, bands })
}

const ONE: Asked = Asked { comparisons: 1, quality: 1.0 };

#[test]
fn a_threshold_stands_for_its_rate() {
    let calibration = even(100_000);
    for rate in [0.5, 0.1, 0.01, 0.001] {
        let found = calibration.threshold(rate, ONE);
        assert!((f64::from(found.threshold) - (0.5 - rate)).abs() <= 0.002, "{rate}: {found:?}");
        assert!(found.is_supported && found.rate == rate && found.interval.holds(rate), "{found:?}");
        assert!((calibration.rate(found.threshold, ONE) - rate).abs() <= 0.002, "{rate}");
    }
    assert_eq!(calibration.fnmr(0.5, 1.0), (5, 10));
}

#[test]
fn the_threshold_rises_with_the_gallery_and_falls_again() {
    let calibration = even(1_000_000);
    let at = |comparisons| calibration.threshold(0.3, Asked { comparisons, quality: 1.0 }).threshold;
    assert!(at(1) < at(10) && at(10) < at(100), "{} {} {}", at(1), at(10), at(100));
    assert!((f64::from(at(100)) - (0.5 - crate::rates::fmr_of_fpir(0.3, 100))).abs() <= 0.002);
}

#[test]
fn what_the_counts_do_not_support_is_refused_and_not_extrapolated() {
    let calibration = even(50);
    let found = calibration.threshold(1e-6, ONE);
    // Three of fifty reached it: at most one in six would, with 95 % confidence.
    assert!(!found.is_supported && found.rate > 3.0 / 50.0 && found.rate < 0.17, "{found:?}");
    assert!(found.threshold > 0.4 && found.threshold <= 0.5, "{found:?}");
    // A fixed threshold that no stranger reached stands for no better rate either.
    assert_eq!(calibration.rate(0.9, ONE), 3.0 / 50.0);
    let among = calibration.threshold(1e-6, Asked { comparisons: 100, quality: 1.0 });
    assert_eq!((among.threshold, among.is_supported), (found.threshold, false));
    assert!((among.rate - crate::rates::fpir_of_fmr(found.rate, 100)).abs() < 1e-12);
}

#[test]
fn what_a_threshold_stands_for_lies_in_its_interval_also_where_no_rate_was_looked_at() {
    let mut calibration = even(100_000);
    // The same people were often alike: at one in a thousand the truth may be a third or three times of it.
    calibration.bands[0].spread = vec![Spread { rate: 1e-3, low: 3e-4, high: 3e-3 }, Spread { rate: 1e-2, low: 7e-3, high: 1.3e-2 }];
    for rate in [0.1, 0.01, 0.001, 5e-4, 1e-4, 1e-6, 1e-9] {
        for comparisons in [1, 100, 10_000] {
            let found = calibration.threshold(rate, Asked { comparisons, quality: 1.0 });
            assert!(found.interval.holds(found.rate), "{rate} among {comparisons}: {found:?}");
        }
    }
    for rate in [5e-4, 2e-4, 1e-4] {
        let Interval { low, high } = calibration.threshold(rate, ONE).interval;
        assert!(low <= 0.3 * rate && high >= 3.0 * rate, "{rate} is not known better than 0.001: {low} to {high}");
    }
}

#[test]
fn many_photos_of_few_people_show_no_more_than_the_people_do() {
    let mut calibration = even(1_000_000);
    calibration.bands[0] = Band { people: 20, pairs: 190, ..calibration.bands[0].clone() };
    assert_eq!(calibration.comparisons(1.0), 190);
    let found = calibration.threshold(1e-4, ONE);
    assert!(!found.is_supported && found.rate > 3.0 / 190.0 && found.rate < 10.0 / 190.0, "{found:?}");
}

#[test]
fn a_rate_is_no_lower_than_what_was_counted() {
    // Ten look-alikes, far above everybody else: no smooth tail reaches them.
    let mut calibration = even(45_000);
    (0..10).for_each(|_| calibration.bands[0].non_mated.add(0.75));
    let band = calibration.bands.remove(0);
    calibration.bands.push(Band::new(0.0, (band.non_mated, band.mated), 10_000));
    let rate = calibration.rate(0.7, ONE);
    assert!(rate >= 10.0 / 45_010.0, "{rate}");
}

#[test]
fn poor_probes_are_judged_by_poor_probes() {
    let mut calibration = even(10_000);
    let mut poor = Histogram::over(-1.0, 1.0, 0.002);
    (0..10_000).for_each(|i| poor.add(i as f32 / 10_000.0 - 0.3));
    calibration.bands[0].quality_min = 0.5;
    calibration.bands.insert(0, Band::new(0.0, (poor, Histogram::over(-1.0, 1.0, 0.002)), 10_000));
    let at = |quality| calibration.threshold(0.01, Asked { comparisons: 1, quality }).threshold;
    assert!((at(0.9) - 0.49).abs() < 0.003 && (at(0.5) - 0.49).abs() < 0.003 && (at(0.49) - 0.69).abs() < 0.003);
    assert_eq!(at(f32::NAN), at(0.0));
    // Where strangers look less alike in poor pictures, nobody is let in more easily for one.
    let mut poor = Histogram::over(-1.0, 1.0, 0.002);
    (0..10_000).for_each(|i| poor.add(i as f32 / 10_000.0 - 0.7));
    calibration.bands[0] = Band::new(0.0, (poor, Histogram::over(-1.0, 1.0, 0.002)), 10_000);
    let at = |quality| calibration.threshold(0.01, Asked { comparisons: 1, quality }).threshold;
    assert_eq!(at(0.1), at(0.9));
}

#[test]
fn a_threshold_never_falls_where_the_gallery_grows() {
    println!("seed {SEED}");
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut non_mated = Histogram::over(-1.0, 1.0, 0.002);
    (0..200_000).for_each(|_| non_mated.add((0..6).map(|_| random.f32() - 0.5).sum::<f32>() / 4.0));
    let mut calibration = even(50);
    calibration.bands = vec![Band::new(0.0, (non_mated, Histogram::over(-1.0, 1.0, 0.002)), 10_000)];
    let thresholds: Vec<f32> =
        (1..400).map(|comparisons| calibration.threshold(0.01, Asked { comparisons, quality: 1.0 }).threshold).collect();
    assert!(thresholds.is_sorted(), "{thresholds:?}");
}

#[test]
fn a_gallery_brings_its_people_for_good_pictures_and_leaves_poor_ones_as_they_are() {
    let mut known = even(10_000);
    known.bands[0].quality_min = 0.5;
    known.bands.insert(0, Band { quality_min: 0.0, ..even(10_000).bands.remove(0) });
    let measured = measure(&people(40), (-1.0, 1.0), &dot);
    let both = known.with_good(measured, ("a gallery", "none"));
    assert_eq!((both.bands[0].people, both.bands[1].people, both.is_of_gallery), (10_000, 40, true));
    assert_eq!((both.comparisons(0.1), both.comparisons(0.9)), (10_000, 780));
}

#[test]
fn a_file_gives_back_what_was_written_and_other_files_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("c.json");
    let written = even(10_000);
    let text = written.to_json().expect("it is finite");
    std::fs::write(&path, &text).expect("it is written");
    assert_eq!(Calibration::load(&path, &TemplateSpace::new("space")).expect("it is good"), written);
    let other = Calibration::load(&path, &TemplateSpace::new("other")).expect_err("it is of another space");
    assert!(matches!(&other, CalibrationError::OtherSpace { .. }) && other.to_string().contains("doorward calibrate"), "{other}");
    for (from, to) in [
        ("\"format\":1", "\"format\":9"),
        ("\"quality_min\":0.0", "\"quality_min\":0.1"),
        ("\"step\":0.002", "\"step\":0.0"),
        ("\"people\":10000,\"pairs\"", "\"people\":29,\"pairs\""),
        ("{", ""),
    ] {
        let reason = Calibration::parse(&text.replacen(from, to, 1)).expect_err(to);
        assert!(!reason.is_empty(), "{to}");
    }
}

/// Unit vectors in eight dimensions: each person has a direction, each photo is a little off it.
fn people(count: usize) -> Vec<Scored> {
    println!("seed {SEED}");
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut direction = |near: Option<&[f32]>| {
        let mut values: Vec<f32> = (0..8).map(|i| near.map_or(0.0, |near| 3.0 * near[i]) + random.f32() - 0.5).collect();
        let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        values.iter_mut().for_each(|value| *value /= norm);
        values
    };
    let mut faces = Vec::new();
    for person in 0..count {
        let own = direction(None);
        for photo in [2 * person, 2 * person + 1] {
            let values = direction(Some(&own));
            faces.push(Scored { person: person + 7, photo, quality: 0.8, is_worsened: false, values: values.clone() });
            faces.push(Scored { person: person + 7, photo, quality: 0.3, is_worsened: true, values });
        }
    }
    faces
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn everybody_is_compared_with_everybody_else_once_and_no_photo_with_itself() {
    let measured = measure(&people(30), (-1.0, 1.0), &dot);
    assert_eq!((measured.people, measured.photos, measured.bands.len()), (30, 60, 2));
    let (poor, good) = (&measured.bands[0], &measured.bands[1]);
    // 60 photos: 30 pairs of one person; a worsened photo is a probe of the other photo of its person.
    assert_eq!((good.mated.total(), good.non_mated.total()), (30, 60 * 59 / 2 - 30));
    assert_eq!((poor.mated.total(), poor.non_mated.total()), (60, 60 * 58));
    assert_eq!((poor.quality_min, good.quality_min), (0.0, 0.5));
    assert_eq!((good.mated.reaching(0.5), good.mated.reaching(0.9999)), (30, 0), "mates are close, and no photo is its own");
}

#[test]
fn a_band_rests_on_the_pairs_of_people_that_were_compared_in_it() {
    // Of 100 people five have good photos, several each, and the others poor ones.
    let mut faces = people(100);
    for face in faces.iter_mut().filter(|face| face.person >= 7 + 5) {
        face.quality = 0.3;
    }
    let measured = measure(&faces, (-1.0, 1.0), &dot);
    assert_eq!(measured.bands.iter().map(|band| band.pairs).collect::<Vec<_>>(), [100 * 99 / 2, 5 * 4 / 2]);
    let calibration = Calibration::new(&TemplateSpace::new("space"), "cosine", ("planted", "none"), measured);
    assert_eq!(calibration.comparisons(1.0), 10, "photos of five people, however many, show no more");
}

#[test]
fn a_rate_lies_within_its_own_interval_and_fewer_people_know_less() {
    let width = |count| {
        let measured = measure(&people(count), (-1.0, 1.0), &dot);
        let spread = measured.bands[1].spread.iter().find(|spread| spread.rate == 1e-1).copied().expect("there are enough");
        assert!(spread.low < spread.rate && spread.rate < spread.high, "{spread:?}");
        spread.high - spread.low
    };
    assert!(width(20) > 1.5 * width(120));
}
