//! Where a leg's RTP and RTCP go, and whose packets are taken.
//!
//! Until a source was learnt nothing is sent but to the addresses from SDP, and nothing is taken
//! but the packet that is learnt from. After that exactly one source counts, until signalling
//! allows to learn anew. Nothing that a packet says can make the worker learn a second time.
//!
//! When signalling allows it without naming another address (an endpoint may have moved behind its
//! NAT), RTP goes on to the source learnt before, and a new one must carry on the same SSRC.

use std::net::{IpAddr, SocketAddr};

use crate::command::{Latching, LegConfig};

/// What to do with a packet by its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is from the known source.
    Accept,
    /// It may be learnt from, if it is valid otherwise.
    Learn(SocketAddr),
    /// Drop it.
    Foreign,
}

/// Peers that the sockets are to be tied to; outer `None`: unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PeerChanges {
    pub(crate) rtp: Option<Option<SocketAddr>>,
    pub(crate) rtcp: Option<Option<SocketAddr>>,
}

/// What every packet asks for comes first; see [`crate::port::Port`].
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Latch {
    rtp_learnt: bool,
    rtcp_learnt: bool,
    rule: Latching,
    rtp: Option<SocketAddr>,
    sdp_rtp: Option<SocketAddr>,
    sdp_rtcp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    /// The source before, if signalling named no other address.
    previous: Option<SocketAddr>,
    epoch: Option<u32>,
}

fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

/// One /24 (IPv4) or /64 (IPv6).
fn same_network(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..3] == b.octets()[..3],
        (IpAddr::V6(a), IpAddr::V6(b)) => a.segments()[..4] == b.segments()[..4],
        _ => false,
    }
}

impl Latch {
    /// What a packet asks for lies within so many bytes: up to where RTP goes, and whether SDP named
    /// an address.
    pub(crate) const HOT_BYTES: usize = std::mem::offset_of!(Self, sdp_rtp) + 4;

    pub(crate) const fn new() -> Self {
        Self {
            rule: Latching::Off,
            epoch: None,
            sdp_rtp: None,
            sdp_rtcp: None,
            rtp: None,
            rtcp: None,
            rtp_learnt: false,
            rtcp_learnt: false,
            previous: None,
        }
    }

    /// Takes what signalling says. A source that was learnt stays unless the epoch changes.
    pub(crate) fn update(&mut self, config: &LegConfig) -> PeerChanges {
        let same_address = self.sdp_rtp == config.remote_rtp && self.sdp_rtcp == config.remote_rtcp;
        let known = self.epoch == Some(config.latch_epoch);
        if known && (same_address || (self.rtp_learnt && self.rule != Latching::Off)) {
            return PeerChanges::default();
        }
        let first = self.epoch.is_none();
        let stays = self.rtp_learnt && self.sdp_rtp == config.remote_rtp;
        let previous = self.rtp.filter(|_| stays && config.latching != Latching::Off);
        self.previous = previous;
        self.epoch = Some(config.latch_epoch);
        self.rule = config.latching;
        (self.sdp_rtp, self.rtp) = (config.remote_rtp, config.remote_rtp);
        (self.sdp_rtcp, self.rtcp) = (config.remote_rtcp, config.remote_rtcp);
        if self.rule == Latching::Off {
            self.rtp_learnt = self.rtp.is_some();
            self.rtcp_learnt = self.rtcp.is_some();
            return PeerChanges { rtp: Some(self.rtp), rtcp: Some(self.rtcp) };
        }
        let changes = PeerChanges {
            rtp: (!first && self.rtp_learnt).then_some(None),
            rtcp: (!first && self.rtcp_learnt).then_some(None),
        };
        self.rtp = previous.or(self.rtp);
        self.rtp_learnt = false;
        self.rtcp_learnt = false;
        changes
    }

    /// Where RTP goes.
    pub(crate) const fn rtp(&self) -> Option<SocketAddr> {
        self.rtp
    }

    /// Where RTCP goes without rtcp-mux.
    pub(crate) const fn rtcp(&self) -> Option<SocketAddr> {
        self.rtcp
    }

    /// A source is in force: learnt, or given by signalling for good.
    pub(crate) const fn is_learnt(&self) -> bool {
        self.rtp_learnt
    }

    /// Judges an RTP packet. A packet without a source came on a socket that is tied to its peer.
    pub(crate) fn judge_rtp(&self, source: Option<SocketAddr>) -> Verdict {
        let Some(sdp) = &self.sdp_rtp else { return Verdict::Foreign };
        let Some(source) = source else {
            return if self.rtp_learnt { Verdict::Accept } else { Verdict::Foreign };
        };
        match self.rtp {
            Some(rtp) if self.rtp_learnt => {
                if same(source, rtp) {
                    Verdict::Accept
                } else {
                    Verdict::Foreign
                }
            }
            _ => {
                let acceptable = match self.rule {
                    Latching::Off => same(source, *sdp),
                    Latching::SdpNetwork => same_network(source.ip(), sdp.ip()),
                    Latching::Any => true,
                };
                if acceptable { Verdict::Learn(source) } else { Verdict::Foreign }
            }
        }
    }

    /// Whether a packet from there can only be learnt from if it carries the SSRC known before.
    pub(crate) fn needs_known_ssrc(&self, source: SocketAddr) -> bool {
        let is = |known: Option<SocketAddr>| known.is_some_and(|known| same(known, source));
        self.previous.is_some() && !is(self.previous) && !is(self.sdp_rtp)
    }

    /// Learns from a valid packet. True if the address differs from the one in SDP.
    pub(crate) fn learn_rtp(&mut self, source: SocketAddr) -> bool {
        self.rtp = Some(source);
        self.rtp_learnt = true;
        self.previous = None;
        self.sdp_rtp.is_none_or(|sdp| !same(sdp, source))
    }

    /// Judges an RTCP packet on a socket of its own: it must come from the address in SDP, or from
    /// the host that RTP was learnt from.
    pub(crate) fn judge_rtcp(&self, source: Option<SocketAddr>) -> Verdict {
        if self.rtcp_learnt {
            let ok = match (source, self.rtcp) {
                (None, _) => true,
                (Some(source), Some(rtcp)) => same(source, rtcp),
                (Some(_), None) => false,
            };
            return if ok { Verdict::Accept } else { Verdict::Foreign };
        }
        let Some(source) = source else { return Verdict::Foreign };
        let from_sdp = self.sdp_rtcp.is_some_and(|sdp| same(sdp, source));
        let from_host = self.rule != Latching::Off
            && self.rtp_learnt
            && self.rtp.is_some_and(|rtp| rtp.ip().to_canonical() == source.ip().to_canonical());
        if from_sdp || from_host { Verdict::Learn(source) } else { Verdict::Foreign }
    }

    /// Learns from a valid RTCP packet.
    pub(crate) fn learn_rtcp(&mut self, source: SocketAddr) {
        self.rtcp = Some(source);
        self.rtcp_learnt = true;
    }
}
