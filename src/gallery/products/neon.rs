//! Products by NEON, which every 64-bit ARM processor has; four of a lane in one instruction (SDOT) where there is that, too:
//! most since ARMv8.2.
//!
//! In, out: see [`products`](super::products()). A quarter of a run of a block is one register, a lane one row.
//! Must not know: other processors.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, uint8x16_t, vaddq_s32, vandq_u8, vdupq_n_s32, vdupq_n_u8, vget_low_s8, vld1q_u8, vmlal_high_s8, vmlal_s8,
    vmull_high_s8, vmull_s8, vpadalq_s16, vpaddq_s32, vreinterpretq_s8_s32, vreinterpretq_s8_u8, vshrq_n_u8, vsliq_n_u8, vst1q_s32,
};
use std::arch::asm;

use super::{Block, Bytes, CODE_MAX, QUAD, ROWS, RUN, Sums, WIDTH};

/// Rows of a register.
const QUARTER: usize = ROWS / 4;
const QUADS: usize = WIDTH / QUAD;

/// Whether this processor has what [`products_by_dot`] is compiled for.
pub fn has_dot() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// See [`super::products`].
pub fn products<const N: usize>(bands: &[Block], probes: &[[Bytes; N]], sums: &mut [Sums; N]) {
    let multiply = |lanes: &mut [int32x4_t; 2], codes: [int8x16_t; QUADS], bytes: [int8x16_t; QUADS]| {
        for half in [0, 2] {
            // Two products fit in 16 bits, 2 · 63 · 127 being 16,002.
            // SAFETY: every processor of this architecture has NEON, and only registers are worked on.
            unsafe {
                let low = vmull_s8(vget_low_s8(codes[half]), vget_low_s8(bytes[half]));
                let low = vmlal_s8(low, vget_low_s8(codes[half + 1]), vget_low_s8(bytes[half + 1]));
                let high = vmull_high_s8(codes[half], bytes[half]);
                let high = vmlal_high_s8(high, codes[half + 1], bytes[half + 1]);
                lanes[0] = vpadalq_s16(lanes[0], low);
                lanes[1] = vpadalq_s16(lanes[1], high);
            }
        }
    };
    // SAFETY: likewise.
    let finish = |lanes: [int32x4_t; 2]| unsafe { vpaddq_s32(lanes[0], lanes[1]) };
    each_band(bands, probes, sums, (multiply, finish));
}

/// See [`super::products`].
#[target_feature(enable = "neon,dotprod")]
pub fn products_by_dot<const N: usize>(bands: &[Block], probes: &[[Bytes; N]], sums: &mut [Sums; N]) {
    // A product waits for the one before it in its chain: one probe needs several chains.
    if N == 1 { by_dot::<N, 4>(bands, probes, sums) } else { by_dot::<N, 2>(bands, probes, sums) }
}

#[target_feature(enable = "neon,dotprod")]
#[inline]
fn by_dot<const N: usize, const CHAINS: usize>(bands: &[Block], probes: &[[Bytes; N]], sums: &mut [Sums; N]) {
    let multiply = |lanes: &mut [int32x4_t; CHAINS], codes: [int8x16_t; QUADS], bytes: [int8x16_t; QUADS]| {
        for quad in 0..QUADS {
            let chain = &mut lanes[quad % CHAINS];
            *chain = dot(*chain, codes[quad], bytes[quad]);
        }
    };
    let finish = |lanes: [int32x4_t; CHAINS]| lanes[1..].iter().fold(lanes[0], |all, chain| vaddq_s32(all, *chain));
    each_band(bands, probes, sums, (multiply, finish));
}

/// Adds to each lane its four products.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot(mut lanes: int32x4_t, codes: int8x16_t, bytes: int8x16_t) -> int32x4_t {
    // The compiler's own name for the instruction is not stable yet.
    // SAFETY: the instruction reads and writes these registers and nothing else, and the processor has it.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) lanes, in(vreg) codes, in(vreg) bytes, options(pure, nomem, nostack, preserves_flags));
    }
    lanes
}

/// The sums of each band: `multiply` adds the products of four rows of a block to the probe's lanes, `finish` makes one sum a row of them.
#[inline(always)]
fn each_band<const N: usize, const LANES: usize>(
    bands: &[Block],
    probes: &[[Bytes; N]],
    sums: &mut [Sums; N],
    (multiply, finish): (
        impl Fn(&mut [int32x4_t; LANES], [int8x16_t; QUADS], [int8x16_t; QUADS]),
        impl Fn([int32x4_t; LANES]) -> int32x4_t,
    ),
) {
    for (at, band) in bands.chunks_exact(probes.len().max(1)).enumerate() {
        for quarter in 0..ROWS / QUARTER {
            // SAFETY: every processor of this architecture has NEON.
            let mut lanes = [[unsafe { vdupq_n_s32(0) }; LANES]; N];
            for (block, probes) in band.iter().zip(probes) {
                let codes = unpack(block, quarter);
                for (lanes, probe) in lanes.iter_mut().zip(probes) {
                    multiply(lanes, codes, repeated(probe));
                }
            }
            for (sums, lanes) in sums.iter_mut().zip(lanes) {
                let sums: &mut [i32; QUARTER] = &mut sums[at].as_chunks_mut().0[quarter];
                // SAFETY: the reference is to the 16 bytes that are written, and no alignment is asked for.
                unsafe { vst1q_s32(sums.as_mut_ptr(), finish(lanes)) }
            }
        }
    }
}

/// The codes of a quarter of a block's rows as bytes, number by number.
#[inline(always)]
fn unpack(block: &Block, quarter: usize) -> [int8x16_t; QUADS] {
    let [first, second, third] = std::array::from_fn(|run| quarter_run(block, run * (ROWS / QUARTER) + quarter));
    // SAFETY: every processor of this architecture has NEON, and only registers are worked on.
    unsafe {
        let all = vsliq_n_u8::<2>(vshrq_n_u8::<6>(first), vshrq_n_u8::<6>(second));
        let all = vsliq_n_u8::<4>(all, vshrq_n_u8::<6>(third));
        let own = vdupq_n_u8(CODE_MAX);
        [vandq_u8(first, own), vandq_u8(second, own), vandq_u8(third, own), all].map(|codes| vreinterpretq_s8_u8(codes))
    }
}

/// Each four bytes of a probe, for every row.
#[inline(always)]
fn repeated(probe: &Bytes) -> [int8x16_t; QUADS] {
    // SAFETY: every processor of this architecture has NEON, and only registers are worked on.
    probe.map(|quad| unsafe { vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(quad.map(i8::cast_unsigned)))) })
}

#[inline(always)]
fn quarter_run(block: &Block, at: usize) -> uint8x16_t {
    let bytes: &[u8; RUN / 4] = &block.0.as_chunks().0[at];
    // SAFETY: the reference is to the 16 bytes that are read, and no alignment is asked for.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}
