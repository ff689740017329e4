//! A visitor's way through the picture: lines that are crossed, zones that are entered and left.
//!
//! Walking along a line from its first point to its second, `ENTRY` crosses it from the left-hand to the
//! right-hand side, as seen in the picture, and `EXIT` the other way. A face that trembles on a line or an
//! edge crosses nothing: it must come clear of the line, and be seen twice in or out of a zone.
//! Must not know: who the visitor is.

use std::time::Duration;

use crate::camera::{NormalisedPoint, Region};
use crate::clock::Timestamp;
use crate::event::BoxInFrame;

/// A face is clear of a line once its centre is this far beyond it, in parts of the face's height.
const CLEAR_OF_LINE: f32 = 0.25;
/// And at least this far, in parts of the picture.
const CLEAR_OF_LINE_MIN: f32 = 0.01;
/// So many sightings in a row make a visitor be in a zone, or out of it.
const SIGHTINGS_FOR_ZONE: u32 = 2;

/// What happened on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// The line of this index was crossed, inwards or outwards.
    Crossed { line: usize, inwards: bool },
    /// The zone of this index was entered.
    Entered { zone: usize },
    /// It was left after so long.
    Left { zone: usize, dwell: Duration },
}

/// Where a visitor was.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// For each line the last place that was clear of it.
    clear: Vec<Option<NormalisedPoint>>,
    zones: Vec<Stay>,
}

/// A visitor and a zone.
#[derive(Clone, Copy, Debug, Default)]
struct Stay {
    /// Since when the visitor is in it, once that is sure.
    since: Option<Timestamp>,
    /// When the visitor was last seen in it.
    last_in: Timestamp,
    /// Sightings in a row that say otherwise, and when the first of them was.
    otherwise: u32,
    otherwise_since: Timestamp,
}

impl Path {
    /// The visitor was seen at `place`.
    pub(super) fn step(&mut self, place: &BoxInFrame, time: Timestamp, (lines, zones): (&[Region], &[Region])) -> Vec<Step> {
        let here = NormalisedPoint { x: place.x + place.width / 2.0, y: place.y + place.height / 2.0 };
        self.clear.resize(lines.len(), None);
        self.zones.resize(zones.len(), Stay::default());
        let mut steps = Vec::new();
        let margin = (CLEAR_OF_LINE * place.height).max(CLEAR_OF_LINE_MIN);
        for (index, (line, clear)) in lines.iter().zip(&mut self.clear).enumerate() {
            let [from, to, ..] = line.points.as_slice() else { continue };
            let side = beyond(*from, *to, here);
            if side.abs() < margin {
                continue;
            }
            let before = clear.replace(here);
            if before.is_some_and(|before| crosses((before, here), (*from, *to))) {
                steps.push(Step::Crossed { line: index, inwards: side > 0.0 });
            }
        }
        for (index, (zone, stay)) in zones.iter().zip(&mut self.zones).enumerate() {
            steps.extend(stay.sighted(holds(&zone.points, here), time, index));
        }
        steps
    }

    /// Nobody knows how the visitor came to where they are seen next. A stay in a zone goes on until it is seen that it does not.
    pub(super) fn forget_way(&mut self) {
        self.clear.fill(None);
    }

    /// Goes on where `newer`, a later way of the same visitor, has come to.
    pub(super) fn go_on_as(&mut self, newer: Self) {
        self.clear.resize(self.clear.len().max(newer.clear.len()), None);
        for (known, place) in self.clear.iter_mut().zip(newer.clear) {
            *known = place.or(*known);
        }
    }

    /// The visitor is gone: zones are left when the visitor was last seen in them.
    pub(super) fn end(&mut self) -> Vec<Step> {
        let stays = self.zones.iter_mut().enumerate();
        let left = stays.filter_map(|(zone, stay)| Some(Step::Left { zone, dwell: stay.last_in.since(stay.since.take()?) }));
        left.collect()
    }
}

impl Stay {
    fn sighted(&mut self, is_in: bool, time: Timestamp, zone: usize) -> Option<Step> {
        if is_in == self.since.is_some() {
            self.otherwise = 0;
            self.last_in = if is_in { time } else { self.last_in };
            return None;
        }
        if self.otherwise == 0 {
            self.otherwise_since = time;
        }
        self.otherwise += 1;
        if self.otherwise < SIGHTINGS_FOR_ZONE {
            return None;
        }
        self.otherwise = 0;
        match self.since.take() {
            Some(since) => Some(Step::Left { zone, dwell: self.last_in.since(since) }),
            None => {
                (self.since, self.last_in) = (Some(self.otherwise_since), time);
                Some(Step::Entered { zone })
            }
        }
    }
}

/// How far `point` is on the right-hand side of the line, in parts of the picture; negative on the left.
fn beyond(from: NormalisedPoint, to: NormalisedPoint, point: NormalisedPoint) -> f32 {
    let (along_x, along_y) = (to.x - from.x, to.y - from.y);
    let length = along_x.hypot(along_y);
    if length <= 0.0 { 0.0 } else { (along_x * (point.y - from.y) - along_y * (point.x - from.x)) / length }
}

/// Whether the way from one point to another meets the line between its two ends.
fn crosses(way: (NormalisedPoint, NormalisedPoint), line: (NormalisedPoint, NormalisedPoint)) -> bool {
    let apart = |a: (NormalisedPoint, NormalisedPoint), b: (NormalisedPoint, NormalisedPoint)| {
        (beyond(a.0, a.1, b.0) > 0.0) != (beyond(a.0, a.1, b.1) > 0.0)
    };
    apart(line, way) && apart(way, line)
}

/// Whether a polygon holds a point (even-odd rule).
fn holds(corners: &[NormalisedPoint], point: NormalisedPoint) -> bool {
    let edges = corners.iter().zip(corners.iter().cycle().skip(1));
    let crossed = edges.filter(|(a, b)| (a.y > point.y) != (b.y > point.y) && point.x < (b.x - a.x) * (point.y - a.y) / (b.y - a.y) + a.x);
    crossed.count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str, points: &[(f32, f32)]) -> Region {
        Region { name: name.into(), points: points.iter().map(|&(x, y)| NormalisedPoint { x, y }).collect() }
    }

    fn at_ms(ms: i64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    /// A face of a tenth of the picture whose centre goes through `points`, one each 100 ms.
    fn walk(path: &mut Path, points: &[(f32, f32)], lines: &[Region], zones: &[Region]) -> Vec<Step> {
        let step = |(n, &(x, y)): (usize, &(f32, f32))| {
            let place = BoxInFrame { x: x - 0.05, y: y - 0.05, width: 0.1, height: 0.1 };
            path.step(&place, at_ms(n as i64 * 100), (lines, zones))
        };
        points.iter().enumerate().flat_map(step).collect()
    }

    #[test]
    fn a_line_is_crossed_once_in_each_direction() {
        let door = [region("door", &[(0.2, 0.5), (0.8, 0.5)])];
        let mut path = Path::default();
        let down = walk(&mut path, &[(0.5, 0.3), (0.5, 0.4), (0.5, 0.6), (0.5, 0.7)], &door, &[]);
        assert_eq!(down, [Step::Crossed { line: 0, inwards: true }], "down over a line that is drawn to the right");
        let up = walk(&mut path, &[(0.5, 0.6), (0.5, 0.4)], &door, &[]);
        assert_eq!(up, [Step::Crossed { line: 0, inwards: false }]);
    }

    #[test]
    fn a_face_that_trembles_on_a_line_crosses_nothing_until_it_is_clear_of_it() {
        let door = [region("door", &[(0.2, 0.5), (0.8, 0.5)])];
        let trembling = [(0.5, 0.4), (0.5, 0.49), (0.5, 0.51), (0.5, 0.49), (0.5, 0.52), (0.5, 0.48), (0.5, 0.51)];
        let mut path = Path::default();
        assert_eq!(walk(&mut path, &trembling, &door, &[]), []);
        assert_eq!(walk(&mut path, &[(0.5, 0.56)], &door, &[]), [Step::Crossed { line: 0, inwards: true }]);
    }

    #[test]
    fn whoever_walks_around_the_end_of_a_line_does_not_cross_it() {
        let door = [region("door", &[(0.2, 0.5), (0.8, 0.5)])];
        let around = [(0.5, 0.3), (0.9, 0.3), (0.95, 0.7), (0.5, 0.7)];
        assert_eq!(walk(&mut Path::default(), &around, &door, &[]), []);
    }

    #[test]
    fn a_fast_walker_who_is_seen_only_on_both_sides_has_crossed() {
        let door = [region("door", &[(0.5, 0.1), (0.5, 0.9)])];
        let crossed = walk(&mut Path::default(), &[(0.9, 0.5), (0.1, 0.5)], &door, &[]);
        assert_eq!(crossed, [Step::Crossed { line: 0, inwards: true }], "to the left over a line that is drawn downwards");
    }

    #[test]
    fn a_zone_is_entered_and_left_with_the_time_in_between() {
        let desk = [region("desk", &[(0.4, 0.4), (0.8, 0.4), (0.8, 0.8), (0.4, 0.8)])];
        let mut path = Path::default();
        // In from 200 ms to 600 ms, with one look that says otherwise.
        let way = [(0.1, 0.5), (0.3, 0.5), (0.5, 0.5), (0.5, 0.6), (0.39, 0.6), (0.5, 0.6), (0.6, 0.6), (0.9, 0.6), (0.95, 0.6)];
        let dwell = Duration::from_millis(400);
        assert_eq!(walk(&mut path, &way, &[], &desk), [Step::Entered { zone: 0 }, Step::Left { zone: 0, dwell }]);
        assert_eq!(path.end(), []);
    }

    #[test]
    fn whoever_is_gone_has_left_the_zone_when_last_seen_in_it() {
        let desk = [region("desk", &[(0.4, 0.4), (0.8, 0.4), (0.6, 0.9)])];
        let mut path = Path::default();
        walk(&mut path, &[(0.6, 0.5), (0.6, 0.5), (0.6, 0.6)], &[], &desk);
        assert_eq!(path.end(), [Step::Left { zone: 0, dwell: Duration::from_millis(200) }]);
        assert_eq!(path.end(), []);
    }
}
