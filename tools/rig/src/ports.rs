//! Free ports on loopback. Between the choice and the bind somebody else may take one; the daemon
//! says so then, by name.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// A free UDP port.
///
/// # Errors
/// If none is left.
pub fn udp() -> std::io::Result<SocketAddr> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A free TCP port.
///
/// # Errors
/// If none is left.
pub fn tcp() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A range of `pairs` RTP port pairs below the ephemeral ports, another one for each call of this
/// process and, by its id, likely another one for each process. Ranges of others, a bench's for
/// example, are passed over if they can be noticed; the daemon skips single ports in use.
pub fn rtp_range(pairs: u16) -> (u16, u16) {
    const FIRST: u16 = 10_000;
    const LAST: u16 = 31_999;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let size = pairs.saturating_mul(2).clamp(2, LAST - FIRST);
    let slots = (LAST - FIRST) / size;
    let start = (std::process::id() as u16).wrapping_mul(37) % slots.max(1);
    let next = || {
        let slot = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % slots.max(1);
        FIRST + slot * size
    };
    let is_free = |first: &u16| {
        let step = usize::from((size / 8).max(1));
        (*first..*first + size)
            .step_by(step)
            .all(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
    };
    let first = std::iter::repeat_with(next).take(32).find(is_free).unwrap_or_else(next);
    (first, first + size - 1)
}
