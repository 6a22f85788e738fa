//! The relay: header rewritten in place, the same buffer sent.

use media_core::codec::g711;
use media_core::rtp::packet::{RtpHeader, RtpViewMut};
use media_core::rtp::rewrite::SkipReason;

use crate::command::AudioCodec;
use crate::path::record::record_sent;
use crate::port::{Content, Exit};
use crate::stats::DropCause;
use crate::tx::{Component, Tx};
use crate::worker::{At, Worker};

impl Worker {
    /// Sends a packet, whose header is given, on out of the port `sink`. `in_place`: it lies in the
    /// received buffer.
    pub(crate) fn forward<T: Tx>(
        &mut self,
        sink: u32,
        header: &RtpHeader,
        content: Content,
        packet: &mut [u8],
        in_place: bool,
        at: At,
        tx: &mut T,
    ) {
        let Some(port) = self.ports.get_mut(sink) else { return };
        let Some(exit) = port.exit() else { return self.drop_packet(sink, DropCause::NotSendable) };
        let out = &mut port.out;
        if out.event.is_some() {
            return self.drop_packet(sink, DropCause::Replaced);
        }
        let payload_type = match (content, out.telephone_event) {
            (Content::Audio(_), _) => out.payload_type,
            (Content::Event, Some(payload_type)) => payload_type,
            (Content::Event, None) => return self.drop_packet(sink, DropCause::NoTelephoneEvent),
        };
        let Some(mut view) = RtpViewMut::of_parsed(packet, *header) else { return };
        match out.stream.rewrite(&mut view, out.relay_id, at.rtp) {
            Ok(()) => {}
            Err(reason) => return self.skip(sink, reason, at),
        }
        view.set_payload_type(payload_type);
        let transcoded = convert(content, out.codec, view.payload_mut());
        let (timestamp, bytes) = (view.header().timestamp, view.header().payload_bytes());
        out.sent.on_packet(timestamp, bytes, at.us);
        out.note_relayed(at.us);
        let quiet_us = at.us + out.quiet_after_us();
        let starts = !std::mem::replace(&mut out.begun, true);
        if !out.taps.as_slice().is_empty() && matches!(content, Content::Audio(_)) {
            let (header, codec, taps) = (view.header(), out.codec, out.taps);
            let numbers = (header.ssrc, header.seq, header.timestamp);
            let payload = view.payload_mut();
            record_sent(&mut self.ops, &mut self.tracks, taps, numbers, codec, payload, at.us);
        }
        let key = port.key;
        self.quiet.move_on(sink, quiet_us);
        self.stats.packets_relayed += 1;
        self.stats.packets_transcoded += u64::from(transcoded);
        match exit {
            Exit::Endpoint(to) => {
                port.counters.packets_to_endpoints += 1;
                self.stats.packets_to_endpoints += 1;
                if in_place {
                    tx.forward(key, Component::Rtp, to, packet);
                } else {
                    tx.send(key, Component::Rtp, to, packet);
                }
            }
            Exit::Trunk(peer, channel) => {
                port.counters.packets_out_of_region += 1;
                self.stats.packets_to_trunk += 1;
                tx.trunk(peer, channel, packet);
            }
        }
        if starts {
            self.relay_begins(sink);
        }
    }

    /// A further receiver gets a copy, because each rewrites header and payload.
    pub(crate) fn forward_copy<T: Tx>(
        &mut self,
        sink: u32,
        header: &RtpHeader,
        content: Content,
        packet: &[u8],
        at: At,
        tx: &mut T,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        match scratch.get_mut(..packet.len()) {
            Some(copy) => {
                copy.copy_from_slice(packet);
                self.forward(sink, header, content, copy, false, at, tx);
            }
            None => self.drop_packet(sink, DropCause::TooLong),
        }
        self.scratch = scratch;
    }

    /// The rewriter refuses a packet. If it does so to bound the lead of the stream's time, the
    /// silence that fills the stream has to leave the next packet its place.
    fn skip(&mut self, sink: u32, reason: SkipReason, at: At) {
        self.drop_packet(sink, DropCause::Switch);
        let Some(port) = self.ports.get_mut(sink) else { return };
        if reason == SkipReason::Lead
            && let Some(tick_us) = &mut port.out.tick_us
        {
            *tick_us = (*tick_us).max(at.us + port.out.ptime_ms as u64 * 1_500);
            self.schedule(sink);
        }
    }

    /// The first packet of a source: silence ends, unless a digit is still to be sent.
    fn relay_begins(&mut self, sink: u32) {
        let Some(port) = self.ports.get_mut(sink) else { return };
        if !port.makes_frames() {
            port.out.tick_us = None;
        }
        self.schedule(sink);
    }
}

/// Converts between µ-law and A-law where they differ. Adds no delay, so it is part of the relay.
fn convert(content: Content, to: AudioCodec, payload: &mut [u8]) -> bool {
    match (content, to) {
        (Content::Audio(AudioCodec::Pcmu), AudioCodec::Pcma) => {
            g711::ulaw_to_alaw_in_place(payload)
        }
        (Content::Audio(AudioCodec::Pcma), AudioCodec::Pcmu) => {
            g711::alaw_to_ulaw_in_place(payload)
        }
        _ => return false,
    }
    true
}
