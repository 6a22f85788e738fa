//! The network: SIP, RTP and trunk packets over lines that lose, double, delay and reorder.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use link_proto::ChannelId;
use tandem_wan::{Direction, LinkConfig, Path, PathConfig};

/// A UDP datagram of SIP or RTP.
#[derive(Debug, Clone)]
pub struct Datagram {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// Content.
    pub bytes: Bytes,
}

/// A packet in the trunk between two edges.
#[derive(Debug, Clone)]
pub struct TrunkPacket {
    /// Sending edge.
    pub from: usize,
    /// Receiving edge.
    pub to: usize,
    /// Channel.
    pub channel: ChannelId,
    /// RTP.
    pub bytes: Bytes,
}

/// What has arrived.
#[derive(Debug)]
pub enum Arrival {
    /// SIP or RTP.
    Datagram(Datagram),
    /// Trunk.
    Trunk(TrunkPacket),
}

/// Lines of one region: between its phones and its edge.
struct Region {
    sip: Path<Datagram>,
    rtp: Path<Datagram>,
}

/// All lines.
pub struct Net {
    regions: Vec<Region>,
    trunk: Path<TrunkPacket>,
}

/// Address of the edge of a region; the SIP port is 5060.
pub fn edge_ip(region: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, region as u8 + 1, 0, 1))
}

/// Address of the phones of a region.
pub fn phone_ip(region: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, region as u8 + 1, 1, 1))
}

/// Region of an address, by its second byte.
pub fn region_of(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => usize::from(ip.octets()[1].saturating_sub(1)),
        IpAddr::V6(_) => 0,
    }
}

/// Port of SIP everywhere.
pub const SIP_PORT: u16 = 5060;

impl Net {
    /// Lines for that many regions.
    pub fn new(
        regions: usize,
        sip: LinkConfig,
        rtp: LinkConfig,
        trunk: LinkConfig,
        seed: u64,
    ) -> Self {
        let path = |config, n: u64| Path::new(PathConfig::symmetric(config), seed.wrapping_add(n));
        let line = |n: u64| Region { sip: path(sip, n * 2), rtp: path(rtp, n * 2 + 1) };
        let regions = (0..regions as u64).map(line).collect();
        Self { regions, trunk: Path::new(PathConfig::symmetric(trunk), seed ^ 0x7472_756e) }
    }

    /// From now on.
    pub fn configure(&mut self, sip: LinkConfig, rtp: LinkConfig, trunk: LinkConfig) {
        for region in &mut self.regions {
            region.sip.set_config(PathConfig::symmetric(sip));
            region.rtp.set_config(PathConfig::symmetric(rtp));
        }
        self.trunk.set_config(PathConfig::symmetric(trunk));
    }

    /// Sends a datagram.
    pub fn send(&mut self, now: Instant, datagram: Datagram) {
        let from_phone = datagram.from.ip() == phone_ip(region_of(datagram.from));
        let region = region_of(if from_phone { datagram.from } else { datagram.to });
        let Some(region) = self.regions.get_mut(region) else { return };
        let direction = if from_phone { Direction::There } else { Direction::Back };
        let line = if datagram.to.port() == SIP_PORT { &mut region.sip } else { &mut region.rtp };
        let size = datagram.bytes.len();
        line.push(now, direction, size, datagram);
    }

    /// Sends a trunk packet.
    pub fn send_trunk(&mut self, now: Instant, packet: TrunkPacket) {
        let direction = if packet.from < packet.to { Direction::There } else { Direction::Back };
        let size = packet.bytes.len();
        self.trunk.push(now, direction, size, packet);
    }

    /// When something arrives next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let regions =
            self.regions.iter().flat_map(|r| [r.sip.poll_timeout(), r.rtp.poll_timeout()]);
        regions.chain([self.trunk.poll_timeout()]).flatten().min()
    }

    /// What has arrived at `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Arrival> {
        for region in &mut self.regions {
            for line in [&mut region.sip, &mut region.rtp] {
                if let Some((_, delivery)) = line.poll(now) {
                    return Some(Arrival::Datagram(delivery.item));
                }
            }
        }
        self.trunk.poll(now).map(|(_, delivery)| Arrival::Trunk(delivery.item))
    }

    /// Datagrams that were lost, doubled and held back so far.
    pub fn disturbed(&self) -> [u64; 3] {
        let mut sums = [0; 3];
        for region in &self.regions {
            for line in [&region.sip, &region.rtp] {
                for direction in [Direction::There, Direction::Back] {
                    let counters = line.link(direction).counters();
                    sums[0] += counters.dropped_loss;
                    sums[1] += counters.duplicated;
                    sums[2] += counters.reordered;
                }
            }
        }
        sums
    }
}
