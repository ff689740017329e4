//! Sums of products of six-bit codes and bytes: where a scan spends its time.
//!
//! In: rows of codes, probes of bytes. Out: for each row and probe the exact sum.
//! Drops nothing. The answers are the same on every processor.
//! Must not know: what the numbers stand for, which sums are wanted.
//!
//! A block of 128 codes is 96 bytes, three runs of 32. The lower six bits of the byte `i` of each run
//! are the codes `i`, `i + 32` and `i + 64`; the upper two bits of the three are the code `i + 96`,
//! from below: so a few shifts and masks take 32 codes apart at once.

/// Codes of a block.
pub(super) const BLOCK: usize = 128;
/// The largest code.
pub(super) const CODE_MAX: u8 = 63;
/// The largest byte of a probe, up or down: eight products then fit in 16 bits, 8 · 63 · 65 being 32,760.
pub(super) const BYTE_MAX: i8 = 65;
const RUN: usize = BLOCK / 4;

/// 128 codes.
pub(super) type Codes = [u8; 3 * RUN];
/// 128 numbers of a probe.
pub(super) type Bytes = [i8; BLOCK];

/// Packs up to 128 codes; what is missing is 0.
pub(super) fn pack(codes: &[u8]) -> Codes {
    let at = |i: usize| codes.get(i).copied().unwrap_or(0);
    std::array::from_fn(|i| at(i) | (at(i % RUN + 3 * RUN) >> (2 * (i / RUN)) & 3) << 6)
}

/// For each row, of as many blocks as a probe has, and each of the `N` probes: the sum of their
/// products. The probes' blocks lie side by side, block after block.
pub(super) fn products<const N: usize>(rows: &[Codes], probes: &[[Bytes; N]], sums: &mut [[i32; N]]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it has AVX2.
        return unsafe { avx2::products(rows, probes, sums) };
    }
    plain(rows, probes, sums);
}

fn plain<const N: usize>(rows: &[Codes], probes: &[[Bytes; N]], sums: &mut [[i32; N]]) {
    for (row, sums) in rows.chunks_exact(probes.len().max(1)).zip(sums) {
        *sums = [0; N];
        for (packed, probes) in row.iter().zip(probes) {
            let upper = |i: usize| packed[i] >> 6 | packed[i + RUN] >> 6 << 2 | packed[i + 2 * RUN] >> 6 << 4;
            let code = |i: usize| if i < 3 * RUN { packed[i] & CODE_MAX } else { upper(i - 3 * RUN) };
            let codes: [i32; BLOCK] = std::array::from_fn(|i| i32::from(code(i)));
            for (sum, probe) in sums.iter_mut().zip(probes) {
                *sum += codes.iter().zip(probe).map(|(code, byte)| code * i32::from(*byte)).sum::<i32>();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_cvtsi128_si32, _mm_extract_epi32, _mm_prefetch, _mm256_add_epi16,
        _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_srli_epi16,
        _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    };

    use super::{Bytes, Codes, RUN};

    /// How far ahead of the scan memory is asked for, in bytes: some hundred nanoseconds of it.
    const AHEAD: usize = 2_048;
    /// Sums that are added up together.
    const SUMS: usize = 4;

    /// See [`super::products`].
    #[target_feature(enable = "avx2")]
    pub fn products<const N: usize>(rows: &[Codes], probes: &[[Bytes; N]], sums: &mut [[i32; N]]) {
        for (row, sums) in rows.chunks_exact(probes.len().max(1)).zip(sums) {
            let mut lanes = [_mm256_setzero_si256(); N];
            for (packed, probes) in row.iter().zip(probes) {
                prefetch(packed.as_ptr().wrapping_add(AHEAD));
                prefetch(packed.as_ptr().wrapping_add(AHEAD + 64));
                let codes = unpack(packed);
                for (lanes, probe) in lanes.iter_mut().zip(probes) {
                    *lanes = _mm256_add_epi32(*lanes, product(codes, probe));
                }
            }
            for (sums, lanes) in sums.chunks_mut(SUMS).zip(lanes.chunks(SUMS)) {
                let lane = |n: usize| lanes.get(n).copied().unwrap_or(_mm256_setzero_si256());
                let added = sums_of([lane(0), lane(1), lane(2), lane(3)]);
                for (sum, added) in sums.iter_mut().zip(added) {
                    *sum = added;
                }
            }
        }
    }

    /// The codes of a block as bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn unpack(packed: &Codes) -> [__m256i; 4] {
        let mask = |bits: u8| _mm256_set1_epi8(bits.cast_signed());
        let (runs, _) = packed.as_chunks::<RUN>();
        let (first, second, third) = (load(&runs[0]), load(&runs[1]), load(&runs[2]));
        let low = _mm256_and_si256(_mm256_srli_epi16::<6>(first), mask(0b11));
        let middle = _mm256_and_si256(_mm256_srli_epi16::<4>(second), mask(0b1100));
        let high = _mm256_and_si256(_mm256_srli_epi16::<2>(third), mask(0b11_0000));
        let own = mask(0b11_1111);
        [
            _mm256_and_si256(first, own),
            _mm256_and_si256(second, own),
            _mm256_and_si256(third, own),
            _mm256_or_si256(_mm256_or_si256(low, middle), high),
        ]
    }

    /// The sum of the products of a block, in eight parts.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn product(codes: [__m256i; 4], probe: &Bytes) -> __m256i {
        let (runs, _) = probe.as_chunks::<RUN>();
        let pairs = |n: usize| _mm256_maddubs_epi16(codes[n], load_signed(&runs[n]));
        let sums = _mm256_add_epi16(_mm256_add_epi16(pairs(0), pairs(1)), _mm256_add_epi16(pairs(2), pairs(3)));
        _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
    }

    /// The sums of four times eight parts.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn sums_of([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
        let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        let all = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
        numbers(_mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all)))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn numbers(four: __m128i) -> [i32; 4] {
        [_mm_cvtsi128_si32(four), _mm_extract_epi32::<1>(four), _mm_extract_epi32::<2>(four), _mm_extract_epi32::<3>(four)]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(run: &[u8; RUN]) -> __m256i {
        // SAFETY: the reference is to the 32 bytes that are read, and no alignment is asked for.
        unsafe { _mm256_loadu_si256(run.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load_signed(run: &[i8; RUN]) -> __m256i {
        // SAFETY: the reference is to the 32 bytes that are read, and no alignment is asked for.
        unsafe { _mm256_loadu_si256(run.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn prefetch(address: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    #[test]
    fn every_processor_gives_the_sums_of_the_plain_loop() {
        println!("seed 7");
        let mut rng = Rng::with_seed(7);
        for blocks in [1, 2, 3, 8, 9, 64] {
            for extreme in [false, true] {
                let code = |rng: &mut Rng| if extreme { CODE_MAX } else { rng.u8(0..=CODE_MAX) };
                let byte = |rng: &mut Rng| if extreme { [-BYTE_MAX, BYTE_MAX][rng.usize(0..2)] } else { rng.i8(-BYTE_MAX..=BYTE_MAX) };
                let rows: Vec<Codes> = (0..blocks * 7).map(|_| pack(&std::array::from_fn::<_, BLOCK, _>(|_| code(&mut rng)))).collect();
                let sign = byte(&mut rng);
                let probes: Vec<[Bytes; 8]> = (0..blocks)
                    .map(|_| std::array::from_fn(|n| std::array::from_fn(|_| if n == 0 { sign } else { byte(&mut rng) })))
                    .collect();
                let (mut here, mut wanted) = ([[0; 8]; 7], [[0; 8]; 7]);
                products(&rows, &probes, &mut here);
                plain(&rows, &probes, &mut wanted);
                assert_eq!(here, wanted, "{blocks} blocks");
                let alone: Vec<[Bytes; 1]> = probes.iter().map(|probes| [probes[3]]).collect();
                let mut of_one = [[0; 1]; 7];
                products(&rows, &alone, &mut of_one);
                assert!(of_one.iter().zip(wanted).all(|(one, all)| one[0] == all[3]), "{blocks} blocks");
            }
        }
    }

    #[test]
    fn a_packed_block_gives_each_code_its_own_number() {
        for at in 0..BLOCK {
            let mut codes = [0; BLOCK];
            codes[at] = 45;
            let number = |i: usize| i8::try_from(i).expect("128 fit") / 2;
            let mut sums = [[0]];
            products(&[pack(&codes)], &[[std::array::from_fn(number)]], &mut sums);
            assert_eq!(sums, [[45 * i32::from(number(at))]]);
        }
    }
}
