//! What of each series is drawn where, cut to the plot. Pure.
//!
//! In: series, a frame. Out: lines, areas and dots in pixels, with their colours.
//! Drops: points that have no place, what lies out of range, points too close to be told apart.
//! Must not know: text, SVG.

use super::canvas::Colour;
use super::frame::Frame;
use super::geometry::{Point, Rect, thin};
use super::{Series, Style};

/// Colours that people of any colour vision tell apart (Okabe and Ito, 2008), those that show best
/// on white first; their yellow does not.
const PALETTE: [Colour; 7] = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (60, 60, 60)];
/// What has no name.
const GREY: Colour = (150, 150, 150);
/// Points of a line this close to each other are one, in pixels.
const THIN: f64 = 0.4;

/// Steps lower than this are not outlined, in pixels.
const FLAT: f64 = 0.3;

/// A series in pixels.
#[derive(Debug, Default)]
pub struct Trace {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub colour: Colour,
    /// Whether its lines are of dashes.
    pub dashed: bool,
    /// Its lines.
    pub lines: Vec<Vec<Point>>,
    /// Its filled area.
    pub area: Vec<Point>,
    /// Its dots.
    pub dots: Vec<Point>,
}

/// `series` in the places that `frame` gives them.
pub fn traces(series: &[Series], frame: &Frame) -> Vec<Trace> {
    let mut names: Vec<&str> = Vec::new();
    series
        .iter()
        .map(|series| {
            let name = series.name.as_str();
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
            let index = names.iter().position(|known| *known == name);
            let colour = index.map_or(GREY, |index| PALETTE[index % PALETTE.len()]);
            // Where the colours begin again, dashes tell the lines apart.
            let again = index.is_some_and(|index| (index / PALETTE.len()) % 2 == 1);
            let dashed = (series.style == Style::Dashed) != again;
            Trace { name: name.to_owned(), colour, dashed, ..shape(series, frame) }
        })
        .collect()
}

fn shape(series: &Series, frame: &Frame) -> Trace {
    let plot = &frame.plot;
    let finite = series.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
    let placed = finite.map(|&point| frame.place(point)).filter(|(x, y)| !x.is_nan() && !y.is_nan());
    let mut placed: Vec<Point> = placed.collect();
    match series.style {
        Style::Line | Style::Dashed => {
            placed.retain(|(x, y)| x.is_finite() && y.is_finite());
            Trace { lines: plot.clip_line(&thin(&placed, THIN)), ..Trace::default() }
        }
        Style::Points => {
            placed.retain(|&point| plot.distance(point) == 0.0);
            Trace { dots: placed, ..Trace::default() }
        }
        Style::Steps => {
            let outline = steps(&bounded(&placed, plot), plot.bottom);
            // What lies on the floor would hide the axis.
            let raised = outline.chunk_by(|a, b| a.1.min(b.1) < plot.bottom - FLAT);
            Trace { lines: raised.flat_map(|line| plot.clip_line(line)).collect(), area: plot.clip_area(&outline), ..Trace::default() }
        }
        Style::Band => Trace { area: plot.clip_area(&thin(&bounded(&placed, plot), THIN)), ..Trace::default() },
    }
}

/// The points with those at the ends of a scale brought to just outside the plot.
fn bounded(points: &[Point], plot: &Rect) -> Vec<Point> {
    let keep = |value: f64, low: f64, high: f64| if value.is_finite() { value } else { value.clamp(low, high) };
    points.iter().map(|&(x, y)| (keep(x, plot.left, plot.right), keep(y, plot.top, plot.bottom))).collect()
}

/// The outline of steps that stand on `floor`.
fn steps(points: &[Point], floor: f64) -> Vec<Point> {
    let mut outline = Vec::with_capacity(2 * points.len() + 2);
    let mut height = floor;
    for &(x, y) in points {
        outline.extend([(x, height), (x, y)]);
        height = y;
    }
    outline.extend(points.last().map(|&(x, _)| (x, floor)));
    outline.dedup();
    outline
}
