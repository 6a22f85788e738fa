//! Memory that will be needed soon.

const LINE_BYTES: usize = 64;

/// Has the processor bring `bytes` bytes from `start` near. Nothing is read: any address will do,
/// and a wrong one costs no more than the attempt.
#[inline]
pub fn prefetch(start: *const u8, bytes: usize) {
    let first = start.addr() % LINE_BYTES;
    for at in (0..first + bytes).step_by(LINE_BYTES) {
        line(start.wrapping_sub(first).wrapping_add(at));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_will_do() {
        prefetch(std::ptr::null(), 1_000);
        prefetch([1_u8; 3].as_ptr(), 3);
        prefetch(std::ptr::without_provenance(usize::MAX - 1), 200);
    }
}
