//! Packets that are made here.

use media_core::rtp::packet::{FIXED_HEADER_BYTES, write_header};
use media_core::rtp::rewrite::Outgoing;
use media_core::units::PayloadType;

use crate::limits::PTIME_MS_MAX;
use crate::path::record::record_sent;
use crate::port::Exit;
use crate::tx::{Component, Tx};
use crate::worker::{At, Worker};

/// Largest payload made here: one byte per sample.
pub(crate) const PAYLOAD_BYTES_MAX: usize = PTIME_MS_MAX as usize * 8;

impl Worker {
    /// Sends one packet out of a port.
    pub(crate) fn send_made<T: Tx>(
        &mut self,
        slot: u32,
        numbers: Outgoing,
        payload_type: PayloadType,
        payload: &[u8],
        at: At,
        tx: &mut T,
    ) {
        let mut packet = [0u8; FIXED_HEADER_BYTES + PAYLOAD_BYTES_MAX];
        let length = FIXED_HEADER_BYTES + payload.len();
        let Some(packet) = packet.get_mut(..length) else { return };
        let fields = numbers.with_payload_type(payload_type);
        if write_header(packet, &fields).is_none() {
            return;
        }
        if let Some(body) = packet.get_mut(FIXED_HEADER_BYTES..) {
            body.copy_from_slice(payload);
        }
        let Some(port) = self.ports.get_mut(slot) else { return };
        let Some(exit) = port.exit() else { return };
        port.out.sent.on_packet(numbers.timestamp, payload.len(), at.us);
        port.out.last_us = Some(at.us);
        if !port.out.taps.as_slice().is_empty() && payload_type == port.out.payload_type {
            let (codec, taps) = (port.out.codec, port.out.taps);
            let numbers = (fields.ssrc, fields.seq, fields.timestamp);
            record_sent(&mut self.ops, &mut self.tracks, taps, numbers, codec, payload, at.us);
        }
        match exit {
            Exit::Endpoint(to) => {
                port.counters.packets_to_endpoints += 1;
                self.stats.packets_to_endpoints += 1;
                tx.send(port.key, Component::Rtp, to, packet);
            }
            Exit::Trunk(peer, channel) => {
                port.counters.packets_out_of_region += 1;
                self.stats.packets_to_trunk += 1;
                tx.trunk(peer, channel, packet);
            }
        }
    }
}
