//! Turns luma and chroma into red, green and blue: the one place, for models and for people.
//!
//! In: a matrix and a range. Out: the conversion, for one sample or a row of them.
//! Drops nothing.
//! Must not know: where samples lie.

use crate::picture::{ColourMatrix, ColourRange};

/// The conversion of one frame, all samples in bytes' units (0 to 255), from ITU-R BT.601-7 and
/// BT.709-6: `R = Y + 2(1-Kr)·Cr`, `B = Y + 2(1-Kb)·Cb`, `G` from `Y = Kr·R + Kg·G + Kb·B`.
#[derive(Clone, Copy, Debug)]
pub struct ToRgb {
    luma_zero: f32,
    luma_gain: f32,
    red_of_v: f32,
    green_of_u: f32,
    green_of_v: f32,
    blue_of_u: f32,
}

impl ToRgb {
    /// The conversion that `matrix` and `range` ask for.
    pub fn new(matrix: ColourMatrix, range: ColourRange) -> Self {
        let (kr, kb) = match matrix {
            ColourMatrix::Bt601 => (0.299_f32, 0.114_f32),
            ColourMatrix::Bt709 => (0.2126, 0.0722),
        };
        let (luma_zero, luma_gain, chroma_gain) = match range {
            ColourRange::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
            ColourRange::Full => (0.0, 1.0, 1.0),
        };
        let (red, blue, kg) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb), 1.0 - kr - kb);
        Self {
            luma_zero,
            luma_gain,
            red_of_v: red * chroma_gain,
            green_of_u: -blue * kb / kg * chroma_gain,
            green_of_v: -red * kr / kg * chroma_gain,
            blue_of_u: blue * chroma_gain,
        }
    }

    /// Red, green and blue of one sample, 0 to 255.
    pub fn rgb(&self, y: f32, u: f32, v: f32) -> [f32; 3] {
        let y = (y - self.luma_zero) * self.luma_gain;
        self.shift(u, v).map(|shift| (y + shift).clamp(0.0, 255.0))
    }

    /// What the chroma of a sample adds to its luma, in red, green and blue.
    #[inline(always)]
    pub fn shift(&self, u: f32, v: f32) -> [f32; 3] {
        let (u, v) = (u - 128.0, v - 128.0);
        [self.red_of_v * v, self.green_of_u * u + self.green_of_v * v, self.blue_of_u * u]
    }

    /// Stretches a row of luma to the whole range of a byte, black to 0 and white to 255.
    #[inline(always)]
    pub fn stretch(&self, luma: &mut [f32]) {
        luma.iter_mut().for_each(|y| *y = (*y - self.luma_zero) * self.luma_gain);
    }

    /// The luma of black.
    pub fn luma_of_black(&self) -> u8 {
        self.luma_zero as u8
    }
}

/// Red, green or blue of a row of samples, from their stretched luma and what chroma adds.
#[inline(always)]
pub fn component_row(luma: &[f32], shift: &[f32], out: &mut [u8]) {
    for (out, (y, shift)) in out.iter_mut().zip(luma.iter().zip(shift)) {
        *out = level((y + shift).clamp(0.0, 255.0));
    }
}

/// The byte nearest to a value from 0 to 255, halves to the even one; what is no number gives 0.
#[inline(always)]
pub fn level(value: f32) -> u8 {
    // From here on floats lie one apart: the addition rounds, and the level stands in the lowest bits. A cast would ask each
    // value whether it is a number, one by one: twice the time of a row.
    const WHOLE: f32 = 8_388_608.0;
    (value + WHOLE).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_the_nearest_byte() {
        for value in (0..=255 * 16).map(|sixteenths| sixteenths as f32 / 16.0) {
            assert_eq!(f32::from(level(value)), value.round_ties_even(), "{value}");
        }
        assert_eq!(level(f32::NAN), 0);
    }

    #[test]
    fn the_corners_of_the_range_are_black_white_and_the_primaries() {
        let near = |rgb: [f32; 3], expected: [f32; 3]| rgb.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1.5);
        for matrix in [ColourMatrix::Bt601, ColourMatrix::Bt709] {
            let limited = ToRgb::new(matrix, ColourRange::Limited);
            assert!(near(limited.rgb(16.0, 128.0, 128.0), [0.0; 3]));
            assert!(near(limited.rgb(235.0, 128.0, 128.0), [255.0; 3]));
            let full = ToRgb::new(matrix, ColourRange::Full);
            assert!(near(full.rgb(0.0, 128.0, 128.0), [0.0; 3]));
            assert!(near(full.rgb(255.0, 128.0, 128.0), [255.0; 3]));
        }
        // Pure red as BT.601 and BT.709 send it in the limited range.
        assert!(near(ToRgb::new(ColourMatrix::Bt601, ColourRange::Limited).rgb(81.0, 90.0, 240.0), [255.0, 0.0, 0.0]));
        assert!(near(ToRgb::new(ColourMatrix::Bt709, ColourRange::Limited).rgb(63.0, 102.0, 240.0), [255.0, 0.0, 0.0]));
    }
}
