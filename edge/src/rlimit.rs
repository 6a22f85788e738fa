//! The limit of open files.

use anyhow::Context as _;

/// Raises the soft limit towards `needed` and returns the soft and hard limit in force.
///
/// # Errors
/// If the limits cannot be read.
pub fn raise_descriptors(needed: u64) -> anyhow::Result<(u64, u64)> {
    let (soft, hard) = edge_uring::descriptor_limits().context("limit of open files")?;
    if soft >= needed || soft >= hard {
        return Ok((soft, hard));
    }
    let wanted = needed.min(hard);
    edge_uring::set_descriptor_limit(wanted, hard).context("limit of open files")?;
    Ok((wanted, hard))
}
