//! Loops over the pixels of pictures in the host's memory: what `kernels.cu` is on a device. And [`simd`], by which they, and
//! the gallery's rows, are compiled for wide vectors.
//!
//! In: [`picture::Picture`]s, tables, memory to fill. Out: the same memory, filled.
//! Drops: what each loop says that it drops.
//! Must not know: cameras, models, people; anything that is not numbers in memory.
//!
//! A package of its own, so that it is compiled with optimisation where the rest is not: unoptimised, letterboxing takes four
//! fifths of the time of looking at a picture.

pub mod colour;
pub mod crop;
pub mod letterbox;
pub mod picture;
pub mod rgb;
pub mod simd;
pub mod taps;
pub mod units;
