//! Every session can print itself.

use std::fmt::{self, Write};

use crate::command::SessionKey;
use crate::port::{Kind, Source};
use crate::worker::Worker;

impl Worker {
    /// Writes one line per port of a session: what it is, what feeds it, what it counted.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn dump(&self, session: SessionKey, out: &mut impl Write) -> fmt::Result {
        for port in self.ports.iter().filter(|port| port.session == session) {
            write!(out, "port {}/{} ", port.key.index, port.key.generation)?;
            match &port.kind {
                Kind::Leg(leg) => {
                    let learnt = if leg.latch.is_learnt() { "learnt" } else { "from SDP" };
                    match leg.latch.rtp() {
                        Some(to) => write!(out, "leg to {to} ({learnt})")?,
                        None => write!(out, "leg without address")?,
                    }
                    write!(out, " {:?} answered={}", leg.direction, leg.answered)?;
                }
                Kind::Channel { peer, channel } => {
                    write!(out, "channel {} to peer {peer}", channel.0)?;
                }
            }
            match port.out.source {
                Source::None => write!(out, ", no source")?,
                Source::Port(from) => match self.ports.get(from) {
                    Some(from) => write!(out, ", fed by port {}", from.key.index)?,
                    None => write!(out, ", fed by nobody")?,
                },
                Source::Play(place) => match self.ops.get(place) {
                    Some(op) => write!(out, ", plays {}", op.key.op.0)?,
                    None => write!(out, ", plays nothing")?,
                },
            }
            let (received, sent) = (port.input.stats.totals(), &port.out.sent);
            writeln!(
                out,
                ", {:?}, received {} lost {} dropped {}, sent {} longest gap {} us, {} programs listen",
                port.out.codec,
                received.packets,
                received.lost_packets,
                port.dropped,
                sent.packets,
                sent.gap_us_max,
                port.input.listeners.as_slice().len(),
            )?;
        }
        Ok(())
    }
}
