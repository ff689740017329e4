//! Lines, areas, dots and text on a white card, as SVG. The one place that knows the drawing crate.
//!
//! In: shapes in pixels and their colours. Out: an SVG document.
//! Drops: control characters.
//! Must not know: figures, axes, what is drawn.

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, DashedPathElement, Drawable, PathElement, PointCollection, Polygon};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontFamily, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::FigureError;
use super::geometry::Point;
use super::text::{escape, printable};

/// How wide a figure is.
pub const WIDTH: f64 = 640.0;
/// How high a figure is.
pub const HEIGHT: f64 = 420.0;
/// The crate draws at whole units only, so that its units are a tenth of a pixel: curves stay smooth.
const UNITS: f64 = 10.0;
/// The crate divides the size of letters by this.
const FONT_FACTOR: f64 = 1.24;
/// The lengths of a dash and of the gap after it, in pixels.
const DASH: (f64, f64) = (6.0, 4.0);

/// A colour: red, green and blue.
pub type Colour = (u8, u8, u8);

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Stroke {
    /// Its colour.
    pub colour: Colour,
    /// Its width in pixels.
    pub width: f64,
    /// Whether it is drawn in dashes.
    pub dashed: bool,
}

/// Which point of a text its place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Left,
    /// Its middle.
    Middle,
    /// Its right end.
    Right,
}

/// How a text is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Font {
    /// The size of its letters in pixels.
    pub size: f64,
    /// Its colour.
    pub colour: Colour,
    /// Whether it is bold.
    pub bold: bool,
    /// Which point of it is placed; vertically it is always the middle.
    pub anchor: Anchor,
}

/// What is drawn on.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// The document that `paint` paints, named `name` for those who cannot see it.
///
/// # Errors
/// What `paint` or the drawing crate says.
pub fn document(name: &str, paint: impl FnOnce(&Canvas) -> Result<(), FigureError>) -> Result<String, FigureError> {
    let mut drawn = String::new();
    let canvas =
        Canvas { area: SVGBackend::with_string(&mut drawn, ((WIDTH * UNITS) as u32, (HEIGHT * UNITS) as u32)).into_drawing_area() };
    canvas.polygon(&[(0.0, 0.0), (WIDTH, 0.0), (WIDTH, HEIGHT), (0.0, HEIGHT)], (255, 255, 255), 1.0)?;
    paint(&canvas)?;
    canvas.area.present().map_err(|error| FigureError::Draw(error.to_string()))?;
    drop(canvas);
    // The crate's own opening tag has its units as size, and no name.
    let (_, content) = drawn.split_once('>').ok_or_else(|| FigureError::Draw("the document is empty".to_owned()))?;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" stroke-linejoin=\"round\">{content}",
        WIDTH * UNITS,
        HEIGHT * UNITS,
        escape(name),
    ))
}

impl Canvas<'_> {
    /// Draws a line.
    ///
    /// # Errors
    /// What the drawing crate says; the same holds for every other shape.
    pub fn line(&self, points: &[Point], stroke: Stroke) -> Result<(), FigureError> {
        let style = ShapeStyle { color: colour(stroke.colour).to_rgba(), filled: false, stroke_width: units(stroke.width) as u32 };
        let points: Vec<_> = points.iter().map(|&point| place(point)).collect();
        if stroke.dashed {
            self.draw(&DashedPathElement::new(points, units(DASH.0), units(DASH.1), style))
        } else {
            self.draw(&PathElement::new(points, style))
        }
    }

    /// Fills an area.
    pub fn polygon(&self, points: &[Point], fill: Colour, opacity: f64) -> Result<(), FigureError> {
        let points: Vec<_> = points.iter().map(|&point| place(point)).collect();
        self.draw(&Polygon::new(points, colour(fill).mix(opacity).filled()))
    }

    /// Fills a dot.
    pub fn dot(&self, centre: Point, radius: f64, fill: Colour) -> Result<(), FigureError> {
        self.draw(&Circle::new(place(centre), units(radius), colour(fill).filled()))
    }

    /// Writes a line of text.
    pub fn text(&self, text: &str, at: Point, font: Font) -> Result<(), FigureError> {
        let horizontal = match font.anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let weight = if font.bold { FontStyle::Bold } else { FontStyle::Normal };
        let family = (FontFamily::SansSerif, font.size * UNITS * FONT_FACTOR, weight).into_font();
        let colour = colour(font.colour);
        let style = TextStyle::from(family).color(&colour).pos(Pos::new(horizontal, VPos::Center));
        self.area.draw_text(&printable(text), &style, place(at)).map_err(|error| FigureError::Draw(error.to_string()))
    }

    fn draw<E>(&self, element: &E) -> Result<(), FigureError>
    where
        for<'b> &'b E: PointCollection<'b, (i32, i32)>,
        E: for<'b> Drawable<SVGBackend<'b>>,
    {
        self.area.draw(element).map_err(|error| FigureError::Draw(error.to_string()))
    }
}

fn colour((red, green, blue): Colour) -> RGBColor {
    RGBColor(red, green, blue)
}

fn units(pixels: f64) -> i32 {
    (pixels * UNITS).round() as i32
}

fn place((x, y): Point) -> (i32, i32) {
    (units(x), units(y))
}
