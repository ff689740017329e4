//! Compiles functions that go over every pixel a second time, for wider vectors.
//!
//! In: a function of plain loops. Out: the same function, which chooses by the processor it runs on.
//! Drops nothing: the answers are the same to the last bit, since the compiler fuses no
//! multiplication with an addition.
//! Must not know: what the loops do.
//!
//! The binary must run on any processor of its architecture, so it is compiled for the oldest. What
//! such a function calls takes part only where it is inlined: `#[inline(always)]`.

/// Makes of a function one that is compiled for every processor and once more for AVX2.
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
                #[target_feature(enable = "avx2")]
                fn avx2$(<const $n: usize>)?($($argument: $kind),*) $(-> $answer)? {
                    plain($($argument),*)
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

pub(crate) use widest_vectors;

/// Asks for `data` to be brought close, for somebody who will read it soon.
#[inline]
pub(crate) fn prefetch<T>(data: &[T]) {
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

#[cfg(test)]
mod tests {
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
