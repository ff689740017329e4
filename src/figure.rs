//! Figures and reports: curves as SVG, and pages of text, tables and figures as HTML. Pure.
//!
//! In: [`Figure`], numbers with names; [`Report`], sections of text, tables and figures. Out: one
//! SVG or one HTML text that loads nothing from anywhere.
//! Drops: points that are no numbers or have no place on their axis; what lies out of range is cut
//! off at the edge; control characters.
//! Must not know: what is measured, where the text is kept.

mod canvas;
mod draw;
mod frame;
mod geometry;
mod label;
mod probit;
mod report;
mod scale;
mod text;
mod trace;

pub use report::{Photo, Report, Section, Table, html};

/// Why there is no figure.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FigureError {
    /// The range asked for is empty, or leaves the scale.
    #[error("the axis {axis:?} cannot reach from {low} to {high}; give two rising numbers that lie on its scale")]
    BadRange {
        /// The axis's label.
        axis: String,
        /// Where it was to begin.
        low: f64,
        /// Where it was to end.
        high: f64,
    },
    /// The figure cannot be written.
    #[error("cannot draw the figure: {0}")]
    Draw(String),
}

/// A figure: curves over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it shows, above it.
    pub title: String,
    /// How to read it, in one or two sentences; below it in a report.
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn. Series of the same name share a colour and a label, as a line and its band
    /// do; a series without a name is grey and has no label, as a line of reference.
    pub series: Vec<Series>,
    /// Values of the horizontal axis that are pointed out.
    pub markers: Vec<Marker>,
}

/// One axis of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it measures, with the unit.
    pub label: String,
    /// How values become distances.
    pub scale: Scale,
    /// The lowest and the highest value shown, or what the series need.
    pub range: Option<(f64, f64)>,
}

/// How values become distances along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are equally far apart. Only positive values have a place.
    Log,
    /// Shares by their normal deviate (probit), as DET curves have them (Martin et al., 1997: "The
    /// DET curve in assessment of detection task performance"). Only values between 0 and 1 have a
    /// place; ticks are percentages.
    NormalDeviate,
}

/// Points that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What they are.
    pub name: String,
    /// Horizontal and vertical value of each, in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub style: Style,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line.
    Line,
    /// A line of dashes.
    Dashed,
    /// A dot for each point.
    Points,
    /// The outline of steps, lightly filled, as of a histogram. Each point is where a step begins
    /// and its height, which holds up to the next point; the last point ends the last step and has
    /// the height 0.
    Steps,
    /// The area between two lines: points (x, low) forth and (x, high) back. A bound at the end of
    /// its scale, such as 0 of a logarithm, lies on the edge.
    Band,
}

/// A vertical line with a label, such as a threshold in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Marker {
    /// Its place on the horizontal axis.
    pub x: f64,
    /// What is there.
    pub label: String,
}

/// `figure` as an SVG document of 640 by 420 pixels.
///
/// # Errors
/// An axis is given a range that its scale does not have.
pub fn svg(figure: &Figure) -> Result<String, FigureError> {
    draw::svg(figure)
}

#[cfg(test)]
mod tests;
