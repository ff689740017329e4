//! Products by AVX-512 with byte products in one instruction (VNNI): Intel's since Ice Lake, AMD's since Zen 4.
//!
//! In, out: see [`products`](super::products()). A run of a block is one register, a lane one row.
//! Must not know: other processors.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_srli_epi16, _mm512_storeu_si512, _mm512_ternarylogic_epi32,
};

use super::{Block, Bytes, CODE_MAX, QUAD, RUN, Sums, WIDTH};

/// Whether this processor has what [`products`] is compiled for.
pub fn is_there() -> bool {
    doorward_kernels::simd::has_avx512() && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// See [`super::products`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub fn products<const N: usize>(bands: &[Block], probes: &[[Bytes; N]], sums: &mut [Sums; N]) {
    for (at, band) in bands.chunks_exact(probes.len().max(1)).enumerate() {
        // A product waits for the one before it in its chain: few probes need several chains.
        let of_band = if N == 1 { band_sums::<N, 4>(band, probes) } else { band_sums::<N, 2>(band, probes) };
        for (sums, of_band) in sums.iter_mut().zip(of_band) {
            // SAFETY: the reference is to the 64 bytes that are written, and no alignment is asked for.
            unsafe { _mm512_storeu_si512(sums[at].as_mut_ptr().cast(), of_band) }
        }
    }
}

/// The sums of one band, in `CHAINS` parts a probe.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn band_sums<const N: usize, const CHAINS: usize>(band: &[Block], probes: &[[Bytes; N]]) -> [__m512i; N] {
    let mut chains = [[_mm512_setzero_si512(); CHAINS]; N];
    for (block, probes) in band.iter().zip(probes) {
        let codes = unpack(block);
        for (chains, probe) in chains.iter_mut().zip(probes) {
            for (quad, codes) in codes.iter().enumerate() {
                let bytes = _mm512_set1_epi32(i32::from_ne_bytes(probe[quad].map(i8::cast_unsigned)));
                let chain = &mut chains[quad % CHAINS];
                *chain = _mm512_dpbusd_epi32(*chain, *codes, bytes);
            }
        }
    }
    chains.map(|chains| chains[1..].iter().fold(chains[0], |all, chain| _mm512_add_epi32(all, *chain)))
}

/// The codes of a block as bytes, number by number.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn unpack(block: &Block) -> [__m512i; WIDTH / QUAD] {
    /// The bits of the first where the third is set, else those of the second.
    const CHOOSE: i32 = 0b1110_0100;
    let (first, second, third) = (run(block, 0), run(block, 1), run(block, 2));
    let own = _mm512_set1_epi8(CODE_MAX.cast_signed());
    // A shift of two bytes together takes bits from one byte to the other: only those of the three
    // places are chosen that do not.
    let lower = _mm512_ternarylogic_epi32::<CHOOSE>(_mm512_srli_epi16::<6>(first), _mm512_srli_epi16::<4>(second), _mm512_set1_epi8(0b11));
    let all = _mm512_ternarylogic_epi32::<CHOOSE>(lower, _mm512_srli_epi16::<2>(third), _mm512_set1_epi8(0b1111));
    [first, second, third, all].map(|codes| _mm512_and_si512(codes, own))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn run(block: &Block, run: usize) -> __m512i {
    let bytes: &[u8; RUN] = &block.0.as_chunks().0[run];
    // SAFETY: the reference is to the 64 bytes that are read, and blocks and their runs are aligned to as many.
    unsafe { _mm512_load_si512(bytes.as_ptr().cast()) }
}
