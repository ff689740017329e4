//! Products by AVX2.
//!
//! In, out: see [`products`](super::products()). Half a run of a block is one register, a lane one row.
//! Must not know: other processors.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_load_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_si256,
};

use super::{Block, Bytes, CODE_MAX, QUAD, ROWS, RUN, Sums, WIDTH};

/// The largest byte of a probe, up or down: eight products then fit in 16 bits, 8 · 63 · 65 being 32,760.
pub const BYTE_MAX: i8 = 65;
/// Rows of a register.
const HALF: usize = ROWS / 2;

/// See [`super::products`].
#[target_feature(enable = "avx2")]
pub fn products<const N: usize>(bands: &[Block], probes: &[[Bytes; N]], sums: &mut [Sums; N]) {
    for (at, band) in bands.chunks_exact(probes.len().max(1)).enumerate() {
        for half in 0..2 {
            let mut lanes = [_mm256_setzero_si256(); N];
            for (block, probes) in band.iter().zip(probes) {
                let codes = unpack(block, half);
                for (lanes, probe) in lanes.iter_mut().zip(probes) {
                    *lanes = _mm256_add_epi32(*lanes, product(codes, probe));
                }
            }
            for (sums, lanes) in sums.iter_mut().zip(lanes) {
                let sums: &mut [i32; HALF] = &mut sums[at].as_chunks_mut().0[half];
                // SAFETY: the reference is to the 32 bytes that are written, and no alignment is asked for.
                unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), lanes) }
            }
        }
    }
}

/// The codes of half of a block's rows as bytes, number by number.
#[target_feature(enable = "avx2")]
#[inline]
fn unpack(block: &Block, half: usize) -> [__m256i; WIDTH / QUAD] {
    let mask = |bits: u8| _mm256_set1_epi8(bits.cast_signed());
    let (first, second, third) = (half_run(block, half), half_run(block, 2 + half), half_run(block, 4 + half));
    let low = _mm256_and_si256(_mm256_srli_epi16::<6>(first), mask(0b11));
    let middle = _mm256_and_si256(_mm256_srli_epi16::<4>(second), mask(0b1100));
    let high = _mm256_and_si256(_mm256_srli_epi16::<2>(third), mask(0b11_0000));
    let own = mask(CODE_MAX);
    [
        _mm256_and_si256(first, own),
        _mm256_and_si256(second, own),
        _mm256_and_si256(third, own),
        _mm256_or_si256(_mm256_or_si256(low, middle), high),
    ]
}

/// The sums of the products of a block: eight of them fit in 16 bits ([`BYTE_MAX`]).
#[target_feature(enable = "avx2")]
#[inline]
fn product(codes: [__m256i; WIDTH / QUAD], probe: &Bytes) -> __m256i {
    let pairs = |quad: usize| {
        let bytes = _mm256_set1_epi32(i32::from_ne_bytes(probe[quad].map(i8::cast_unsigned)));
        _mm256_maddubs_epi16(codes[quad], bytes)
    };
    let sums = _mm256_add_epi16(_mm256_add_epi16(pairs(0), pairs(1)), _mm256_add_epi16(pairs(2), pairs(3)));
    _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
}

#[target_feature(enable = "avx2")]
#[inline]
fn half_run(block: &Block, at: usize) -> __m256i {
    let bytes: &[u8; RUN / 2] = &block.0.as_chunks().0[at];
    // SAFETY: the reference is to the 32 bytes that are read, and blocks and their halves are aligned to as many.
    unsafe { _mm256_load_si256(bytes.as_ptr().cast()) }
}
