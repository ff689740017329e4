//! People who walk past a camera of which few frames are analysed: scenes under a simulated clock, by the geometry of a corridor.
//!
//! The camera hangs at 2.4 m and sees 90 degrees in 1920 by 1080 pixels; faces are 0.15 m wide and 0.2 m high, at 1.6 m.

use std::iter;
use std::ops::Range;

use super::*;
use crate::camera::{NormalisedPoint, Region};
use crate::event::Event;
use crate::face::Photometry;
use crate::gallery::GalleryVersion;
use crate::liveness::LivePolicy;
use crate::pipeline::scene::Scene;
use crate::visit::Layout;

const PICTURE: Size = Size { width: 1920, height: 1080 };
/// Pixels of a metre that is one metre away.
const FOCAL_PIXELS: f32 = 960.0;
const BELOW_CAMERA: f32 = 0.8;
const FACE: (f32, f32) = (0.15, 0.2);
/// Faces are found from so near on, in metres.
const FOUND_WITHIN: f32 = 5.0;
const SHARP: Photometry = Photometry { sharpness: 50.0, brightness: 0.5, contrast: 0.2 };
const RATES: [u32; 4] = [1, 2, 5, 25];
const SWEEPS_A_SECOND: u32 = 4;
/// So far apart are the moments at which something may happen: a frame at any rate, or a sweep.
const STEP: Duration = Duration::from_millis(10);

/// Somebody who walks straight on: metres to the right of the camera and away from it, and metres a second.
#[derive(Clone, Copy, Debug)]
struct Walker {
    person: usize,
    from: (f32, f32),
    pace: (f32, f32),
    /// When the walk begins, and until when somebody is there who is gone then.
    begins: Duration,
    until: Duration,
    /// Whether a face can be made out, or the picture of it misleads.
    is_usable: bool,
    /// How much it looks alive, where that is measured.
    live_score: Option<f32>,
}

/// Somebody to be made somebody else of.
const STANDS: Walker = Walker {
    person: 1,
    from: (0.0, 2.0),
    pace: (0.0, 0.0),
    begins: Duration::ZERO,
    until: Duration::MAX,
    is_usable: true,
    live_score: None,
};

impl Walker {
    fn seen(&self, after: Duration) -> Option<Detection> {
        let seconds = after.checked_sub(self.begins).filter(|_| after < self.until)?.as_secs_f32();
        let (right, away) = (self.from.0 + self.pace.0 * seconds, self.from.1 + self.pace.1 * seconds);
        let metre = FOCAL_PIXELS / away.max(0.1);
        let (width, height) = (FACE.0 * metre, FACE.1 * metre);
        let (x, y) = (960.0 + right * metre - width / 2.0, 540.0 + BELOW_CAMERA * metre - height / 2.0);
        let is_in_picture = x >= 0.0 && x + width <= 1920.0 && y >= 0.0 && y + height <= 1080.0;
        let landmarks =
            Landmarks(LANDMARKS.map(|(at_x, at_y)| Point { x: x + (at_x - 20.0) / 72.0 * width, y: y + (at_y - 20.0) / 90.0 * height }));
        let face = Detection { box_in_frame: Rect { x, y, width, height }, score: 0.95, landmarks };
        (is_in_picture && (0.5..FOUND_WITHIN).contains(&away)).then_some(face)
    }

    /// From one side of the picture to the other, or from afar up to the camera.
    fn any(random: &mut fastrand::Rng) -> Self {
        let pace = 0.9 + 0.4 * random.f32();
        let begins = Duration::from_millis(random.u64(0..1_000));
        if random.bool() {
            let (away, side) = (2.0 + 1.5 * random.f32(), if random.bool() { 1.0 } else { -1.0 });
            Self { from: (-side * away, away), pace: (side * pace, 0.0), begins, ..STANDS }
        } else {
            Self { from: (random.f32() - 0.5, FOUND_WITHIN), pace: (0.0, -pace), begins, ..STANDS }
        }
    }
}

/// A corridor's camera, and who is enrolled.
struct Corridor {
    scene: Scene,
    gallery: Arc<GalleryVersion>,
    uids: BTreeMap<usize, SubjectUid>,
    clock: Arc<SimulatedClock>,
    pixels: Arc<Vec<u8>>,
    /// From when on until when no frame comes.
    gap: Range<Duration>,
    told: Vec<Event>,
}

impl Corridor {
    fn watched(settings: SceneSettings) -> Self {
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000_000)));
        let gallery = Gallery::with_clock(space(), clock.clone());
        let uids = BTreeMap::from([1, 2].map(|number| (number, enrol(&gallery, number))));
        let scene = Scene::new(&camera("corridor"), SceneSettings { snapshots: false, ..settings }, clock.clone(), 1);
        let pixels = Arc::new(vec![0; (PICTURE.width * PICTURE.height * 3) as usize]);
        Self { scene, gallery: gallery.current(), uids, clock, pixels, gap: Duration::ZERO..Duration::ZERO, told: Vec::new() }
    }

    /// Everything that is told of `walkers` in `lasting`, at so many analysed frames a second.
    fn tells_of(mut self, walkers: &[Walker], rate: u32, lasting: Duration) -> (Vec<Event>, BTreeMap<usize, SubjectUid>) {
        let begin = self.clock.now();
        let (frame_every, sweep_every) = (Duration::from_secs(1) / rate, Duration::from_secs(1) / SWEEPS_A_SECOND);
        let (mut next_frame, mut next_sweep, mut after) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        while after < lasting {
            self.clock.advance_to(begin.plus(after));
            if after >= next_sweep {
                self.pass_time();
                next_sweep += sweep_every;
            }
            if after >= next_frame {
                if !self.gap.contains(&after) {
                    self.analyse(walkers, after);
                }
                next_frame += frame_every;
            }
            after += STEP;
        }
        (self.told, self.uids)
    }

    fn pass_time(&mut self) {
        self.scene.pass_time(self.clock.now(), &self.gallery);
        self.take_told();
    }

    fn analyse(&mut self, walkers: &[Walker], after: Duration) {
        let time = self.clock.now();
        let frame = Frame::new(camera("corridor"), time, PixelFormat::rgb8(PICTURE), self.pixels.clone()).expect("the pixels are there");
        let seen = walkers.iter().filter_map(|walker| Some((walker, walker.seen(after)?)));
        let (people, faces): (Vec<&Walker>, Vec<Detection>) = seen.unzip();
        for wanted in self.scene.follow(&frame, &faces) {
            let cut = AlignedFace::new(Box::new([0; ALIGNED_SIDE * ALIGNED_SIDE * 3]));
            let person = people[wanted.detection];
            let photometry = Photometry { sharpness: if person.is_usable { SHARP.sharpness } else { 0.0 }, ..SHARP };
            let Some(mut shot) = self.scene.shoot((&frame, None), (&faces, wanted), (cut.into(), photometry)) else { continue };
            shot.live_score = person.live_score;
            let template = template(person.person);
            let mut passage = Passage { captured: time, decoded: time, taken: time, detected: time, encoded: time, ..Passage::default() };
            self.scene.learn((&mut shot, &template), &self.gallery, &mut passage).expect("one space");
        }
        self.scene.sweep(time, &self.gallery);
        self.take_told();
    }

    fn take_told(&mut self) {
        self.told.extend(self.scene.take_outbox().0.into_iter().map(|pending| pending.event));
    }
}

/// As the configuration says, in a corridor.
fn corridor() -> SceneSettings {
    SceneSettings::of(&Config::default(), &Policy::fixed(0.5))
}

fn count(told: &[Event], kind: EventKind) -> usize {
    told.iter().filter(|event| event.kind == kind).count()
}

#[test]
fn whoever_walks_past_is_told_and_named_at_every_rate() {
    for seed in 0..24 {
        let walker = Walker::any(&mut fastrand::Rng::with_seed(seed));
        for rate in RATES {
            let (told, uids) = Corridor::watched(corridor()).tells_of(&[walker], rate, Duration::from_secs(9));
            println!("seed {seed}, {rate} frames a second: {walker:?}");
            assert_eq!(count(&told, EventKind::VisitStarted), 1, "{told:?}");
            let named: Vec<_> = told.iter().filter(|event| event.kind == EventKind::Identified).map(|event| event.subject).collect();
            assert_eq!(named, [Some(uids[&1])]);
        }
    }
}

#[test]
fn people_who_follow_each_other_are_each_told_by_their_own_name_at_every_rate() {
    for seed in 0..24 {
        let mut random = fastrand::Rng::with_seed(seed);
        let first = Walker::any(&mut random);
        let behind_ms = random.u64(1_500..4_000);
        for rate in RATES {
            // Whoever has come nearer to where the first was than the first has walked since the frame before is taken for the first.
            let behind = Duration::from_millis(behind_ms).max(Duration::from_secs(2) / rate);
            let second = Walker { person: 2, begins: first.begins + behind, ..first };
            let (told, uids) = Corridor::watched(corridor()).tells_of(&[first, second], rate, Duration::from_secs(13));
            println!("seed {seed}, {rate} frames a second: {first:?}, and {behind:?} behind");
            let named = told.iter().filter(|event| event.kind == EventKind::Identified).filter_map(|event| event.subject);
            let mut named: Vec<_> = named.collect();
            named.sort_by_key(|uid| *uid != uids[&1]);
            assert_eq!(named, [uids[&1], uids[&2]], "{told:?}");
        }
    }
}

#[test]
fn a_gap_between_two_frames_ends_no_track_however_short_a_face_may_be_unseen() {
    let walker = Walker { from: (-2.0, 2.0), pace: (1.0, 0.0), ..STANDS };
    for rate in RATES {
        for unseen_ms in [100, 500, 900] {
            let base = corridor();
            let track = TrackPolicy { unseen_max: Duration::from_millis(unseen_ms), ..base.track };
            let (told, _) = Corridor::watched(SceneSettings { track, ..base }).tells_of(&[walker], rate, Duration::from_secs(9));
            let kinds: Vec<_> = told.iter().map(|event| event.kind).collect();
            assert_eq!(kinds[..2], [EventKind::VisitStarted, EventKind::Identified], "{rate} a second, unseen for {unseen_ms} ms");
        }
    }
}

#[test]
fn whoever_stands_before_a_camera_that_shows_nothing_more_is_told_as_gone() {
    let base = corridor();
    let settings = SceneSettings { visit: VisitPolicy { resume_within: Duration::ZERO, ..base.visit }, ..base };
    let mut corridor = Corridor::watched(settings);
    let begin = corridor.clock.now();
    for frame in 0..3 {
        corridor.clock.advance_to(begin.plus(Duration::from_secs(frame)));
        corridor.analyse(&[STANDS], Duration::from_secs(frame));
    }
    let ended = |corridor: &mut Corridor, silent_ms: u64| {
        corridor.clock.advance_to(begin.plus(Duration::from_millis(2_000 + silent_ms)));
        corridor.pass_time();
        count(&corridor.told, EventKind::VisitEnded)
    };
    assert_eq!((ended(&mut corridor, 2_900), ended(&mut corridor, 3_100)), (0, 1), "{:?}", corridor.told);
}

#[test]
fn two_shots_make_a_suspicion_at_every_rate() {
    let walker = Walker { from: (-2.0, 2.0), pace: (0.8, 0.0), live_score: Some(0.02), ..STANDS };
    for rate in RATES {
        let base = corridor();
        let settings = SceneSettings { visit: VisitPolicy { decide_after: None, ..base.visit }, ..base };
        let (told, _) = Corridor::watched(settings).tells_of(&[walker], rate, Duration::from_secs(9));
        let named = told.iter().find(|event| event.kind == EventKind::Identified).expect("it is reported with the name");
        assert!(named.suspected_attack, "{rate} a second");
        // Not only once a decision is due, by the one shot that is left.
        assert!(named.shots.fused == 2, "{rate} a second: {:?}", named.shots);
    }
}

const STRANGER: Walker = Walker { person: 3, is_usable: false, ..STANDS };
/// Where one person stands and, seven face sizes further on, another.
const LEFT: (f32, f32) = (-0.6, 2.0);
const RIGHT: (f32, f32) = (0.6, 2.0);

/// What is told of those who stand on the left until 5 s, and of those who stand elsewhere from 6 s to 10 s, at so many frames a second;
/// none comes between. Nobody is expected back.
fn swapped(before: Walker, after: &[Walker], (rate, settings): (u32, SceneSettings)) -> (Vec<Event>, BTreeMap<usize, SubjectUid>) {
    let settings = SceneSettings { visit: VisitPolicy { resume_within: Duration::ZERO, ..settings.visit }, ..settings };
    let [left, comes, gone] = [5, 6, 10].map(Duration::from_secs);
    let before = Walker { from: LEFT, until: left + Duration::from_millis(10), ..before };
    let all: Vec<_> = iter::once(before).chain(after.iter().map(|walker| Walker { begins: comes, until: gone, ..*walker })).collect();
    let corridor = Corridor { gap: left + Duration::from_millis(10)..comes, ..Corridor::watched(settings) };
    corridor.tells_of(&all, rate, Duration::from_secs(18))
}

fn of_kind(told: &[Event], kind: EventKind) -> Vec<&Event> {
    told.iter().filter(|event| event.kind == kind).collect()
}

#[test]
fn a_known_person_does_not_cross_a_line_on_whose_other_side_a_stranger_stood() {
    // Upwards through the middle of the picture: whoever comes to the right comes in.
    let points = [1.0, 0.0].map(|y| NormalisedPoint { x: 0.5, y }).to_vec();
    let layout = Layout { lines: vec![Region { name: "door".into(), points }], ..Layout::default() };
    for rate in RATES {
        let (told, uids) =
            swapped(STRANGER, &[Walker { from: RIGHT, ..STANDS }], (rate, SceneSettings { layout: layout.clone(), ..corridor() }));
        assert_eq!(of_kind(&told, EventKind::Entry), Vec::<&Event>::new(), "{rate} a second");
        let (started, named) = (of_kind(&told, EventKind::VisitStarted), of_kind(&told, EventKind::Identified));
        assert_eq!((started.len(), named.len(), named[0].subject), (2, 1, Some(uids[&1])), "{rate} a second");
        assert_eq!(named[0].visit, started[1].visit, "{rate} a second: the stranger's visit is a stranger's");
    }
}

#[test]
fn nobody_is_refused_a_name_because_a_stranger_stands_between_where_they_were_and_are() {
    for rate in RATES {
        let known = Walker { from: RIGHT, ..STANDS };
        let (told, uids) = swapped(STANDS, &[known, Walker { from: (-0.1, 2.0), ..STRANGER }], (rate, corridor()));
        let decided = told.iter().filter_map(|event| event.decision.as_ref());
        assert!(decided.clone().all(|decision| decision.rejection != Some(Rejection::Conflict)), "{rate} a second: {told:?}");
        let left = of_kind(&told, EventKind::VisitEnded);
        // The known person's lasts until the end of it, under one name, and the stranger's has none.
        let lasted: BTreeMap<_, _> = left.iter().map(|event| (event.subject, event.duration_ms)).collect();
        assert!(lasted[&Some(uids[&1])] >= Some(8_000) && lasted[&None] <= Some(4_000), "{rate} a second: {lasted:?}");
        assert_eq!(of_kind(&told, EventKind::IdentityRevised), Vec::<&Event>::new(), "{rate} a second");
    }
}

#[test]
fn a_stranger_who_comes_when_a_known_person_goes_is_told_as_somebody_else() {
    for rate in RATES {
        let (told, uids) = swapped(STANDS, &[Walker { from: RIGHT, ..STRANGER }], (rate, corridor()));
        assert_eq!(count(&told, EventKind::VisitStarted), 2, "{rate} a second");
        let ended: Vec<_> = of_kind(&told, EventKind::VisitEnded).into_iter().map(|event| (event.subject, event.duration_ms)).collect();
        assert!(
            matches!(ended[..], [(known, Some(..=5_000)), (None, Some(..=4_000))] if known == Some(uids[&1])),
            "{rate} a second: {ended:?}"
        );
    }
}

#[test]
fn a_strangers_entry_is_not_that_of_the_known_person_who_comes_next() {
    let entry = Layout { role: Role::Entry, ..Layout::default() };
    for rate in RATES {
        let (told, uids) =
            swapped(STRANGER, &[Walker { from: RIGHT, ..STANDS }], (rate, SceneSettings { layout: entry.clone(), ..corridor() }));
        let entered: Vec<_> = of_kind(&told, EventKind::Entry).into_iter().map(|event| event.subject).collect();
        assert_eq!(entered, [None, Some(uids[&1])], "{rate} a second");
    }
}

#[test]
fn nobody_who_has_gone_vouches_for_their_picture() {
    for rate in RATES {
        let base = corridor();
        let live = LivePolicy { score_min: 0.5, refuses: true };
        let visit = VisitPolicy { reassert_every: Some(Duration::from_secs(1)), live, ..base.visit };
        let picture = Walker { from: RIGHT, live_score: Some(0.02), ..STANDS };
        let (told, _) = swapped(Walker { live_score: Some(0.99), ..STANDS }, &[picture], (rate, SceneSettings { visit, ..base }));
        // Whoever reads the events of the picture reads no name in them.
        let later: Vec<_> = told.iter().filter(|event| event.capture_time_us >= 1_006_000_000).collect();
        assert!(later.iter().all(|event| event.subject.is_none()), "{rate} a second: {later:?}");
        assert!(later.iter().any(|event| event.suspected_attack), "{rate} a second");
    }
}
