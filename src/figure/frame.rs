//! Where everything of a figure goes but the data: title, legend, axes, ticks, markers. Pure.
//!
//! In: a figure, the names that need a legend. Out: places in pixels, and from values to pixels.
//! Drops: markers out of range.
//! Must not know: how data are drawn, SVG.

use super::canvas::{HEIGHT, WIDTH};
use super::geometry::{Point, Rect};
use super::scale::{Span, Tick};
use super::text::{fit, width, wrap};
use super::{Figure, FigureError, Scale, Style};

/// The size of the title's letters.
pub const TITLE_SIZE: f64 = 15.0;
/// The size of all other letters.
pub const TEXT_SIZE: f64 = 11.5;
/// The length of the line before a name in the legend.
pub const SWATCH: f64 = 20.0;
/// From the edge of the figure to the title and other text.
const MARGIN: f64 = 12.0;
/// From one line of the title to the next.
const TITLE_HEIGHT: f64 = 20.0;
/// From one row of the legend or of labels to the next.
const ROW_HEIGHT: f64 = 18.0;
/// Below the axis: ticks and the axis's label.
const FOOT: f64 = 50.0;
/// From a marker's line to its label.
const MARKER_GAP: f64 = 4.0;
/// Between the vertical axis's label and its highest tick.
const HEADER_GAP: f64 = 9.0;
/// Air between texts beside each other.
const AIR: f64 = 16.0;

/// A figure without its data.
#[derive(Debug)]
pub struct Frame {
    /// Where the data go.
    pub plot: Rect,
    /// The horizontal axis.
    pub x: Span,
    /// The vertical axis.
    pub y: Span,
    /// The ticks of the horizontal axis.
    pub x_ticks: Vec<Tick>,
    /// The ticks of the vertical axis.
    pub y_ticks: Vec<Tick>,
    /// The lines of the title, where each begins.
    pub title: Vec<(Point, String)>,
    /// Where each name of the legend begins, with its swatch.
    pub legend: Vec<(Point, String)>,
    /// Where the vertical axis's label begins: it is above, so that nobody turns their head.
    pub y_label: Point,
    /// The markers in range.
    pub markers: Vec<Mark>,
}

/// A marker that has a place.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Its horizontal place.
    pub x: f64,
    /// Where its line begins, above the data.
    pub top: f64,
    /// The label's box.
    pub label: Rect,
    /// What it says.
    pub text: String,
}

impl Frame {
    /// The frame of `figure`, with a legend of `names`.
    ///
    /// # Errors
    /// An axis is given a range that its scale does not have.
    pub fn new(figure: &Figure, names: &[&str]) -> Result<Self, FigureError> {
        let points = || figure.series.iter().flat_map(|series| &series.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let x = Span::new(&figure.x, points().map(|&(x, _)| x).chain(figure.markers.iter().map(|marker| marker.x)))?;
        // Steps stand on the axis, so that their areas can be compared.
        let floor = figure.y.scale == Scale::Linear && figure.series.iter().any(|series| series.style == Style::Steps);
        let y = Span::new(&figure.y, points().map(|&(_, y)| y).chain(floor.then_some(0.0)))?;

        // The height is not known yet, and a row more or less does not change the ticks.
        let y_ticks = y.ticks(HEIGHT - FOOT - 90.0, |_| 22.0);
        let left = MARGIN + 8.0 + y_ticks.iter().map(|tick| width(&tick.text, TEXT_SIZE)).fold(24.0, f64::max);
        let x_ticks = x.ticks(WIDTH - left - 2.0 * MARGIN, |text| width(text, TEXT_SIZE) + AIR);
        let last = x_ticks.last().map_or(0.0, |tick| width(&tick.text, TEXT_SIZE) / 2.0);
        let mut plot = Rect { left, top: MARGIN, right: WIDTH - last.max(MARGIN) - 6.0, bottom: HEIGHT - FOOT };

        // Bold letters are wider.
        let title = wrap(&figure.title, TITLE_SIZE * 1.12, WIDTH - 2.0 * MARGIN);
        let title = stacked(title, &mut plot.top, TITLE_HEIGHT);
        let legend = legend(names, &mut plot.top);
        let (y_label, markers) = header(figure, &x, &mut plot);
        Ok(Self { plot, x, y, x_ticks, y_ticks, title, legend, y_label, markers })
    }

    /// Where a point of data lies; infinite where its scale ends and not a number beyond.
    pub fn place(&self, (x, y): (f64, f64)) -> Point {
        (self.across(self.x.share(x)), self.down(self.y.share(y)))
    }

    /// The horizontal place of a share of the axis.
    pub fn across(&self, share: f64) -> f64 {
        across(&self.plot, share)
    }

    /// The vertical place of a share of the axis.
    pub fn down(&self, share: f64) -> f64 {
        self.plot.bottom - share * (self.plot.bottom - self.plot.top)
    }
}

fn across(plot: &Rect, share: f64) -> f64 {
    plot.left + share * (plot.right - plot.left)
}

/// Lines below each other from `top`, which moves below them.
fn stacked(lines: Vec<String>, top: &mut f64, height: f64) -> Vec<(Point, String)> {
    let stacked: Vec<_> = lines.into_iter().enumerate().map(|(row, line)| ((MARGIN, *top + (row as f64 + 0.5) * height), line)).collect();
    *top += stacked.len() as f64 * height;
    stacked
}

/// The places of the legend's names: beside each other, then in a new row.
fn legend(names: &[&str], top: &mut f64) -> Vec<(Point, String)> {
    let mut at = (MARGIN, *top + ROW_HEIGHT / 2.0 + 2.0);
    let places = names.iter().map(|name| {
        let name = fit(name, TEXT_SIZE, WIDTH - 2.0 * MARGIN - SWATCH - 6.0);
        let taken = SWATCH + 6.0 + width(&name, TEXT_SIZE);
        if at.0 > MARGIN && at.0 + taken > WIDTH - MARGIN {
            at = (MARGIN, at.1 + ROW_HEIGHT);
        }
        let place = at;
        at.0 += taken + AIR;
        (place, name)
    });
    let places: Vec<_> = places.collect();
    if let Some(((_, y), _)) = places.last() {
        *top = y + ROW_HEIGHT / 2.0;
    }
    places
}

/// The rows between the title and the data: the vertical axis's label, and the markers' labels.
fn header(figure: &Figure, x: &Span, plot: &mut Rect) -> (Point, Vec<Mark>) {
    let mut marks: Vec<Mark> = Vec::new();
    let mut shown: Vec<_> =
        figure.markers.iter().map(|marker| (x.share(marker.x), &marker.label)).filter(|(share, _)| (0.0..=1.0).contains(share)).collect();
    // A label is to the right of its line. From the right, a line in a higher row passes to the
    // left of the labels below it.
    shown.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (share, text) in shown {
        let at = across(plot, share);
        let text = fit(text, TEXT_SIZE, WIDTH - 2.0 * MARGIN);
        let taken = width(&text, TEXT_SIZE);
        let left = if at + MARKER_GAP + taken <= WIDTH - 4.0 { at + MARKER_GAP } else { (at - MARKER_GAP - taken).max(4.0) };
        // Rows count upwards; the plot's own top is not known yet.
        let row = |row: f64| Rect { left, right: left + taken, top: -row * ROW_HEIGHT - ROW_HEIGHT, bottom: -row * ROW_HEIGHT };
        let free = (0..=marks.len()).map(|index| row(index as f64)).find(|label| {
            marks.iter().all(|mark| {
                let beside = mark.label.right + AIR <= label.left || label.right + AIR <= mark.label.left;
                let crossed = mark.top < label.bottom && (label.left..label.right).contains(&mark.x);
                (beside || mark.label.top != label.top) && !crossed
            })
        });
        let label = free.unwrap_or_else(|| row(marks.len() as f64));
        marks.push(Mark { x: at, top: label.top + 2.0, label, text });
    }
    let rows = marks.iter().map(|mark| -mark.label.top / ROW_HEIGHT).fold(0.0, f64::max).round();
    let y_label_end = MARGIN + width(&figure.y.label, TEXT_SIZE) + AIR;
    let beside = marks.iter().all(|mark| mark.x.min(mark.label.left) > y_label_end);
    let rows = if figure.y.label.is_empty() {
        rows
    } else if beside {
        rows.max(1.0)
    } else {
        rows + 1.0
    };
    let top = plot.top + 2.0;
    plot.top = top + rows * ROW_HEIGHT + HEADER_GAP;
    for mark in &mut marks {
        mark.top += plot.top - HEADER_GAP;
        mark.label = Rect { top: mark.label.top + plot.top - HEADER_GAP, bottom: mark.label.bottom + plot.top - HEADER_GAP, ..mark.label };
    }
    let y_label_row = if beside { plot.top - HEADER_GAP - ROW_HEIGHT / 2.0 } else { top + ROW_HEIGHT / 2.0 };
    ((MARGIN, y_label_row), marks)
}
