//! Sums of products of six-bit codes and bytes: where a scan spends its time.
//!
//! In: rows of codes, probes of bytes. Out: for each row and probe the exact sum.
//! Drops nothing. The answers are the same on every processor.
//! Must not know: what the numbers stand for, which sums are wanted.
//!
//! A block of 64 codes is 48 bytes. Its first 32 hold the upper four bits of the codes `i` (below)
//! and `i + 32` (above), its last 16 the lower two bits of the codes `i`, `i + 16`, `i + 32` and
//! `i + 48`, from below: so a few shifts and masks take 32 codes apart at once.

/// Codes of a block.
pub(super) const BLOCK: usize = 64;
/// The largest code.
pub(super) const CODE_MAX: u8 = 63;
const UPPER: usize = BLOCK / 2;
const LOWER: usize = BLOCK / 4;

/// 64 codes.
pub(super) type Codes = [u8; UPPER + LOWER];
/// 64 numbers of a probe, from -127 to 127: two products of each lane then fit in 16 bits,
/// 2 · 2 · 63 · 127 being 32,004.
pub(super) type Bytes = [i8; BLOCK];

/// Packs up to 64 codes; what is missing is 0.
pub(super) fn pack(codes: &[u8]) -> Codes {
    let mut packed = [0; UPPER + LOWER];
    for (i, code) in codes.iter().take(BLOCK).enumerate() {
        packed[i % UPPER] |= code >> 2 << (i / UPPER * 4);
        packed[UPPER + i % LOWER] |= (code & 3) << (i / LOWER * 2);
    }
    packed
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
            let code = |i: usize| (packed[i % UPPER] >> (i / UPPER * 4) & 15) << 2 | packed[UPPER + i % LOWER] >> (i / LOWER * 2) & 3;
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
        __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_prefetch, _mm_shuffle_epi32, _mm256_add_epi16,
        _mm256_add_epi32, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
        _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_or_si256, _mm256_set_epi32, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_srlv_epi32,
    };

    use super::{BLOCK, Bytes, Codes, UPPER};

    /// How far ahead of the scan memory is asked for, in bytes: some hundred nanoseconds of it.
    const AHEAD: usize = 2_048;

    /// See [`super::products`].
    #[target_feature(enable = "avx2")]
    pub fn products<const N: usize>(rows: &[Codes], probes: &[[Bytes; N]], sums: &mut [[i32; N]]) {
        for (row, sums) in rows.chunks_exact(probes.len().max(1)).zip(sums) {
            let mut lanes = [_mm256_setzero_si256(); N];
            for (packed, probes) in row.iter().zip(probes) {
                prefetch(packed.as_ptr().wrapping_add(AHEAD));
                let codes = unpack(packed);
                for (lanes, probe) in lanes.iter_mut().zip(probes) {
                    *lanes = _mm256_add_epi32(*lanes, product(codes, probe));
                }
            }
            for (sum, lanes) in sums.iter_mut().zip(lanes) {
                *sum = sum_of(lanes);
            }
        }
    }

    /// The codes 0 to 31 and 32 to 63 as bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn unpack(packed: &Codes) -> [__m256i; 2] {
        let (upper_bits, lower_bits) = (_mm256_set1_epi8(0b11_1100), _mm256_set1_epi8(0b11));
        let (upper, lower) = load(packed);
        // The lower bits are there twice: in each copy other ones are shifted down.
        let first = _mm256_srlv_epi32(lower, _mm256_set_epi32(2, 2, 2, 2, 0, 0, 0, 0));
        let second = _mm256_srlv_epi32(lower, _mm256_set_epi32(6, 6, 6, 6, 4, 4, 4, 4));
        [
            _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi16::<2>(upper), upper_bits), _mm256_and_si256(first, lower_bits)),
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16::<2>(upper), upper_bits), _mm256_and_si256(second, lower_bits)),
        ]
    }

    /// The sum of the products of a block, in eight parts.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn product([first, second]: [__m256i; 2], probe: &Bytes) -> __m256i {
        let start = probe.as_ptr();
        // SAFETY: the reference is to 64 bytes; 32 are read from its beginning and 32 from its
        // middle, and no alignment is asked for.
        let [of_first, of_second] =
            unsafe { [_mm256_loadu_si256(start.cast()), _mm256_loadu_si256(start.add(BLOCK / 2).cast())] };
        let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(first, of_first), _mm256_maddubs_epi16(second, of_second));
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn sum_of(lanes: __m256i) -> i32 {
        let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two)))
    }

    /// The upper bits as they lie, and the lower bits twice.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(packed: &Codes) -> (__m256i, __m256i) {
        let start = packed.as_ptr();
        // SAFETY: the reference is to 48 bytes; 32 are read from its beginning and 16 from behind
        // them, and no alignment is asked for.
        unsafe { (_mm256_loadu_si256(start.cast()), _mm256_broadcastsi128_si256(_mm_loadu_si128(start.add(UPPER).cast()))) }
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
                let byte = |rng: &mut Rng| if extreme { [-127, 127][rng.usize(0..2)] } else { rng.i8(-127..=127) };
                let rows: Vec<Codes> = (0..blocks * 7).map(|_| pack(&std::array::from_fn::<_, BLOCK, _>(|_| code(&mut rng)))).collect();
                let sign = byte(&mut rng);
                let probes: Vec<[Bytes; 8]> =
                    (0..blocks).map(|_| std::array::from_fn(|n| std::array::from_fn(|_| if n == 0 { sign } else { byte(&mut rng) }))).collect();
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
            let probe: Bytes = std::array::from_fn(|i| i8::try_from(i).expect("64 fit"));
            let mut sums = [[0]];
            products(&[pack(&codes)], &[[probe]], &mut sums);
            assert_eq!(sums, [[45 * i32::try_from(at).expect("64 fit")]]);
        }
    }
}
