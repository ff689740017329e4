//! Sums of products of half-bytes and bytes: where a scan spends its time.
//!
//! In: rows of half-bytes, probes of bytes. Out: for each row and probe the exact sum.
//! Drops nothing. The answers are the same on every processor.
//! Must not know: what the numbers stand for, which sums are wanted.
//!
//! A block of 64 half-bytes is 32 bytes: the byte at `i` holds the half-byte `i` below and the
//! half-byte `i + 32` above, so that a mask and a shift take 32 of them apart at once.

/// Half-bytes of a block.
pub(super) const BLOCK: usize = 64;
/// Blocks whose products fit in sums of 16 bits: 15 · 127 · 2 products · 8 half-blocks is 30,480.
#[cfg(target_arch = "x86_64")]
const BLOCKS_A_SUM: usize = 4;

/// 64 half-bytes, from 0 to 15.
pub(super) type Halves = [u8; BLOCK / 2];
/// 64 numbers of a probe, from -127 to 127.
pub(super) type Bytes = [i8; BLOCK];

/// Packs up to 64 half-bytes; what is missing is 0.
pub(super) fn pack(halves: &[u8]) -> Halves {
    let at = |i: usize| halves.get(i).copied().unwrap_or(0);
    std::array::from_fn(|i| at(i) | at(i + BLOCK / 2) << 4)
}

/// For each row, of as many blocks as a probe has, and each of the `N` probes: the sum of their
/// products. The probes' blocks lie side by side, block after block.
pub(super) fn products<const N: usize>(rows: &[Halves], probes: &[[Bytes; N]], sums: &mut [[i32; N]]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it has AVX2.
        return unsafe { avx2::products(rows, probes, sums) };
    }
    plain(rows, probes, sums);
}

/// The sum of products of one row and one probe.
pub(super) fn product(row: &[Halves], probe: &[[Bytes; 1]]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it has AVX2.
        return unsafe { avx2::product(row, probe) };
    }
    let mut sum = [[0]];
    plain(row, probe, &mut sum);
    sum[0][0]
}

fn plain<const N: usize>(rows: &[Halves], probes: &[[Bytes; N]], sums: &mut [[i32; N]]) {
    for (row, sums) in rows.chunks_exact(probes.len().max(1)).zip(sums) {
        *sums = [0; N];
        for (halves, probes) in row.iter().zip(probes) {
            for (sum, probe) in sums.iter_mut().zip(probes) {
                let (low, high) = probe.split_at(BLOCK / 2);
                for ((both, low), high) in halves.iter().zip(low).zip(high) {
                    *sum += i32::from(both & 15) * i32::from(*low) + i32::from(both >> 4) * i32::from(*high);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_cvtsi128_si32, _mm_prefetch, _mm_shuffle_epi32, _mm256_add_epi16, _mm256_add_epi32,
        _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
        _mm256_set1_epi8, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_srli_epi16,
    };

    use super::{BLOCK, BLOCKS_A_SUM, Bytes, Halves};

    /// How far ahead of the scan memory is asked for, in bytes: some hundred nanoseconds of it.
    const AHEAD: usize = 2_048;

    /// See [`super::products`].
    #[target_feature(enable = "avx2")]
    pub fn products<const N: usize>(rows: &[Halves], probes: &[[Bytes; N]], sums: &mut [[i32; N]]) {
        for (row, sums) in rows.chunks_exact(probes.len().max(1)).zip(sums) {
            for (sum, lanes) in sums.iter_mut().zip(row_products(row, probes)) {
                *sum = sum_of_lanes(lanes);
            }
        }
    }

    /// See [`super::product`].
    #[target_feature(enable = "avx2")]
    pub fn product(row: &[Halves], probe: &[[Bytes; 1]]) -> i32 {
        let [lanes] = row_products::<1>(row, probe);
        sum_of_lanes(lanes)
    }

    /// The sums of one row, in eight parts each.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn row_products<const N: usize>(row: &[Halves], probes: &[[Bytes; N]]) -> [__m256i; N] {
        let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); N];
        for (row, probes) in row.chunks(BLOCKS_A_SUM).zip(probes.chunks(BLOCKS_A_SUM)) {
            let mut short_sums = [_mm256_setzero_si256(); N];
            for (halves, probes) in row.iter().zip(probes) {
                prefetch(halves.as_ptr().wrapping_add(AHEAD));
                let both = load(halves);
                let (low, high) = (_mm256_and_si256(both, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask));
                for (sum, probe) in short_sums.iter_mut().zip(probes) {
                    let [of_low, of_high] = halves_of(probe);
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(low, of_low));
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(high, of_high));
                }
            }
            for (sum, short_sum) in sums.iter_mut().zip(short_sums) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(short_sum, ones));
            }
        }
        sums
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn sum_of_lanes(lanes: __m256i) -> i32 {
        let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two)))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(halves: &Halves) -> __m256i {
        // SAFETY: the reference is to the 32 bytes that are read, and no alignment is asked for.
        unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn halves_of(probe: &Bytes) -> [__m256i; 2] {
        let first = probe.as_ptr();
        // SAFETY: the reference is to 64 bytes; 32 are read from its beginning and 32 from its
        // middle, and no alignment is asked for.
        unsafe { [_mm256_loadu_si256(first.cast()), _mm256_loadu_si256(first.add(BLOCK / 2).cast())] }
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
        for blocks in [1, 2, 3, 4, 5, 8, 9, 64] {
            for extreme in [false, true] {
                let half = |rng: &mut Rng| if extreme { 15 } else { rng.u8(0..16) };
                let byte = |rng: &mut Rng| if extreme { [-127, 127][rng.usize(0..2)] } else { rng.i8(-127..=127) };
                let rows: Vec<Halves> = (0..blocks * 7).map(|_| pack(&std::array::from_fn::<_, BLOCK, _>(|_| half(&mut rng)))).collect();
                let sign = byte(&mut rng);
                let probes: Vec<[Bytes; 8]> =
                    (0..blocks).map(|_| std::array::from_fn(|n| [if n == 0 { sign } else { byte(&mut rng) }; BLOCK])).collect();
                let (mut here, mut wanted) = ([[0; 8]; 7], [[0; 8]; 7]);
                products(&rows, &probes, &mut here);
                plain(&rows, &probes, &mut wanted);
                assert_eq!(here, wanted, "{blocks} blocks");
                let alone: Vec<[Bytes; 1]> = probes.iter().map(|probes| [probes[3]]).collect();
                let mut of_one = [[0; 1]; 7];
                products(&rows, &alone, &mut of_one);
                let by_row: Vec<i32> = rows.chunks(blocks).map(|row| product(row, &alone)).collect();
                assert!(of_one.iter().zip(wanted).all(|(one, all)| one[0] == all[3]), "{blocks} blocks");
                assert!(by_row.iter().zip(wanted).all(|(one, all)| *one == all[3]), "{blocks} blocks");
            }
        }
    }

    #[test]
    fn a_packed_block_gives_each_half_byte_its_own_number() {
        for at in 0..BLOCK {
            let mut halves = [0; BLOCK];
            halves[at] = 9;
            let probe: Bytes = std::array::from_fn(|i| i8::try_from(i).expect("64 fit"));
            let mut sums = [[0]];
            products(&[pack(&halves)], &[[probe]], &mut sums);
            assert_eq!(sums, [[9 * i32::try_from(at).expect("64 fit")]]);
        }
    }
}
