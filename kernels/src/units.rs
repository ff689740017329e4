//! Brings bytes to the units of whoever computes with them.
//!
//! In: bytes, a mean, a scale. Out: `(byte - mean) * scale`, in f32.
//! Drops nothing.
//! Must not know: what the numbers mean.

/// Of a plane of bytes.
pub fn of_plane(bytes: &[u8], (mean, scale): (f32, f32), values: &mut [f32]) {
    values.iter_mut().zip(bytes).for_each(|(value, byte)| *value = (f32::from(*byte) - mean) * scale);
}

/// Of one component (0 to 2) of interleaved ones.
pub fn of_component(bytes: &[[u8; 3]], component: usize, (mean, scale): (f32, f32), values: &mut [f32]) {
    values.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = (f32::from(bytes[component]) - mean) * scale);
}
