//! Finds places for names beside their curves, so that nobody needs a legend. Pure.
//!
//! In: traces, what else is in the plot. Out: a place for each name, or that there is none.
//! Must not know: axes, SVG.

use super::canvas::Colour;
use super::frame::{Frame, TEXT_SIZE};
use super::geometry::{Point, Rect, is_within, resample, segments};
use super::text::width;
use super::trace::Trace;

/// A name beside its curve.
#[derive(Clone, Debug)]
pub struct Label {
    /// Where it is.
    pub place: Rect,
    /// The name.
    pub text: String,
    /// The curve's colour.
    pub colour: Colour,
}

/// How far along a curve places are tried.
const TRIED_EVERY: f64 = 8.0;
/// From a curve to its name, across and down.
const GAP: (f64, f64) = (6.0, 4.0);
/// Closer to another curve than this, a name would seem to be that one's.
const OTHERS_MIN: f64 = 16.0;
/// Further away than this, other curves do not matter any more.
const OTHERS_MAX: f64 = 60.0;
/// The height of a name.
const LETTERS: f64 = 13.0;

/// The names that are shown, each once, in the order of the series.
pub fn names(traces: &[Trace]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for trace in traces {
        let drawn = !(trace.lines.is_empty() && trace.area.is_empty() && trace.dots.is_empty());
        if drawn && !trace.name.is_empty() && !names.contains(&trace.name.as_str()) {
            names.push(&trace.name);
        }
    }
    names
}

/// A label for every name, or nothing if one of them finds no place.
pub fn beside(traces: &[Trace], frame: &Frame) -> Option<Vec<Label>> {
    let mut labels: Vec<Label> = Vec::new();
    for name in names(traces) {
        let label = best(name, traces, &Room { frame, taken: &labels })?;
        labels.push(label);
    }
    Some(labels)
}

/// The room that is left.
struct Room<'a> {
    frame: &'a Frame,
    taken: &'a [Label],
}

impl Room<'_> {
    fn is_free(&self, place: &Rect) -> bool {
        let marker = |place: &Rect| self.frame.markers.iter().any(|mark| (place.left - GAP.0..=place.right + GAP.0).contains(&mark.x));
        self.frame.plot.grown(-3.0).contains(place)
            && !marker(place)
            && self.taken.iter().all(|label| !label.place.grown(GAP.0).overlaps(place))
    }
}

fn best(name: &str, traces: &[Trace], room: &Room) -> Option<Label> {
    let (own, others): (Vec<&Trace>, Vec<&Trace>) = traces.iter().partition(|trace| trace.name == name);
    let own_points: Vec<Point> = own.iter().flat_map(|trace| points(trace)).collect();
    // A line without a name may be close, but not beneath: nobody takes the name for its own.
    let other_points: Vec<Point> = others.iter().filter(|trace| !trace.name.is_empty()).flat_map(|trace| points(trace)).collect();
    let lines: Vec<(Point, Point)> = traces.iter().flat_map(|trace| &trace.lines).flat_map(|line| segments(line)).collect();
    let size = (width(name, TEXT_SIZE), LETTERS);
    let mut best: Option<(f64, Rect)> = None;
    for &anchor in &own_points {
        for (rank, place) in places(anchor, size).into_iter().enumerate() {
            let free = room.is_free(&place)
                && lines.iter().all(|&(a, b)| place.grown(2.0).clip_segment(a, b).is_none())
                && traces.iter().flat_map(|trace| &trace.dots).all(|&dot| place.distance(dot) > 4.0)
                && !others.iter().any(|trace| place.probes().iter().any(|&probe| is_within(probe, &trace.area)));
            let distance = other_points.iter().map(|&point| place.distance(point)).fold(OTHERS_MAX, f64::min);
            // Of places equally clear, the one first in rank.
            let score = distance - rank as f64;
            if free && distance >= OTHERS_MIN && best.is_none_or(|(least, _)| score > least) {
                best = Some((score, place));
            }
        }
    }
    let colour = darker(own.first()?.colour);
    best.map(|(_, place)| Label { place, text: name.to_owned(), colour })
}

/// Points all along what is drawn of a trace, by which distances are measured.
fn points(trace: &Trace) -> Vec<Point> {
    let lines = trace.lines.iter().flat_map(|line| resample(line, TRIED_EVERY).into_iter().chain(line.last().copied()));
    // A filled area with an outline has its lines already.
    let edge = if trace.lines.is_empty() { resample(&trace.area, TRIED_EVERY) } else { Vec::new() };
    lines.chain(edge).chain(trace.dots.iter().copied()).collect()
}

/// Places beside `anchor`, the most natural ones first.
fn places((x, y): Point, (width, height): (f64, f64)) -> [Rect; 6] {
    let place = |left: f64, top: f64| Rect { left, top, right: left + width, bottom: top + height };
    let (above, below, level) = (y - GAP.1 - height, y + GAP.1, y - height / 2.0);
    let (right, left) = (x + GAP.0, x - GAP.0 - width);
    [place(right, above), place(right, level), place(right, below), place(left, above), place(left, level), place(left, below)]
}

/// The colour as letters need it, which are thinner than curves.
pub fn darker((red, green, blue): Colour) -> Colour {
    let part = |value: u8| (f64::from(value) * 0.78) as u8;
    (part(red), part(green), part(blue))
}
