//! Where values lie along an axis, and which of them get a tick. Pure.
//!
//! In: an axis, values. Out: shares of its length, ticks with their text.
//! Drops: values that have no place on the scale.
//! Must not know: pixels of anything but lengths, series, figures.

use super::probit::probit;
use super::{Axis, FigureError, Scale};

/// The shares that an axis of normal deviates may begin and end at.
const SHARES: [f64; 27] = [
    1e-6, 1e-5, 1e-4, 2e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998,
    0.999, 0.9995, 0.9999, 0.99999, 0.999999,
];
/// Those of them that are ticked; where they are few, the others fill the gaps.
const MAIN_SHARES: [f64; 18] =
    [1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999, 0.999999];
/// An end this close to a round value, in steps, is that value: 0.3 / 0.1 is not quite 3.
const ROUNDING: f64 = 1e-9;

impl Scale {
    /// Where `value` lies, before the axis is cut to its range; infinite at the ends of the scale
    /// and not a number beyond them.
    pub fn position(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
            Self::NormalDeviate => probit(value),
        }
    }
}

/// A tick: where, as a share of the axis, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// From 0 at the low end to 1 at the high end.
    pub share: f64,
    /// Its value for people.
    pub text: String,
}

/// A scale between two values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Span {
    /// What `axis` shows: its range if it has one, or round values around `values`.
    ///
    /// # Errors
    /// Its range is not two rising values of its scale.
    pub fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Result<Self, FigureError> {
        let scale = axis.scale;
        let (low, high) = axis.range.unwrap_or_else(|| {
            let placed = values.filter(|&value| scale.position(value).is_finite());
            round_range(
                scale,
                placed.fold(None, |range: Option<(f64, f64)>, value| {
                    Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
                }),
            )
        });
        let (from, to) = (scale.position(low), scale.position(high));
        if from.is_finite() && to.is_finite() && from < to {
            Ok(Self { scale, low, high })
        } else {
            Err(FigureError::BadRange { axis: axis.label.clone(), low, high })
        }
    }

    /// Where `value` lies: 0 at the low end, 1 at the high end, beyond them out of range. Infinite
    /// or not a number where the scale has no place for it.
    pub fn share(&self, value: f64) -> f64 {
        let (low, high) = (self.scale.position(self.low), self.scale.position(self.high));
        (self.scale.position(value) - low) / (high - low)
    }

    /// The ticks that an axis of `length` pixels has room for, rising. `room` says how much of it
    /// a text takes, air included.
    pub fn ticks(&self, length: f64, room: impl Fn(&str) -> f64) -> Vec<Tick> {
        // Half of a linear axis may be text.
        let ends = [self.low, self.high].map(|end| room(&format!("{end:.1}")));
        let step = round_step((self.high - self.low) * (ends[0].max(ends[1]) * 1.5 / length).min(1.0));
        let all = self.candidates(step);
        let shown = |share: f64| (-ROUNDING..=1.0 + ROUNDING).contains(&share);
        let plain = all.iter().filter(|&&value| shown(self.share(value))).all(|value| (0.001..1e6).contains(value));
        let mut ticks: Vec<Tick> = Vec::new();
        for value in all {
            let tick = Tick { share: self.share(value), text: self.text(value, step, plain) };
            let apart = |other: &Tick| (tick.share - other.share).abs() * length >= (room(&tick.text) + room(&other.text)) / 2.0;
            if shown(tick.share) && ticks.iter().all(apart) {
                ticks.push(tick);
            }
        }
        ticks.sort_by(|a, b| a.share.total_cmp(&b.share));
        ticks
    }

    /// Values worth a tick, the most important ones first; `step` apart on a linear scale.
    fn candidates(&self, step: f64) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let (first, last) = ((self.low / step - ROUNDING).ceil() as i64, (self.high / step + ROUNDING).floor() as i64);
                (first..=last).map(|index| index as f64 * step).collect()
            }
            Scale::Log => {
                let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                // Between many decades the eye needs no help.
                let factors: &[f64] = if decades.clone().count() > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                factors.iter().flat_map(|factor| decades.clone().map(move |decade| factor * 10_f64.powi(decade))).collect()
            }
            Scale::NormalDeviate => {
                let enough = MAIN_SHARES.iter().filter(|share| (self.low..=self.high).contains(share)).count() > 4;
                if enough { MAIN_SHARES.to_vec() } else { [MAIN_SHARES.as_slice(), &SHARES].concat() }
            }
        }
    }

    fn text(&self, value: f64, step: f64, plain: bool) -> String {
        match self.scale {
            Scale::NormalDeviate => format!("{}\u{a0}%", decimal(value * 100.0, 4)),
            Scale::Log if !plain => power(value),
            Scale::Log => decimal(value, 3),
            // Ticks of one axis have the same number of decimals.
            Scale::Linear => {
                let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
                grouped(&format!("{:.decimals$}", if value.abs() < step / 2.0 { 0.0 } else { value }))
            }
        }
    }
}

/// Round values that hold `range`, or what an empty figure shows.
fn round_range(scale: Scale, range: Option<(f64, f64)>) -> (f64, f64) {
    match (scale, range) {
        (Scale::Linear, None) => (0.0, 1.0),
        (Scale::Log, None) => (0.001, 1.0),
        (Scale::NormalDeviate, None) => (0.001, 0.4),
        (Scale::Linear, Some((low, high))) => {
            // A single value gets an axis of its own size around it.
            let (low, high) = if low < high { (low, high) } else { (low - low.abs().max(1.0) / 2.0, high + high.abs().max(1.0) / 2.0) };
            let step = round_step((high - low) / 5.0);
            ((low / step + ROUNDING).floor() * step, (high / step - ROUNDING).ceil() * step)
        }
        (Scale::Log, Some((low, high))) => {
            let ladder: Vec<f64> = (low.log10().floor() as i32 - 1..=high.log10().ceil() as i32 + 1)
                .flat_map(|decade| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powi(decade)))
                .collect();
            rungs(&ladder, low, high)
        }
        (Scale::NormalDeviate, Some((low, high))) => rungs(&SHARES, low, high),
    }
}

/// The highest rung not above `low` and the lowest not below `high`, at least one apart.
fn rungs(ladder: &[f64], low: f64, high: f64) -> (f64, f64) {
    let below = ladder.iter().rposition(|&rung| rung <= low * (1.0 + ROUNDING)).unwrap_or(0);
    let above = ladder.iter().position(|&rung| rung >= high * (1.0 - ROUNDING)).unwrap_or(ladder.len() - 1);
    if below < above {
        (ladder[below], ladder[above])
    } else {
        (ladder[above.saturating_sub(1)], ladder[(above + 1).min(ladder.len() - 1)])
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    let decade = 10_f64.powi(least.log10().floor() as i32);
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * decade >= least * (1.0 - ROUNDING));
    factor.unwrap_or(10.0) * decade
}

/// `value` with as many decimals as it needs, at most `decimals`.
fn decimal(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    grouped(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
}

/// `value` as a power of ten, with its factor unless that is 1.
fn power(value: f64) -> String {
    let exponent = (value.log10() + ROUNDING).floor();
    let factor = (value / 10_f64.powf(exponent)).round();
    let superscript = |digit| match digit {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        other => char::from_u32('⁰' as u32 + other.to_digit(10).unwrap_or(0)).unwrap_or(other),
    };
    let ten = match exponent as i32 {
        0 => return format!("{factor}"),
        1 => return format!("{}", factor * 10.0),
        _ => format!("10{}", exponent.to_string().chars().map(superscript).collect::<String>()),
    };
    if factor == 1.0 { ten } else { format!("{factor}×{ten}") }
}

/// A decimal number with a real minus, and its thousands apart where it has five digits or more.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("−", digits));
    let (whole, rest) = digits.find('.').map_or((digits, ""), |point| digits.split_at(point));
    let mut text = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && whole.len() > 4 && (whole.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, range: Option<(f64, f64)>) -> Axis {
        Axis { label: "rate".into(), scale, range }
    }

    fn texts(scale: Scale, low: f64, high: f64) -> Vec<String> {
        let span = Span::new(&axis(scale, Some((low, high))), std::iter::empty()).unwrap();
        span.ticks(560.0, |text| text.chars().count() as f64 * 7.0 + 12.0)
            .into_iter()
            .map(|tick| tick.text.replace('\u{a0}', " "))
            .collect()
    }

    #[test]
    fn ticks_are_what_people_read() {
        assert_eq!(texts(Scale::NormalDeviate, 1e-4, 0.4), ["0.01 %", "0.1 %", "1 %", "5 %", "10 %", "20 %", "40 %"]);
        assert_eq!(texts(Scale::NormalDeviate, 0.002, 0.02), ["0.2 %", "0.5 %", "1 %", "2 %"]);
        assert_eq!(texts(Scale::Log, 1e-6, 1.0), ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "1"]);
        assert_eq!(texts(Scale::Log, 100.0, 20_000.0), ["100", "200", "500", "1000", "2000", "5000", "10\u{202f}000", "20\u{202f}000"]);
        assert_eq!(texts(Scale::Log, 2e-5, 2e-4), ["2×10⁻⁵", "5×10⁻⁵", "10⁻⁴", "2×10⁻⁴"]);
        assert_eq!(texts(Scale::Linear, -0.3, 0.3), ["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2", "0.3"]);
    }

    #[test]
    fn ticks_keep_apart() {
        let span = Span::new(&axis(Scale::NormalDeviate, Some((1e-6, 0.999999))), std::iter::empty()).unwrap();
        let ticks = span.ticks(300.0, |_| 40.0);
        assert!(ticks.len() > 3);
        assert!(ticks.windows(2).all(|pair| (pair[1].share - pair[0].share) * 300.0 >= 40.0));
    }

    #[test]
    fn ranges_are_round_and_hold_the_values() {
        let range = |scale, values: &[f64]| {
            let span = Span::new(&axis(scale, None), values.iter().copied()).unwrap();
            (span.low, span.high)
        };
        assert_eq!(range(Scale::Log, &[0.0, 3e3, 130.0, f64::NAN]), (100.0, 5000.0));
        assert_eq!(range(Scale::Log, &[10.0]), (5.0, 20.0));
        assert_eq!(range(Scale::NormalDeviate, &[0.0, 0.003, 0.3, 1.0]), (0.002, 0.4));
        assert_eq!(range(Scale::Linear, &[1.0, 9.0]), (0.0, 10.0));
        assert_eq!(range(Scale::Linear, &[7.0]), (2.0, 12.0));
        assert_eq!(range(Scale::Linear, &[f64::INFINITY]), (0.0, 1.0));
    }

    #[test]
    fn a_range_off_the_scale_is_refused() {
        for (scale, low, high) in
            [(Scale::Log, 0.0, 1.0), (Scale::NormalDeviate, 0.1, 1.0), (Scale::Linear, 1.0, 1.0), (Scale::Linear, f64::NAN, 1.0)]
        {
            assert!(
                matches!(Span::new(&axis(scale, Some((low, high))), std::iter::empty()), Err(FigureError::BadRange { .. })),
                "{scale:?} {low} {high}"
            );
        }
    }
}
