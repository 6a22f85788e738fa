//! Counters of a worker. Plain numbers, kept by its thread.

/// Why a packet went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum DropCause {
    /// No port has this key or channel.
    UnknownPort,
    /// Neither RTP nor RTCP, or on the wrong socket.
    NotRtp,
    /// The RTP header is malformed.
    Malformed,
    /// The payload type was not negotiated.
    PayloadType,
    /// From another source than the one in force.
    ForeignSource,
    /// RTCP is malformed.
    MalformedRtcp,
    /// Nobody wants it: the port feeds none.
    NoSink,
    /// The receiver has no address or does not want RTP now.
    NotSendable,
    /// The receiver has no telephone-event.
    NoTelephoneEvent,
    /// Overtaken at a switch of source, or it would put the stream ahead of time.
    Switch,
    /// A digit is sent in its place.
    Replaced,
    /// Too long to be copied for a second receiver.
    TooLong,
}

impl DropCause {
    /// All causes.
    pub const ALL: [Self; 12] = [
        Self::UnknownPort,
        Self::NotRtp,
        Self::Malformed,
        Self::PayloadType,
        Self::ForeignSource,
        Self::MalformedRtcp,
        Self::NoSink,
        Self::NotSendable,
        Self::NoTelephoneEvent,
        Self::Switch,
        Self::Replaced,
        Self::TooLong,
    ];

    /// Name for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownPort => "unknown_port",
            Self::NotRtp => "not_rtp",
            Self::Malformed => "malformed",
            Self::PayloadType => "payload_type",
            Self::ForeignSource => "foreign_source",
            Self::MalformedRtcp => "malformed_rtcp",
            Self::NoSink => "no_sink",
            Self::NotSendable => "not_sendable",
            Self::NoTelephoneEvent => "no_telephone_event",
            Self::Switch => "switch",
            Self::Replaced => "replaced",
            Self::TooLong => "too_long",
        }
    }
}

/// Buckets of [`Lateness`].
pub const LATENESS_BUCKETS: usize = 20;

/// How late deadlines were handled: bucket `n` counts those below 2ⁿ µs that are in no lower one;
/// the last one counts all later ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Counts.
    pub buckets: [u64; LATENESS_BUCKETS],
}

impl Lateness {
    /// Counts one deadline that was handled `late_us` after its time.
    pub fn add(&mut self, late_us: u64) {
        let bucket = (u64::BITS - late_us.leading_zeros()) as usize;
        if let Some(count) = self.buckets.get_mut(bucket.min(LATENESS_BUCKETS - 1)) {
            *count += 1;
        }
    }

    /// Upper bound in µs of the bucket that holds the given share, 0 for no deadlines.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        let total: u64 = self.buckets.iter().sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (n, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return 1 << n;
            }
        }
        0
    }
}

/// What a worker did since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// RTP packets accepted from endpoints.
    pub packets_from_endpoints: u64,
    /// RTP packets sent to endpoints, generated ones included.
    pub packets_to_endpoints: u64,
    /// RTP packets taken from trunks.
    pub packets_from_trunk: u64,
    /// RTP packets handed to trunks.
    pub packets_to_trunk: u64,
    /// Of all sent: relayed, not made here.
    pub packets_relayed: u64,
    /// Of the relayed: converted between µ-law and A-law.
    pub packets_transcoded: u64,
    /// Of the relayed: on the short way of streams that have settled.
    pub packets_settled: u64,
    /// Of the relayed: by the kernel.
    pub packets_offloaded: u64,
    /// Streams handed to the kernel.
    pub offloads: u64,
    /// Streams that it did not take (no room, no next hop yet); they are offered again.
    pub offloads_refused: u64,
    /// Streams taken back.
    pub withdrawals: u64,
    /// Frames of silence sent for want of a source.
    pub packets_fill: u64,
    /// RTCP packets accepted.
    pub rtcp_received: u64,
    /// RTCP packets sent.
    pub rtcp_sent: u64,
    /// Dropped packets by [`DropCause`].
    pub dropped: [u64; DropCause::ALL.len()],
    /// Addresses learnt.
    pub latched: u64,
    /// Digits taken, each once.
    pub digits: u64,
    /// Digits that came a second way.
    pub digits_doubled: u64,
    /// Ports and programs refused for want of room.
    pub refused: u64,
    /// Ports that were to be searched for DTMF and found no detector.
    pub detectors_missing: u64,
    /// Connections refused because the source feeds too many ports.
    pub sinks_refused: u64,
    /// How late deadlines were handled.
    pub lateness: Lateness,
    /// Times the rhythm of a port started anew after a stall.
    pub stalls: u64,
    /// Ports present.
    pub ports: u64,
    /// Programs present.
    pub ops: u64,
}

impl WorkerStats {
    pub(crate) fn drop(&mut self, cause: DropCause) {
        if let Some(count) = self.dropped.get_mut(cause as usize) {
            *count += 1;
        }
    }

    /// Packets dropped for one cause.
    #[must_use]
    pub fn dropped_for(&self, cause: DropCause) -> u64 {
        self.dropped.get(cause as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_places_and_names_of_their_own() {
        let mut stats = WorkerStats::default();
        let mut names = Vec::new();
        for (n, cause) in DropCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, n);
            stats.drop(cause);
            assert_eq!(stats.dropped_for(cause), 1);
            names.push(cause.name());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropCause::ALL.len());
    }

    #[test]
    fn lateness_is_sorted_by_powers_of_two() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.quantile_us(0.5), 0);
        for late_us in [0, 1, 3, 100, u64::MAX] {
            lateness.add(late_us);
        }
        assert_eq!(lateness.buckets[0], 1);
        assert_eq!(lateness.buckets[7], 1);
        assert_eq!(lateness.buckets[LATENESS_BUCKETS - 1], 1);
        assert_eq!(lateness.quantile_us(0.5), 4);
    }
}
