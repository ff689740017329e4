//! The inverse of the normal distribution function. Pure.
//!
//! In: shares. Out: normal deviates.
//! Must not know: axes.

/// Of the polynomials above and below a fraction bar, from the constant term on.
type Coefficients = [[f64; 8]; 2];

#[expect(clippy::excessive_precision, reason = "the coefficients are as published")]
const CENTRE: Coefficients = [
    [
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ],
    [
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ],
];
#[expect(clippy::excessive_precision, reason = "the coefficients are as published")]
const SHOULDER: Coefficients = [
    [
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ],
    [
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ],
];
#[expect(clippy::excessive_precision, reason = "the coefficients are as published")]
const TAIL: Coefficients = [
    [
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ],
    [
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ],
];

/// The normal deviate below which a share `p` lies, to about 16 digits (Wichura, 1988: "Algorithm AS 241: The percentage points
/// of the normal distribution", PPND16). Infinite at 0 and 1, not a number beyond.
pub fn probit(p: f64) -> f64 {
    let ratio = |[above, below]: &Coefficients, r: f64| {
        let polynomial = |coefficients: &[f64; 8]| coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * r + coefficient);
        polynomial(above) / polynomial(below)
    };
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(&CENTRE, 0.180625 - q * q);
    }
    let tail = p.min(1.0 - p);
    if tail == 0.0 {
        return f64::INFINITY.copysign(q);
    }
    let r = (-tail.ln()).sqrt();
    let deviate = if r <= 5.0 { ratio(&SHOULDER, r - 1.6) } else { ratio(&TAIL, r - 5.0) };
    deviate.copysign(q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviates_are_exact() {
        // Of those very doubles, found with mpmath in 50-digit arithmetic.
        for (p, deviate) in [
            (1e-12, -7.034483825301132),
            (1e-4, -3.7190164854556804),
            (0.02, -2.053748910631823),
            (0.3, -0.5244005127080408),
            (0.975, 1.9599639845400538),
        ] {
            assert!((probit(p) - deviate).abs() < 1e-13 * deviate.abs().max(1.0), "{p}: {} is not {deviate}", probit(p));
        }
        assert_eq!(probit(0.5), 0.0);
        assert_eq!((probit(0.0), probit(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(probit(-0.1).is_nan() && probit(1.1).is_nan() && probit(f64::NAN).is_nan());
    }
}
