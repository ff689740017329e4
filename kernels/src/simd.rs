//! Compiles functions that go over every pixel a second time, for wider vectors.
//!
//! In: a function of plain loops. Out: the same function, which chooses by the processor it runs on.
//! Drops nothing: the answers are the same to the last bit, since the compiler fuses no
//! multiplication with an addition.
//! Must not know: what the loops do.
//!
//! The binary must run on any processor of its architecture, so it is compiled for the oldest. What
//! such a function calls takes part only where it is inlined: `#[inline(always)]`.

/// Makes of a function one that is compiled for every processor and once more each for AVX2 and AVX-512.
#[macro_export]
macro_rules! widest_vectors {
    (
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident $([const $n:ident: usize])? ($($argument:ident: $kind:ty),* $(,)?) $(-> $answer:ty)? $body:block
    ) => {
        $(#[$meta])*
        $visibility fn $name$(<const $n: usize>)?($($argument: $kind),*) $(-> $answer)? {
            #[inline(always)]
            fn plain$(<const $n: usize>)?($($argument: $kind),*) $(-> $answer)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512$(<const $n: usize>)?($($argument: $kind),*) $(-> $answer)? {
                    plain($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2$(<const $n: usize>)?($($argument: $kind),*) $(-> $answer)? {
                    plain($($argument),*)
                }
                if $crate::simd::has_avx512() {
                    // SAFETY: the processor has just said that it has all of them.
                    return unsafe { avx512($($argument),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just said that it has AVX2.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    };
}

pub use widest_vectors;

/// Whether this processor has the parts of AVX-512 that loops over bytes and numbers are compiled for.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")
}

/// Asks for `data` to be brought close, for somebody who will read it soon.
#[inline]
pub fn prefetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let first = data.as_ptr().cast::<i8>();
        for line in (0..size_of_val(data)).step_by(64) {
            // SAFETY: a prefetch reads nothing, and every processor of this architecture knows it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(line)) }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

/// Which of 64 numbers are at least `least`: bit by bit, from below.
#[inline]
pub fn at_least(least: f32, numbers: &[f32; 64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_CMP_GE_OQ, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_set1_ps};
        #[target_feature(enable = "avx512f")]
        fn avx512(least: f32, numbers: &[f32; 64]) -> u64 {
            let (sixteens, _) = numbers.as_chunks::<16>();
            sixteens.iter().rev().fold(0, |bits, numbers| {
                // SAFETY: the reference is to the 64 bytes that are read, and no alignment is asked for.
                let numbers = unsafe { _mm512_loadu_ps(numbers.as_ptr()) };
                bits << 16 | u64::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(numbers, _mm512_set1_ps(least)))
            })
        }
        if has_avx512() {
            // SAFETY: the processor has just said that it has AVX-512.
            return unsafe { avx512(least, numbers) };
        }
    }
    at_least_plain(least, numbers)
}

fn at_least_plain(least: f32, numbers: &[f32; 64]) -> u64 {
    // Nearly always none is, which is seen of all together.
    if !numbers.iter().fold(false, |any, number| any | (*number >= least)) {
        return 0;
    }
    numbers.iter().rev().fold(0, |bits, number| bits << 1 | u64::from(*number >= least))
}

#[cfg(test)]
mod tests {
    use super::{at_least, at_least_plain};

    #[test]
    fn the_numbers_that_are_large_enough_are_named_by_their_bits() {
        let numbers: [f32; 64] = std::array::from_fn(|at| [f32::NAN, 1.0, -1.0, 0.5, f32::INFINITY, f32::NEG_INFINITY, 0.25][at * at % 7]);
        for least in [f32::NEG_INFINITY, 0.5, 0.75, f32::INFINITY] {
            let wanted: u64 = (0..64).filter(|at| numbers[*at] >= least).map(|at| 1 << at).sum();
            assert_eq!(at_least(least, &numbers), wanted);
            assert_eq!(at_least_plain(least, &numbers), wanted);
        }
    }

    /// The loop that the test below runs both ways.
    fn brighten(values: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(values).for_each(|(out, v)| *out = ((v - 16.0) * 1.164 + v * 0.391).clamp(0.0, 255.0));
    }

    widest_vectors! {
        fn brighten_widest(values: &[f32], out: &mut [f32]) {
            brighten(values, out);
        }
    }

    #[test]
    fn the_answer_is_that_of_the_plain_loop_to_the_last_bit() {
        let values: Vec<f32> = (0..1_003).map(|i| (i as f32).sin() * 1e3).collect();
        let (mut plain, mut widest) = (vec![0.0; values.len()], vec![0.0; values.len()]);
        brighten(&values, &mut plain);
        brighten_widest(&values, &mut widest);
        assert!(plain.iter().zip(&widest).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
