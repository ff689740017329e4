//! Draws a figure: the grid first, then areas, markers, lines and names.
//!
//! In: a figure. Out: an SVG document.
//! Must not know: how SVG is written, how places are found.

use super::canvas::{Anchor, Canvas, Colour, Font, HEIGHT, Stroke, document};
use super::frame::{Frame, Mark, SWATCH, TEXT_SIZE, TITLE_SIZE};
use super::label::{Label, beside, darker, names};
use super::trace::{Trace, traces};
use super::{Figure, FigureError};

const PAPER: Colour = (255, 255, 255);
const INK: Colour = (34, 34, 34);
const QUIET: Colour = (90, 90, 90);
const GRID: Colour = (232, 232, 232);
const AXIS: Colour = (160, 160, 160);
const CURVE_WIDTH: f64 = 2.0;
const DOT_RADIUS: f64 = 2.8;
const AREA_OPACITY: f64 = 0.16;

/// `figure` as SVG.
///
/// # Errors
/// An axis is given a range that its scale does not have.
pub fn svg(figure: &Figure) -> Result<String, FigureError> {
    let mut frame = Frame::new(figure, &[])?;
    let mut shown = traces(&figure.series, &frame);
    let labels = match beside(&shown, &frame) {
        Some(labels) => labels,
        None => {
            // Not every name has a place beside its curve: a legend above takes them all.
            frame = Frame::new(figure, &names(&shown))?;
            shown = traces(&figure.series, &frame);
            Vec::new()
        }
    };
    document(&figure.title, |canvas| {
        axes(canvas, &frame, figure)?;
        data(canvas, &frame, &shown)?;
        labels.iter().try_for_each(|label| direct(canvas, label))?;
        legend(canvas, &frame, &shown)
    })
}

fn axes(canvas: &Canvas, frame: &Frame, figure: &Figure) -> Result<(), FigureError> {
    let plot = &frame.plot;
    let font = |colour, anchor| Font { size: TEXT_SIZE, colour, bold: false, anchor };
    let thin = |colour| Stroke { colour, width: 1.0, dashed: false };
    for (at, line) in &frame.title {
        canvas.text(line, *at, Font { size: TITLE_SIZE, colour: INK, bold: true, anchor: Anchor::Left })?;
    }
    for tick in &frame.x_ticks {
        let x = frame.across(tick.share);
        canvas.line(&[(x, plot.top), (x, plot.bottom)], thin(GRID))?;
        canvas.line(&[(x, plot.bottom), (x, plot.bottom + 4.0)], thin(AXIS))?;
        canvas.text(&tick.text, (x, plot.bottom + 14.0), font(QUIET, Anchor::Middle))?;
    }
    for tick in &frame.y_ticks {
        let y = frame.down(tick.share);
        canvas.line(&[(plot.left, y), (plot.right, y)], thin(GRID))?;
        canvas.text(&tick.text, (plot.left - 7.0, y), font(QUIET, Anchor::Right))?;
    }
    canvas.line(&[(plot.left, plot.bottom), (plot.right, plot.bottom)], thin(AXIS))?;
    canvas.text(&figure.y.label, frame.y_label, font(INK, Anchor::Left))?;
    canvas.text(&figure.x.label, ((plot.left + plot.right) / 2.0, HEIGHT - 15.0), font(INK, Anchor::Middle))
}

fn data(canvas: &Canvas, frame: &Frame, traces: &[Trace]) -> Result<(), FigureError> {
    for trace in traces.iter().filter(|trace| trace.area.len() > 2) {
        canvas.polygon(&trace.area, trace.colour, AREA_OPACITY)?;
    }
    for mark in &frame.markers {
        canvas.line(&[(mark.x, mark.top), (mark.x, frame.plot.bottom)], Stroke { colour: QUIET, width: 1.2, dashed: false })?;
    }
    for Mark { label, text, .. } in &frame.markers {
        // Should a line have to pass here, it passes behind.
        canvas.polygon(
            &[(label.left, label.top), (label.right, label.top), (label.right, label.bottom), (label.left, label.bottom)],
            PAPER,
            1.0,
        )?;
        canvas.text(
            text,
            (label.left, (label.top + label.bottom) / 2.0),
            Font { size: TEXT_SIZE, colour: INK, bold: false, anchor: Anchor::Left },
        )?;
    }
    for trace in traces {
        for line in &trace.lines {
            canvas.line(line, stroke(trace))?;
        }
        for &dot in &trace.dots {
            canvas.dot(dot, DOT_RADIUS, trace.colour)?;
        }
    }
    Ok(())
}

/// Steps have thinner lines, for their area shows them too, and so has what is only for reference.
fn stroke(trace: &Trace) -> Stroke {
    let width = if trace.area.is_empty() && !trace.name.is_empty() { CURVE_WIDTH } else { 1.3 };
    Stroke { colour: trace.colour, width, dashed: trace.dashed }
}

fn direct(canvas: &Canvas, label: &Label) -> Result<(), FigureError> {
    let middle = ((label.place.left + label.place.right) / 2.0, (label.place.top + label.place.bottom) / 2.0);
    canvas.text(&label.text, middle, Font { size: TEXT_SIZE, colour: label.colour, bold: false, anchor: Anchor::Middle })
}

fn legend(canvas: &Canvas, frame: &Frame, traces: &[Trace]) -> Result<(), FigureError> {
    for ((at, text), name) in frame.legend.iter().zip(names(traces)) {
        let &(x, y) = at;
        let own = || traces.iter().filter(|trace| trace.name == name);
        for trace in own() {
            if !trace.area.is_empty() {
                canvas.polygon(&[(x, y - 5.0), (x + SWATCH, y - 5.0), (x + SWATCH, y + 5.0), (x, y + 5.0)], trace.colour, AREA_OPACITY)?;
            }
            if !trace.lines.is_empty() {
                canvas.line(&[(x, y), (x + SWATCH, y)], stroke(trace))?;
            }
            if !trace.dots.is_empty() {
                canvas.dot((x + SWATCH / 2.0, y), DOT_RADIUS, trace.colour)?;
            }
        }
        let colour = own().next().map_or(INK, |trace| darker(trace.colour));
        canvas.text(text, (x + SWATCH + 6.0, y), Font { size: TEXT_SIZE, colour, bold: false, anchor: Anchor::Left })?;
    }
    Ok(())
}
