//! Loops over the pixels of pictures in the host's memory: what `kernels.cu` is on a device.
//!
//! In: [`picture::Picture`]s, tables, memory to fill. Out: the same memory, filled.
//! Drops: what each loop says that it drops.
//! Must not know: cameras, models, people; anything that is not numbers in memory.
//!
//! A package of its own, so that it is compiled with optimisation where the rest is not: unoptimised,
//! these loops take ten times as long as inference.

pub mod colour;
pub mod crop;
pub mod letterbox;
pub mod picture;
pub mod rgb;
pub mod simd;
pub mod taps;
