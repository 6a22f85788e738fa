//! UDP ports for RTP and RTCP: the whole range in turn, with a draining time after use, so that a
//! late stream of an ended call cannot enter the next one.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use edge_media::command::PortKey;
use edge_uring::socket::{Pair, SocketConfig, bind_pair};

/// Pairs held by other programs that are skipped before the allocation gives up; each costs two
/// system calls of the signalling thread.
const TRIES_MAX: usize = 1_024;

/// Why a leg gets no ports.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// Every pair of the range is in use or draining.
    #[error("every port of the range is in use")]
    Exhausted,
    /// Other programs hold the pairs that are free for us.
    #[error("other programs hold {0} port pairs of the range in a row")]
    Foreign(usize),
    /// The system refuses.
    #[error("cannot bind RTP sockets: {0}")]
    Bind(#[from] std::io::Error),
}

/// The pool of port pairs of one bind address.
#[derive(Debug)]
pub struct MediaPorts {
    bind: IpAddr,
    advertise: IpAddr,
    free: VecDeque<u16>,
    draining: VecDeque<(Instant, u16)>,
    used: BTreeMap<PortKey, u16>,
    drain: Duration,
    socket: SocketConfig,
}

impl MediaPorts {
    /// All pairs from `first` (even) to `last`.
    pub fn new(bind: IpAddr, advertise: IpAddr, first: u16, last: u16, drain: Duration) -> Self {
        let free = (first..last).step_by(2).collect();
        let socket = SocketConfig::default();
        Self {
            bind,
            advertise,
            free,
            draining: VecDeque::new(),
            used: BTreeMap::new(),
            drain,
            socket,
        }
    }

    /// Binds the next pair. Returns the sockets and the advertised RTP and RTCP addresses.
    ///
    /// # Errors
    /// See [`PortsError`]; nothing is taken then.
    pub fn allocate(
        &mut self,
        now: Instant,
        key: PortKey,
    ) -> Result<(Pair, SocketAddr, SocketAddr), PortsError> {
        while self.draining.front().is_some_and(|(until, _)| *until <= now) {
            self.free.extend(self.draining.pop_front().map(|(_, port)| port));
        }
        let tries = self.free.len().clamp(1, TRIES_MAX);
        for _ in 0..tries {
            let Some(port) = self.free.pop_front() else { return Err(PortsError::Exhausted) };
            match bind_pair(self.bind, port, &self.socket) {
                Ok(pair) => {
                    self.used.insert(key, port);
                    let at = |port| SocketAddr::new(self.advertise, port);
                    return Ok((pair, at(port), at(port + 1)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    // Somebody else's: look at it again later.
                    self.free.push_back(port);
                }
                Err(error) => {
                    self.free.push_front(port);
                    return Err(error.into());
                }
            }
        }
        Err(PortsError::Foreign(tries))
    }

    /// The leg is gone; its pair may be used again after the draining time.
    pub fn release(&mut self, now: Instant, key: PortKey) {
        if let Some(port) = self.used.remove(&key) {
            self.draining.push_back((now + self.drain, port));
        }
    }

    /// Pairs in use.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// Pairs that can be had at once or after draining.
    pub fn left(&self) -> usize {
        self.free.len() + self.draining.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> PortKey {
        PortKey { index, generation: 0 }
    }

    #[test]
    fn ports_go_round_drain_and_skip_foreign_ones() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let start = Instant::now();
        let mut ports = MediaPorts::new(ip, ip, 38_000, 38_007, Duration::from_secs(3));
        // Somebody else holds one port of the second pair.
        let foreign = std::net::UdpSocket::bind((ip, 38_003));
        let (pair, rtp, rtcp) = ports.allocate(start, key(1)).unwrap();
        assert_eq!((rtp.port() + 1, rtp.port() % 2), (rtcp.port(), 0));
        let (_other, second, _) = ports.allocate(start, key(2)).unwrap();
        if foreign.is_ok() {
            assert_ne!(second.port(), 38_002);
        }
        let before = ports.left();
        drop(pair);
        ports.release(start, key(1));
        assert_eq!(ports.left(), before + 1);
        assert_eq!(ports.draining.len(), 1, "not at once");
        let later = start + Duration::from_secs(4);
        let mut seen = Vec::new();
        while let Ok((pair, rtp, _)) = ports.allocate(later, key(10 + seen.len() as u32)) {
            seen.push((pair, rtp.port()));
        }
        assert!(seen.iter().any(|(_, port)| *port == rtp.port()), "free again after draining");
        let last = ports.allocate(later, key(99)).unwrap_err();
        assert!(matches!(last, PortsError::Exhausted | PortsError::Foreign(_)), "{last}");
    }
}
