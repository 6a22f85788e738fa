//! Free ports on loopback, for daemons that are told their ports in a file.
//!
//! Between the choice and the daemon's bind nobody else must take the port. So none is chosen from
//! the range that the kernel hands out to clients, and each is reserved, for as long as this process
//! lives, against others that choose here: a reservation is an abstract Unix socket with the port in
//! its name, which the kernel lets exist once and drops with its owner.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where ports of daemons are looked for: below those of RTP.
const DAEMONS: std::ops::Range<u16> = 4_000..9_998;
/// Where ranges of RTP ports are looked for: below the ephemeral ones.
const RTP: std::ops::Range<u16> = 10_000..32_000;

static NEXT_DAEMON: AtomicU16 = AtomicU16::new(0);
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A free UDP port.
///
/// # Errors
/// If none is left.
pub fn udp() -> std::io::Result<SocketAddr> {
    reserve(|address| UdpSocket::bind(address).is_ok())
}

/// A free TCP port.
///
/// # Errors
/// If none is left.
pub fn tcp() -> std::io::Result<SocketAddr> {
    reserve(|address| TcpListener::bind(address).is_ok())
}

/// The next port that nobody has reserved and that can be bound.
fn reserve(is_free: impl Fn(SocketAddr) -> bool) -> std::io::Result<SocketAddr> {
    let size = DAEMONS.end - DAEMONS.start;
    // Processes that start together do not look at the same ports.
    let start = (std::process::id() as u16).wrapping_mul(61) % size;
    for _ in 0..size {
        let step = NEXT_DAEMON.fetch_add(1, Ordering::Relaxed) % size;
        let port = DAEMONS.start + (start + step) % size;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let name = UnixAddr::from_abstract_name(format!("tandem-port-{port}"))?;
        let Ok(reservation) = UnixListener::bind_addr(&name) else { continue };
        if is_free(address) {
            RESERVED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(reservation);
            return Ok(address);
        }
    }
    Err(Error::new(ErrorKind::AddrNotAvailable, format!("no port is free in {DAEMONS:?}")))
}

/// A range of `pairs` RTP port pairs, another one for each call of this process and, by its id,
/// likely another one for each process. Ranges of others, a bench's for example, are passed over if
/// they can be noticed; the daemon skips single ports in use.
pub fn rtp_range(pairs: u16) -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let (first, last) = (RTP.start, RTP.end - 1);
    let size = pairs.saturating_mul(2).clamp(2, last - first);
    let slots = (last - first) / size;
    let start = (std::process::id() as u16).wrapping_mul(37) % slots.max(1);
    let next = || {
        let slot = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % slots.max(1);
        first + slot * size
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_one_that_is_in_use() {
        let mut seen: Vec<_> = (0..50).map(|_| udp().unwrap()).collect();
        seen.extend((0..50).map(|_| tcp().unwrap()));
        let taken = UdpSocket::bind(udp().unwrap()).unwrap();
        seen.push(taken.local_addr().unwrap());
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
        assert!(seen.iter().all(|address| DAEMONS.contains(&address.port())));
    }
}
