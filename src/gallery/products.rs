//! Sums of products of six-bit codes and bytes: where a scan spends its time.
//!
//! In: bands of sixteen rows of codes, probes of bytes. Out: for each row and probe the exact sum.
//! Drops nothing. The answers are the same on every processor.
//! Must not know: what the numbers stand for, which sums are wanted.
//!
//! A block holds sixteen numbers of each of sixteen rows in 192 bytes, three runs of 64. The lower six
//! bits of the byte `4·row + i` of run `r` are the code of the row's number `4·r + i`; the upper two
//! bits of the three runs' bytes are, from below, that of its number `12 + i`. So a few shifts and
//! masks take the codes of all rows apart at once, four neighbours of a row fill one lane of 32
//! bits, and the sums of sixteen rows grow side by side: none is ever added up across lanes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

/// Rows that lie side by side.
pub(super) const ROWS: usize = 16;
/// Numbers of a row in a block.
pub(super) const WIDTH: usize = 16;
/// The largest code.
pub(super) const CODE_MAX: u8 = 63;

/// Numbers of a lane.
const QUAD: usize = 4;
const RUN: usize = ROWS * QUAD;
const RUNS: usize = 3;

/// Sixteen numbers of each of sixteen rows.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Block([u8; RUNS * RUN]);

/// Sixteen numbers of a probe, as the lanes that they are multiplied with.
pub(super) type Bytes = [[i8; QUAD]; WIDTH / QUAD];
/// Bands that are multiplied in one call, at most.
pub(super) const BANDS: usize = 4;
/// For each row of some bands the sum of its products.
pub(super) type Sums = [[i32; ROWS]; BANDS];

impl Block {
    /// The code 0 everywhere.
    pub const EMPTY: Self = Self([0; RUNS * RUN]);

    /// Puts up to sixteen codes of a row in; what is missing is 0.
    pub fn put(&mut self, row: usize, codes: &[u8]) {
        let code = |at: usize| codes.get(at).copied().unwrap_or(0);
        for run in 0..RUNS {
            for i in 0..QUAD {
                let upper = code(RUNS * QUAD + i) >> (2 * run) & 3;
                self.0[run * RUN + row * QUAD + i] = code(run * QUAD + i) | upper << 6;
            }
        }
    }

    /// Puts the codes of row `from` of another block in as those of `row`.
    pub fn copy_row(&mut self, row: usize, other: &Self, from: usize) {
        for run in 0..RUNS {
            let (to, from) = (run * RUN + row * QUAD, run * RUN + from * QUAD);
            self.0[to..to + QUAD].copy_from_slice(&other.0[from..from + QUAD]);
        }
    }
}

/// The largest byte of a probe, up or down, that this processor multiplies well: the larger, the closer
/// the probe is met.
pub(super) fn byte_max() -> i8 {
    #[cfg(target_arch = "x86_64")]
    if !avx512::is_there() {
        return avx2::BYTE_MAX;
    }
    i8::MAX
}

/// For each of up to [`BANDS`] bands, of as many blocks as a probe has, and each of the `N` probes: the
/// sums of the products of its rows. The probes' blocks lie side by side, block after block.
pub(super) fn products<const N: usize>(bands: &[Block], probes: &[[Bytes; N]], sums: &mut [Sums; N]) {
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::is_there() {
            // SAFETY: the processor has just said that it has what the function is compiled for.
            return unsafe { avx512::products(bands, probes, sums) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has just said that it has AVX2.
            return unsafe { avx2::products(bands, probes, sums) };
        }
        plain(bands, probes, sums);
    }
    #[cfg(target_arch = "aarch64")]
    if neon::has_dot() {
        // SAFETY: the processor has just said that it has what the function is compiled for.
        unsafe { neon::products_by_dot(bands, probes, sums) }
    } else {
        neon::products(bands, probes, sums);
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    plain(bands, probes, sums);
}

#[cfg(any(test, not(target_arch = "aarch64")))]
fn plain<const N: usize>(bands: &[Block], probes: &[[Bytes; N]], sums: &mut [Sums; N]) {
    *sums = [[[0; ROWS]; BANDS]; N];
    for (at, band) in bands.chunks_exact(probes.len().max(1)).enumerate() {
        for (block, probes) in band.iter().zip(probes) {
            for row in 0..ROWS {
                let codes = codes_of(block, row);
                for (sums, probe) in sums.iter_mut().zip(probes) {
                    sums[at][row] += codes.iter().zip(probe.as_flattened()).map(|(code, byte)| code * i32::from(*byte)).sum::<i32>();
                }
            }
        }
    }
}

#[cfg(any(test, not(target_arch = "aarch64")))]
fn codes_of(block: &Block, row: usize) -> [i32; WIDTH] {
    std::array::from_fn(|at| {
        let byte = |run: usize| block.0[run * RUN + row * QUAD + at % QUAD];
        let code = if at < RUNS * QUAD { byte(at / QUAD) & CODE_MAX } else { byte(0) >> 6 | byte(1) >> 6 << 2 | byte(2) >> 6 << 4 };
        i32::from(code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    type Kernel<const N: usize> = fn(&[Block], &[[Bytes; N]], &mut [Sums; N]);

    /// Every way to multiply that this processor has, with the largest byte that it takes; what it lacks is said.
    fn kernels<const N: usize>() -> Vec<(&'static str, Kernel<N>, i8)> {
        let mut kernels: Vec<(&'static str, Kernel<N>, i8)> = vec![("plain", plain, i8::MAX), ("the fastest", products, byte_max())];
        let mut offer = |name, kernel, byte_max, is_there| {
            if is_there {
                kernels.push((name, kernel, byte_max));
            } else {
                println!("left out: products by {name}, which this processor does not have");
            }
        };
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: taken only where the processor has what the function is compiled for.
            let avx2: Kernel<N> = |bands, probes, sums| unsafe { avx2::products(bands, probes, sums) };
            // SAFETY: likewise.
            let avx512: Kernel<N> = |bands, probes, sums| unsafe { avx512::products(bands, probes, sums) };
            offer("AVX2", avx2, avx2::BYTE_MAX, std::arch::is_x86_feature_detected!("avx2"));
            offer("AVX-512 VNNI", avx512, i8::MAX, avx512::is_there());
        }
        #[cfg(target_arch = "aarch64")]
        {
            offer("NEON", neon::products, i8::MAX, true);
            // SAFETY: taken only where the processor has what the function is compiled for.
            offer("NEON with SDOT", |bands, probes, sums| unsafe { neon::products_by_dot(bands, probes, sums) }, i8::MAX, neon::has_dot());
        }
        kernels
    }

    fn every_kernel_agrees<const N: usize>(rng: &mut Rng, blocks: usize, extreme: bool) {
        let code = |rng: &mut Rng| if extreme { CODE_MAX } else { rng.u8(0..=CODE_MAX) };
        let codes: Vec<[u8; WIDTH]> = (0..BANDS * blocks * ROWS).map(|_| std::array::from_fn(|_| code(rng))).collect();
        let mut bands = vec![Block::EMPTY; BANDS * blocks];
        for (at, codes) in codes.iter().enumerate() {
            bands[at / ROWS].put(at % ROWS, codes);
        }
        for (name, kernel, max) in kernels::<N>() {
            let mut byte = || if extreme { [-max, max][rng.usize(0..2)] } else { rng.i8(-max..=max) };
            // The first probe is all of one sign, where sums are largest.
            let sign = byte();
            let mut number = |n: usize| if n == 0 { sign } else { byte() };
            let probes: Vec<[Bytes; N]> =
                (0..blocks).map(|_| std::array::from_fn(|n| std::array::from_fn(|_| std::array::from_fn(|_| number(n))))).collect();
            let mut sums = [[[0; ROWS]; BANDS]; N];
            kernel(&bands, &probes, &mut sums);
            for (n, sums) in sums.iter().enumerate() {
                for (band, sums) in sums.iter().enumerate() {
                    let of_block = |row: usize, block: usize| -> i32 {
                        let codes = codes[(band * blocks + block) * ROWS + row];
                        codes.iter().zip(probes[block][n].as_flattened()).map(|(code, byte)| i32::from(*code) * i32::from(*byte)).sum()
                    };
                    let wanted: [i32; ROWS] = std::array::from_fn(|row| (0..blocks).map(|block| of_block(row, block)).sum());
                    assert_eq!(*sums, wanted, "{name}, {blocks} blocks, band {band}, probe {n} of {N}");
                }
            }
        }
    }

    #[test]
    fn every_processor_gives_the_exact_sums() {
        println!("seed 7");
        let mut rng = Rng::with_seed(7);
        for blocks in [1, 2, 3, 8, 32, 256] {
            for extreme in [false, true] {
                every_kernel_agrees::<1>(&mut rng, blocks, extreme);
                every_kernel_agrees::<4>(&mut rng, blocks, extreme);
                every_kernel_agrees::<8>(&mut rng, blocks, extreme);
            }
        }
    }

    #[test]
    fn a_row_that_is_put_or_copied_leaves_its_neighbours_alone() {
        println!("seed 8");
        let mut rng = Rng::with_seed(8);
        let rows: [[u8; WIDTH]; ROWS] = std::array::from_fn(|_| std::array::from_fn(|_| rng.u8(0..=CODE_MAX)));
        let mut block = Block::EMPTY;
        for (row, codes) in rows.iter().enumerate().rev() {
            block.put(row, codes);
        }
        let mut copy = block.clone();
        copy.copy_row(3, &block, 11);
        copy.put(4, &rows[4][..5]);
        for (row, codes) in rows.iter().enumerate() {
            assert_eq!(codes_of(&block, row), codes.map(i32::from));
            let mut wanted = if row == 3 { rows[11] } else { *codes };
            wanted[if row == 4 { 5 } else { WIDTH }..].fill(0);
            assert_eq!(codes_of(&copy, row), wanted.map(i32::from), "row {row}");
        }
    }
}
