//! What is sent and when: prompts, documents, arrival times. Pure functions of a seed.

mod arrival;
mod documents;
mod text;

pub use arrival::Arrivals;
pub use documents::{DocumentsShape, Step, Turn};
pub use text::{HEALTH, PROMPT, TokenRatio, prose};

/// One seed out of several numbers: each differs, the result does. SplitMix64's finalizer (Steele,
/// Lea, Flood 2014), chained.
pub fn mix<const N: usize>(numbers: [u64; N]) -> u64 {
    numbers.into_iter().fold(0, |state: u64, number| {
        let mut z = (state ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}
