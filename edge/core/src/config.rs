//! What an edge core is told at its start.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use link_proto::media::AudioCodec;
use link_proto::table::{ResourceLimits, Resources, Route};
use link_proto::{NodeId, RegionId};
use sip_core::SipConfig;

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address or ADDRESS/BITS, found {text:?}")]
pub struct CidrError {
    /// The text.
    pub text: String,
}

impl Cidr {
    /// True if the address is inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.prefix_bits);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError { text: text.to_owned() };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let bits_max: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            Some(bits) => bits.parse().ok().filter(|b| *b <= bits_max).ok_or_else(error)?,
            None => bits_max,
        };
        Ok(Self { address, prefix_bits })
    }
}

/// A provider service: who may send us calls, and how its media is treated.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Name in events and metrics.
    pub name: String,
    /// Where its signalling comes from.
    pub networks: Vec<Cidr>,
    /// It sits behind NAT: its media may come from any address at first, and its Contact is not
    /// followed.
    pub nat: bool,
    /// New calls per second; above it 503.
    pub calls_per_s_max: u32,
}

/// What a control node is to this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlChoice {
    /// New calls go to the reachable nodes with the lowest number.
    pub priority: u16,
    /// Share of new calls among those of one priority; 0 = only if all of them have 0.
    pub weight: u16,
}

impl Default for ControlChoice {
    fn default() -> Self {
        Self { priority: 0, weight: 1 }
    }
}

/// Configuration of [`crate::EdgeCore`].
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// This node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// What it can do for media; counts for calls that it connects without control.
    pub resources: Resources,
    /// How much of it at once; more is refused.
    pub limits: ResourceLimits,
    /// Signalling.
    pub sip: SipConfig,
    /// This shard, below `shards`.
    pub shard: u32,
    /// Signalling shards of this edge.
    pub shards: u32,
    /// Media workers of this edge.
    pub workers: u16,
    /// Control nodes; [`crate::ControlIndex`] counts them.
    pub controls: Vec<ControlChoice>,
    /// Who may send us calls, first match wins.
    pub providers: Vec<Provider>,
    /// Advertised address of RTP; a peer must have one of its family.
    pub media_address: IpAddr,
    /// Codecs that we speak, best first.
    pub codecs: Vec<AudioCodec>,
    /// Payload type of telephone-event in our offers.
    pub telephone_event: u8,
    /// Packet length in ms in our offers.
    pub ptime_ms: u16,
    /// Legs at once on this shard; a call beyond gets 503.
    pub legs_max: usize,
    /// Legs and trunk channels at once on this shard.
    pub ports_max: u32,
    /// Media programs at once in a session.
    pub ops_max: usize,
    /// Events of one session that wait for control.
    pub events_max: usize,
    /// Sessions whose numbering is remembered after their end here. Control may come back to one
    /// (a call that is backhauled again), so this is to cover the longest calls.
    pub sessions_kept_max: usize,
    /// No RTP for so long ends a leg (LAT-11); `None` = off.
    pub media_timeout: Option<Duration>,
    /// How long a leg that needs control waits for it.
    pub control_lost_hold: Duration,
    /// How long an offered call waits for the first command.
    pub offer_answer_max: Duration,
    /// How long a play program waits for its prompts.
    pub prompt_wait_max: Duration,
    /// How long the end of a leg waits for the counters of its worker.
    pub stats_wait_max: Duration,
    /// `Retry-After` of our 503 in seconds.
    pub retry_after_s: u32,
}

/// What may change while calls are up. It holds for what begins afterwards.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As [`EdgeConfig::providers`].
    pub providers: Vec<Provider>,
    /// Routes as long as no control node has pushed any.
    pub routes: Vec<Route>,
    /// As [`EdgeConfig::resources`].
    pub resources: Resources,
    /// As [`EdgeConfig::limits`].
    pub limits: ResourceLimits,
    /// As [`EdgeConfig::legs_max`]; not above the value of the start.
    pub legs_max: usize,
    /// As [`EdgeConfig::media_timeout`].
    pub media_timeout: Option<Duration>,
    /// As [`EdgeConfig::control_lost_hold`].
    pub control_lost_hold: Duration,
}

impl EdgeConfig {
    /// Defaults for one shard and one worker.
    pub fn new(node: NodeId, sip: SipConfig) -> Self {
        Self {
            node,
            region: RegionId::from("local"),
            resources: Resources::default(),
            limits: ResourceLimits::default(),
            sip,
            shard: 0,
            shards: 1,
            workers: 1,
            controls: vec![ControlChoice::default()],
            providers: Vec::new(),
            media_address: Ipv4Addr::UNSPECIFIED.into(),
            codecs: vec![AudioCodec::Pcmu, AudioCodec::Pcma],
            telephone_event: 101,
            ptime_ms: 20,
            legs_max: 2_000,
            ports_max: 4_000,
            ops_max: 64,
            events_max: 1_000,
            sessions_kept_max: 16_384,
            media_timeout: Some(Duration::from_secs(60)),
            control_lost_hold: Duration::from_secs(30),
            offer_answer_max: Duration::from_secs(60),
            prompt_wait_max: Duration::from_secs(10),
            stats_wait_max: Duration::from_millis(200),
            retry_after_s: 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "127.0.0.1", false),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a/8", "10.0.0.0/"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
