//! Loss and jitter of the way from a peer, measured on every datagram. Sans-IO.

use super::wire::Head;

/// A datagram that is further ahead is of a sender that began anew.
const AHEAD_MAX: u16 = 0x7fff;

/// Counts what arrives of one connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RouteMeter {
    /// Datagrams that arrived.
    pub received: u64,
    /// Datagrams that the peer has sent as far as is known.
    pub expected: u64,
    newest: Option<u16>,
    transit_us: u32,
    /// 16 times the jitter, as RFC 3550 §A.8 keeps it.
    jitter_16: u32,
}

impl RouteMeter {
    /// A datagram arrived at `now_us` of our clock.
    pub fn on_datagram(&mut self, head: Head, now_us: u32) {
        self.received += 1;
        let transit_us = now_us.wrapping_sub(head.sent_us);
        match self.newest {
            None => {
                self.expected = 1;
                self.newest = Some(head.sequence);
            }
            Some(newest) => {
                let ahead = head.sequence.wrapping_sub(newest);
                if ahead <= AHEAD_MAX {
                    self.expected += u64::from(ahead);
                    self.newest = Some(head.sequence);
                }
                // The clocks differ by anything, but the difference stays.
                let change = (transit_us.wrapping_sub(self.transit_us) as i32).unsigned_abs();
                let jitter_16 = self.jitter_16 - (self.jitter_16 + 8) / 16;
                self.jitter_16 = jitter_16.saturating_add(change);
            }
        }
        self.transit_us = transit_us;
    }

    /// Datagrams that did not arrive; those under way count until they do.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    /// Interarrival jitter, RFC 3550 §6.4.1.
    pub fn jitter_us(&self) -> u32 {
        self.jitter_16 / 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sequence: u16, sent_us: u32) -> Head {
        Head { sequence, sent_us }
    }

    #[test]
    fn loss_counts_gaps_across_the_wrap_and_forgives_reordering() {
        let mut meter = RouteMeter::default();
        for sequence in [65_533u16, 65_534, 0, 65_535, 4, 3] {
            meter.on_datagram(head(sequence, 0), 0);
        }
        // 65533 … 4 are eight; 1 and 2 are missing.
        assert_eq!((meter.received, meter.expected, meter.lost()), (6, 8, 2));
    }

    #[test]
    fn jitter_is_that_of_rfc_3550_whatever_the_clocks_say() {
        let mut meter = RouteMeter::default();
        for n in 0..2_000u32 {
            let sent = n.wrapping_mul(2_000).wrapping_sub(5_000);
            let late = if n % 2 == 0 { 0 } else { 800 };
            meter.on_datagram(head(n as u16, sent), sent.wrapping_add(123_456_789 + late));
        }
        assert!((790..=810).contains(&meter.jitter_us()), "{}", meter.jitter_us());
        assert_eq!(meter.lost(), 0);
    }
}
