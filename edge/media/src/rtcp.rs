//! RTCP of a leg: both ends are here, nothing is passed through.

use std::net::SocketAddr;

use media_core::rtp::rtcp::ntp::{NtpTime, dlsr_from_us, round_trip_us};
use media_core::rtp::rtcp::{Compound, CompoundWriter, Packet, ReportBlock, SenderInfo};
use media_core::units::Ssrc;

use crate::latch::Verdict;
use crate::limits::RTCP_INTERVAL_US;
use crate::port::{Kind, Leg};
use crate::stats::DropCause;
use crate::tx::{Component, Tx};
use crate::worker::{At, Worker};

/// Sender report, one block, and a CNAME.
const REPORT_BYTES_MAX: usize = 128;

/// Time since the worker was made, which RFC 3550 §6.4.1 allows for those without a wall clock.
fn ntp(us: u64) -> NtpTime {
    NtpTime(((us / 1_000_000) << 32) | (((us % 1_000_000) << 32) / 1_000_000))
}

impl Worker {
    pub(crate) fn on_rtcp<T: Tx>(
        &mut self,
        slot: u32,
        component: Component,
        source: Option<SocketAddr>,
        data: &[u8],
        at: At,
        tx: &mut T,
    ) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        let key = port.key;
        let Kind::Leg(leg) = &mut port.kind else { return };
        let verdict = match component {
            Component::Rtp if !leg.mux => return self.drop_packet(slot, DropCause::NotRtp),
            // Nothing is learnt from RTCP on the port of RTP.
            Component::Rtp => match leg.latch.judge_rtp(source) {
                Verdict::Accept => Verdict::Accept,
                Verdict::Learn(_) | Verdict::Foreign => Verdict::Foreign,
            },
            Component::Rtcp => leg.latch.judge_rtcp(source),
        };
        if verdict == Verdict::Foreign {
            return self.drop_packet(slot, DropCause::ForeignSource);
        }
        let Ok(compound) = Compound::parse(data) else {
            return self.drop_packet(slot, DropCause::MalformedRtcp);
        };
        if let Verdict::Learn(source) = verdict {
            leg.latch.learn_rtcp(source);
            tx.set_peer(key, Component::Rtcp, Some(source));
        }
        self.stats.rtcp_received += 1;
        let ours = port.out.stream.ssrc();
        for packet in compound.packets() {
            match packet {
                Packet::SenderReport { ssrc, info, blocks } => {
                    if port.input.stats.ssrc() == Some(ssrc) {
                        leg.heard = Some((info.ntp.middle(), at.us));
                    }
                    blocks.for_each(|block| hear_block(leg, ours, &block, at));
                }
                Packet::ReceiverReport { blocks, .. } => {
                    blocks.for_each(|block| hear_block(leg, ours, &block, at));
                }
                // A BYE does not end a call; signalling does.
                Packet::Sdes(_) | Packet::Bye(_) | Packet::Other { .. } => {}
            }
        }
    }

    /// Sends a report if it is time.
    pub(crate) fn report_if_due<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        let Kind::Leg(leg) = &mut port.kind else { return };
        if leg.report_us > at.us {
            return;
        }
        leg.report_us = at.us + self.random.around(RTCP_INTERVAL_US);
        let (component, to) = match leg.mux {
            true => (Component::Rtp, leg.latch.rtp()),
            false => (Component::Rtcp, leg.latch.rtcp()),
        };
        let Some(to) = to else { return };
        let report = port.input.stats.take_report();
        let block = report.zip(port.input.stats.ssrc()).map(|(reception, ssrc)| {
            let (lsr, dlsr) = leg.heard.map_or((0, 0), |(middle, heard_us)| {
                (middle, dlsr_from_us(at.us.saturating_sub(heard_us)))
            });
            ReportBlock { ssrc, reception, lsr, dlsr }
        });
        let sent = &port.out.sent;
        let info = (sent.packets > 0).then(|| SenderInfo {
            ntp: ntp(at.us),
            timestamp: port.out.stream.timestamp_at(at.rtp),
            packets: sent.packets as u32,
            payload_bytes: sent.payload_bytes as u32,
        });
        if info.is_none() && block.is_none() {
            return;
        }
        let mut bytes = [0u8; REPORT_BYTES_MAX];
        let ssrc = port.out.stream.ssrc();
        let Some(length) = write_report(&mut bytes, ssrc, info, block.as_slice(), leg) else {
            return;
        };
        self.stats.rtcp_sent += 1;
        tx.send(port.key, component, to, bytes.get(..length).unwrap_or_default());
    }
}

fn write_report(
    bytes: &mut [u8],
    ssrc: Ssrc,
    info: Option<SenderInfo>,
    blocks: &[ReportBlock],
    leg: &mut Leg,
) -> Option<usize> {
    let mut writer = CompoundWriter::new(bytes);
    match &info {
        Some(info) => {
            writer.sender_report(ssrc, info, blocks)?;
            if let Some(place) = leg.reports.get_mut(leg.reports_next) {
                *place = info.ntp.middle();
            }
            leg.reports_next = (leg.reports_next + 1) % leg.reports.len();
        }
        None => writer.receiver_report(ssrc, blocks)?,
    }
    writer.sdes_cname(ssrc, leg.cname())?;
    Some(writer.len())
}

/// A round trip is believed only if the block answers a report that was sent.
fn hear_block(leg: &mut Leg, ours: Ssrc, block: &ReportBlock, at: At) {
    if block.ssrc == ours
        && block.lsr != 0
        && leg.reports.contains(&block.lsr)
        && let Some(us) = round_trip_us(ntp(at.us), block.lsr, block.dlsr)
    {
        leg.round_trip_us = us;
    }
}
