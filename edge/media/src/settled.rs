//! Streams that have settled: relays of this worker that need nothing but their headers rewritten.
//!
//! A packet of such a stream asks for three cache lines here instead of some fifteen of its two ports, and
//! with thousands of streams most of a packet's time is waiting for them. The stream comes from its
//! ports and goes back to them as one that the kernel forwards does: see [`crate::offload`].

use std::net::SocketAddr;

use media_core::rtp::settled::{SETTLED_HOT_BYTES, SettledStream};
use media_core::units::PayloadType;

use crate::command::PortKey;
use crate::offload::{Offload, Progress};
use crate::port::{LINE_BYTES, quiet_after_us};
use crate::worker::At;

const NONE: u32 = u32::MAX;

/// Where a packet of a settled stream goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Onward {
    pub(crate) to: PortKey,
    pub(crate) destination: SocketAddr,
    /// Slot of the port `to`.
    pub(crate) sink: u32,
    /// The stream is quiet if nothing comes for so long in µs.
    pub(crate) quiet_after_us: u64,
}

#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Entry {
    from: PortKey,
    to: PortKey,
    destination: SocketAddr,
    sink: u32,
    /// Time between the last two packets in µs.
    spacing_us: u32,
    /// When its packets shall be looked at by the worker again, in µs.
    until_us: u64,
    stream: SettledStream,
    source: SocketAddr,
}

const HOT_BYTES: usize = LINE_BYTES + SETTLED_HOT_BYTES;
const _: () = assert!(std::mem::offset_of!(Entry, stream) == LINE_BYTES);

/// Where the stream of a port lies, and where it leaves: known without a look at the stream.
#[derive(Debug, Clone, Copy)]
struct Place {
    entry: u32,
    to: u32,
}

const NOWHERE: Place = Place { entry: NONE, to: NONE };

#[derive(Debug)]
pub(crate) struct SettledStreams {
    /// By index of the port that a stream arrives at.
    places: Vec<Place>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    streams_max: usize,
    packets: u64,
}

impl SettledStreams {
    pub(crate) fn new(ports_edge_max: u32, ports_max: u32) -> Self {
        let streams_max = ports_max as usize;
        Self {
            places: vec![NOWHERE; ports_edge_max as usize],
            entries: Vec::with_capacity(streams_max),
            free: Vec::with_capacity(streams_max),
            streams_max,
            packets: 0,
        }
    }

    /// Packets relayed since the worker was made.
    pub(crate) const fn packets(&self) -> u64 {
        self.packets
    }

    fn entry(&self, from: PortKey) -> Option<&Entry> {
        let place = self.places.get(from.index as usize)?;
        self.entries.get(place.entry as usize).filter(|entry| entry.from == from)
    }

    /// Takes a stream over, a packet of which was relayed just now. False if there is no room, or it
    /// cannot be.
    pub(crate) fn begin(
        &mut self,
        offload: &Offload,
        sink: u32,
        now_us: u64,
        until_us: u64,
    ) -> bool {
        let Offload { from, source, to, destination, .. } = *offload;
        let payload_types = (
            PayloadType::new_truncated(offload.payload_type_in),
            PayloadType::new_truncated(offload.payload_type_out),
        );
        let stream = SettledStream::new(
            &offload.reception,
            &offload.relaying,
            payload_types,
            offload.clock_rate_hz,
            now_us,
        );
        let Some(stream) = stream else { return false };
        let Some(place) = self.places.get_mut(from.index as usize) else { return false };
        let new = Entry { from, to, destination, sink, spacing_us: 0, until_us, stream, source };
        let known = Some(place.entry).filter(|number| *number != NONE);
        let number = known.or_else(|| self.free.pop()).unwrap_or(self.entries.len() as u32);
        let used = self.entries.len();
        match self.entries.get_mut(number as usize) {
            Some(entry) => *entry = new,
            None if used < self.streams_max => self.entries.push(new),
            None => return false,
        }
        *place = Place { entry: number, to: to.index };
        true
    }

    /// How far a stream has come.
    pub(crate) fn progress(&self, from: PortKey) -> Option<Progress> {
        self.entry(from).map(progress)
    }

    /// Gives a stream back.
    pub(crate) fn end(&mut self, from: PortKey) -> Option<Progress> {
        let progress = self.progress(from)?;
        let place = self.places.get_mut(from.index as usize)?;
        self.free.push(std::mem::replace(place, NOWHERE).entry);
        Some(progress)
    }

    /// Counts and rewrites a packet of a settled stream. `None` if it is not one, or the worker has to
    /// look at it.
    #[inline]
    pub(crate) fn relay(
        &mut self,
        from: PortKey,
        source: Option<SocketAddr>,
        packet: &mut [u8],
        at: At,
    ) -> Option<Onward> {
        let place = self.places.get(from.index as usize)?;
        let entry = self.entries.get_mut(place.entry as usize)?;
        let is_known = entry.from == from && source.is_none_or(|source| source == entry.source);
        let spacing_us = at.us.saturating_sub(entry.stream.last_us());
        if !is_known || at.us >= entry.until_us || !entry.stream.relay(packet, at.us, at.rtp) {
            return None;
        }
        self.packets += 1;
        entry.spacing_us = u32::try_from(spacing_us).unwrap_or(u32::MAX);
        let Entry { to, destination, sink, .. } = *entry;
        Some(Onward { to, destination, sink, quiet_after_us: quiet_after_us(spacing_us) })
    }

    /// Names the memory that a packet of this port will need here, and the index of the port that it
    /// leaves by. `None`: it is not settled.
    pub(crate) fn foresee(&self, from: PortKey, near: impl Fn(*const u8, usize)) -> Option<u32> {
        let place = self.places.get(from.index as usize)?;
        let entry = self.entries.get(place.entry as usize)?;
        near((&raw const *entry).cast(), HOT_BYTES);
        Some(place.to)
    }

    /// The index of the port that packets of this port leave by. `None`: they are not settled.
    pub(crate) fn exit(&self, from: PortKey) -> Option<u32> {
        let place = self.places.get(from.index as usize)?;
        (place.entry != NONE).then_some(place.to)
    }
}

fn progress(entry: &Entry) -> Progress {
    let stream = &entry.stream;
    let (reception, relaying) = (stream.reception(), stream.relaying());
    Progress {
        highest: reception.highest,
        window: reception.window,
        jitter_q4: reception.jitter_q4,
        jitter_units_max: reception.jitter_units_max,
        transit_in: reception.transit,
        timestamp: reception.timestamp,
        counted: stream.counted(),
        highest_in: relaying.highest_in,
        highest_out: relaying.highest_out,
        last_out: stream.last_out(),
        transit_out: relaying.transit,
        frame_units: relaying.frame_units,
        spacing_us: Some(u64::from(entry.spacing_us)),
    }
}
