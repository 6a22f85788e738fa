//! The only seed of randomness. Cores get a seeded generator as an argument.

use rand::rngs::{StdRng, SysRng};
use rand::{Rng as _, SeedableRng as _};

/// A generator seeded by the operating system.
///
/// # Errors
/// If the operating system has no random numbers.
pub fn seeded_rng() -> anyhow::Result<StdRng> {
    StdRng::try_from_rng(&mut SysRng)
        .map_err(|error| anyhow::anyhow!("no random seed from the operating system: {error}"))
}

/// A random number that tells this process from any other.
///
/// # Errors
/// As [`seeded_rng`].
pub fn boot_id() -> anyhow::Result<u64> {
    Ok(seeded_rng()?.next_u64())
}
