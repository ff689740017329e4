//! Points, boxes and what of a shape lies within a box. Pure.
//!
//! In: points in pixels, downwards. Out: points in pixels.
//! Must not know: axes, series, colours.

/// A place: right and down.
pub type Point = (f64, f64);

/// An upright box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Its left edge.
    pub left: f64,
    /// Its upper edge.
    pub top: f64,
    /// Its right edge.
    pub right: f64,
    /// Its lower edge.
    pub bottom: f64,
}

impl Rect {
    /// The box with `margin` more on every side.
    pub fn grown(self, margin: f64) -> Self {
        Self { left: self.left - margin, top: self.top - margin, right: self.right + margin, bottom: self.bottom + margin }
    }

    /// Whether the two share any area.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// Whether `other` lies within.
    pub fn contains(&self, other: &Self) -> bool {
        self.left <= other.left && other.right <= self.right && self.top <= other.top && other.bottom <= self.bottom
    }

    /// How far `point` is from the box; 0 within.
    pub fn distance(&self, (x, y): Point) -> f64 {
        (self.left - x).max(x - self.right).max(0.0).hypot((self.top - y).max(y - self.bottom).max(0.0))
    }

    /// The four corners and the centre.
    pub fn probes(&self) -> [Point; 5] {
        let centre = ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0);
        [centre, (self.left, self.top), (self.right, self.top), (self.right, self.bottom), (self.left, self.bottom)]
    }

    /// The part of the segment from `a` to `b` within the box (Liang and Barsky, 1984).
    pub fn clip_segment(&self, a: Point, b: Point) -> Option<(Point, Point)> {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
        for (step, room) in [(-dx, a.0 - self.left), (dx, self.right - a.0), (-dy, a.1 - self.top), (dy, self.bottom - a.1)] {
            if step == 0.0 {
                if room < 0.0 {
                    return None;
                }
            } else if step < 0.0 {
                enter = enter.max(room / step);
            } else {
                leave = leave.min(room / step);
            }
        }
        // An end within is kept to the last bit, so that neighbours still meet there.
        let from = if enter == 0.0 { a } else { (a.0 + enter * dx, a.1 + enter * dy) };
        let to = if leave == 1.0 { b } else { (a.0 + leave * dx, a.1 + leave * dy) };
        (enter <= leave).then_some((from, to))
    }

    /// The parts of a line within the box.
    pub fn clip_line(&self, line: &[Point]) -> Vec<Vec<Point>> {
        let mut parts: Vec<Vec<Point>> = Vec::new();
        for (a, b) in segments(line) {
            let Some((from, to)) = self.clip_segment(a, b) else { continue };
            match parts.last_mut() {
                Some(part) if part.last() == Some(&from) => part.push(to),
                _ => parts.push(vec![from, to]),
            }
        }
        parts
    }

    /// The part of an area within the box (Sutherland and Hodgman, 1974).
    pub fn clip_area(&self, area: &[Point]) -> Vec<Point> {
        // Each edge as the function that is positive within; it is linear, so that its zero is found at once.
        let edges: [&dyn Fn(Point) -> f64; 4] = [&|p| p.0 - self.left, &|p| self.right - p.0, &|p| p.1 - self.top, &|p| self.bottom - p.1];
        edges.iter().fold(area.to_vec(), |area, inside| {
            let mut kept = Vec::with_capacity(area.len());
            for (index, &b) in area.iter().enumerate() {
                let a = area[(index + area.len() - 1) % area.len()];
                let (from, to) = (inside(a), inside(b));
                if (from < 0.0) != (to < 0.0) {
                    let share = from / (from - to);
                    kept.push((a.0 + share * (b.0 - a.0), a.1 + share * (b.1 - a.1)));
                }
                if to >= 0.0 {
                    kept.push(b);
                }
            }
            kept
        })
    }
}

/// The segments of a line.
pub fn segments(line: &[Point]) -> impl Iterator<Item = (Point, Point)> + '_ {
    line.windows(2).map(|pair| (pair[0], pair[1]))
}

/// `line` without the points that lie closer than `distance` to the one before: what nobody sees
/// only makes the file larger.
pub fn thin(line: &[Point], distance: f64) -> Vec<Point> {
    let mut kept: Vec<Point> = Vec::new();
    for (index, &point) in line.iter().enumerate() {
        let far = kept.last().is_none_or(|last| (point.0 - last.0).hypot(point.1 - last.1) >= distance);
        if far || index + 1 == line.len() {
            kept.push(point);
        }
    }
    kept
}

/// Points along `line`, about `distance` apart.
pub fn resample(line: &[Point], distance: f64) -> Vec<Point> {
    segments(line)
        .flat_map(|(a, b)| {
            let steps = ((b.0 - a.0).hypot(b.1 - a.1) / distance).ceil().max(1.0);
            (0..steps as u32).map(move |step| {
                let share = f64::from(step) / steps;
                (a.0 + share * (b.0 - a.0), a.1 + share * (b.1 - a.1))
            })
        })
        .collect()
}

/// Whether `point` lies in `area`.
pub fn is_within((x, y): Point, area: &[Point]) -> bool {
    let closing = area.last().copied().zip(area.first().copied());
    let crossings =
        segments(area).chain(closing).filter(|&(a, b)| (a.1 > y) != (b.1 > y) && x < a.0 + (y - a.1) / (b.1 - a.1) * (b.0 - a.0));
    crossings.count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: Rect = Rect { left: 0.0, top: 0.0, right: 10.0, bottom: 10.0 };

    #[test]
    fn a_line_that_leaves_and_returns_is_cut_in_two() {
        let parts = BOX.clip_line(&[(2.0, 5.0), (5.0, -5.0), (8.0, 5.0)]);
        assert_eq!(parts, [vec![(2.0, 5.0), (3.5, 0.0)], vec![(6.5, 0.0), (8.0, 5.0)]]);
        assert!(BOX.clip_line(&[(-5.0, 3.0), (-1.0, 30.0)]).is_empty());
        assert_eq!(BOX.clip_line(&[(1.0, 1.0), (2.3, 2.1), (3.7, 0.1), (9.9, 0.7)]).len(), 1);
    }

    #[test]
    fn an_area_is_cut_at_the_edges() {
        let kept = BOX.clip_area(&[(-5.0, 2.0), (20.0, 2.0), (20.0, 20.0), (-5.0, 20.0)]);
        assert_eq!(kept.len(), 4);
        assert!(kept.iter().all(|&point| BOX.distance(point) == 0.0));
        assert!(kept.contains(&(0.0, 2.0)) && kept.contains(&(10.0, 10.0)));
        assert!(BOX.clip_area(&[(11.0, 0.0), (12.0, 0.0), (12.0, 5.0)]).is_empty());
    }

    #[test]
    fn thinning_keeps_the_ends_and_the_peaks() {
        let line: Vec<Point> = (0..=1000).map(|i| (f64::from(i) * 0.01, if i == 500 { 9.0 } else { 0.0 })).collect();
        let thinned = thin(&line, 0.5);
        assert!(thinned.len() < 30);
        assert!(thinned.contains(&(5.0, 9.0)));
        assert_eq!((thinned.first(), thinned.last()), (line.first(), line.last()));
    }

    #[test]
    fn a_point_is_within_an_area_or_not() {
        let area = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)];
        assert!(is_within((2.0, 2.0), &area));
        assert!(!is_within((8.0, 8.0), &area));
        assert!(!is_within((1.0, 1.0), &[]));
    }
}
