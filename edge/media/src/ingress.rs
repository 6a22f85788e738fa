//! A received packet: sorted (RFC 7983), checked by source, counted, and handed on.

use std::net::SocketAddr;
use std::time::Instant;

use link_proto::ChannelId;
use media_core::rtp::mux::{PacketKind, classify};
use media_core::rtp::packet::RtpHeader;
use media_core::units::Ssrc;

use crate::command::PortKey;
use crate::event::WorkerEvent;
use crate::latch::Verdict;
use crate::port::{Content, Kind};
use crate::stats::DropCause;
use crate::tx::{Component, Tx};
use crate::worker::{At, Worker};

impl Worker {
    /// A datagram arrived at a leg's socket. `source` is `None` on a socket that was tied to its
    /// peer by [`Tx::set_peer`]. What is forwarded is `data` as it stands when this returns.
    pub fn handle_packet<T: Tx>(
        &mut self,
        now: Instant,
        port: PortKey,
        component: Component,
        source: Option<SocketAddr>,
        data: &mut [u8],
        tx: &mut T,
    ) {
        let at = self.at(now);
        if component == Component::Rtp
            && let Some(onward) = self.settled.relay(port, source, data, at)
        {
            self.quiet.move_on(onward.sink, at.us + onward.quiet_after_us);
            return tx.forward(onward.to, Component::Rtp, onward.destination, data);
        }
        let Some(slot) = self.ports.find(port) else {
            return self.stats.drop(DropCause::UnknownPort);
        };
        match (component, classify(data)) {
            (Component::Rtp, PacketKind::Rtp) => self.on_rtp(slot, source, data, at, tx),
            (_, PacketKind::Rtcp) => self.on_rtcp(slot, component, source, data, at, tx),
            _ => self.drop_packet(slot, DropCause::NotRtp),
        }
    }

    /// A packet arrived from the trunk.
    pub fn handle_trunk_packet<T: Tx>(
        &mut self,
        now: Instant,
        peer: u32,
        channel: ChannelId,
        data: &mut [u8],
        tx: &mut T,
    ) {
        let Some(slot) = self.ports.find_channel(peer, channel) else {
            return self.stats.drop(DropCause::UnknownPort);
        };
        let Some((header, content)) = self.parse(slot, data) else { return };
        self.stats.packets_from_trunk += 1;
        let at = self.at(now);
        self.take(slot, &header, content, data, false, at, tx);
    }

    fn on_rtp<T: Tx>(
        &mut self,
        slot: u32,
        source: Option<SocketAddr>,
        data: &mut [u8],
        at: At,
        tx: &mut T,
    ) {
        let Some(port) = self.ports.get(slot) else { return };
        let Kind::Leg(leg) = &port.kind else { return };
        let verdict = leg.latch.judge_rtp(source);
        if verdict == Verdict::Foreign {
            return self.drop_packet(slot, DropCause::ForeignSource);
        }
        let Some((header, content)) = self.parse(slot, data) else { return };
        if let Verdict::Learn(source) = verdict
            && !self.learn(slot, source, header.ssrc, at, tx)
        {
            return self.drop_packet(slot, DropCause::ForeignSource);
        }
        let offers = self.ports.get(slot).is_some_and(|port| at.us >= port.input.offer_us);
        if offers {
            // If the stream has left, then this packet is not like the others, or from before.
            self.take_back_source(slot, at, tx);
        }
        self.stats.packets_from_endpoints += 1;
        if let Some(port) = self.ports.get_mut(slot) {
            port.counters.packets_from_endpoints += 1;
            let revived = std::mem::take(&mut port.input.timed_out);
            if !std::mem::replace(&mut port.input.seen, true) {
                self.events.push_back(WorkerEvent::FirstPacket { port: port.key });
            }
            if revived {
                port.input.alive_us = at.us;
                self.schedule(slot);
            }
        }
        self.take(slot, &header, content, data, true, at, tx);
        if offers {
            self.offer(slot, at, tx);
        }
    }

    /// Header and meaning of a valid packet; others are counted.
    fn parse(&mut self, slot: u32, data: &[u8]) -> Option<(RtpHeader, Content)> {
        let Ok(header) = RtpHeader::parse(data) else {
            self.drop_packet(slot, DropCause::Malformed);
            return None;
        };
        let content = self.ports.get(slot)?.input.content(header.payload_type);
        if content.is_none() {
            self.drop_packet(slot, DropCause::PayloadType);
        }
        Some((header, content?))
    }

    /// False if the packet is not to be learnt from.
    fn learn<T: Tx>(
        &mut self,
        slot: u32,
        source: SocketAddr,
        ssrc: Ssrc,
        at: At,
        tx: &mut T,
    ) -> bool {
        let Some(port) = self.ports.get(slot) else { return false };
        let Kind::Leg(leg) = &port.kind else { return false };
        if leg.latch.needs_known_ssrc(source) && port.input.stats.ssrc() != Some(ssrc) {
            return false;
        }
        let before = leg.latch.rtp();
        if before != Some(source) {
            self.take_back_feeding(slot, at, tx);
        }
        let Some(port) = self.ports.get_mut(slot) else { return false };
        let Kind::Leg(leg) = &mut port.kind else { return false };
        let differs = leg.latch.learn_rtp(source) && before != Some(source);
        tx.set_peer(port.key, Component::Rtp, Some(source));
        self.stats.latched += 1;
        if differs {
            self.events.push_back(WorkerEvent::Latched { port: port.key, source });
        }
        true
    }

    /// An accepted packet: statistics, then everyone who wants it. The receiver that may send the
    /// very buffer comes last.
    fn take<T: Tx>(
        &mut self,
        slot: u32,
        header: &RtpHeader,
        content: Content,
        data: &mut [u8],
        in_place: bool,
        at: At,
        tx: &mut T,
    ) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        let bytes = header.payload_bytes();
        port.input.stats.on_packet(header.ssrc, header.seq, header.timestamp, bytes, at.us);
        port.input.alive_us = at.us;
        let is_heard = !port.input.listeners.as_slice().is_empty();
        let is_doubled = match content {
            Content::Event => self.on_event_packet(slot, header, data, at, tx),
            Content::Audio(codec) => {
                if is_heard {
                    self.hear(slot, header, codec, data, at, tx);
                }
                false
            }
        };
        // What was heard may have changed the wiring.
        let Some(port) = self.ports.get(slot) else { return };
        let sinks = port.sinks;
        if is_doubled {
            return self.drop_packet(slot, DropCause::Replaced);
        }
        let Some((last, others)) = sinks.as_slice().split_last() else {
            if !is_heard {
                self.drop_packet(slot, DropCause::NoSink);
            }
            return;
        };
        for sink in others {
            self.forward_copy(*sink, header, content, data, at, tx);
        }
        self.forward(*last, header, content, data, in_place, at, tx);
    }
}
