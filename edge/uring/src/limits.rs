//! Every capacity of a media thread's mechanics, and the memory they add up to.

use std::fmt;
use std::time::Duration;

use crate::wake_up::LEAD_MAX;

/// Bytes that the kernel writes in front of the payload of a multishot `recvmsg`: its header (16)
/// and room for an IPv6 socket address (28), rounded up so that the payload stays aligned.
pub(crate) const RECVMSG_NAME_BYTES: usize = 32;
pub(crate) const RECVMSG_PREFIX_BYTES: usize = 16 + RECVMSG_NAME_BYTES;

/// Capacities of one media thread; all memory is taken at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sockets that can be open at once.
    pub sockets_max: u32,
    /// Receive buffers lent to the kernel; a power of two, at most 32768.
    pub rx_buffers: u16,
    /// Size of one receive buffer. The largest datagram is 48 bytes smaller.
    pub rx_buffer_bytes: u32,
    /// Submission entries of the ring; a power of two. Also the transmit slots for generated media.
    pub submission_entries: u32,
    /// Size of one transmit slot: the largest datagram that `send_copy` takes.
    pub tx_slot_bytes: u32,
    /// Completions handled in one turn before deadlines are looked at again.
    pub completions_per_turn_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sockets_max: 4096,
            // More than one entry into the kernel hands over, few enough to stay in the cache.
            rx_buffers: 1024,
            // A datagram of any usual path; no power of two, or the heads of all buffers would
            // compete for the same lines of the cache.
            rx_buffer_bytes: 1664,
            submission_entries: 512,
            tx_slot_bytes: 2048,
            completions_per_turn_max: 64,
        }
    }
}

/// How a turn waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitConfig {
    /// Look for completions for this long before sleeping. Zero (the default) sleeps at once.
    pub busy_poll: Duration,
    /// Sleep until this many completions are there … (0 or 1: the first one wakes).
    pub batch_completions: u32,
    /// … or this long has passed and there is at least one.
    pub batch_wait: Duration,
    /// Be woken at most so much before a deadline, and look for completions until it; as much as waking
    /// up was seen to take, 150 µs at most (the default), and for a quarter of the time at most. Zero:
    /// sleep until the deadline and be late by what waking up takes.
    pub lead_max: Duration,
}

impl Default for WaitConfig {
    fn default() -> Self {
        Self {
            busy_poll: Duration::ZERO,
            batch_completions: 0,
            batch_wait: Duration::ZERO,
            lead_max: LEAD_MAX,
        }
    }
}

/// A limit that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: {allowed}")]
pub struct LimitsError {
    /// Name of the limit.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What is allowed.
    pub allowed: &'static str,
}

impl Limits {
    /// Completion entries: one for each receive buffer, for the end of each receive, and for each
    /// failing send and cancel of a full submission ring, so that the queue cannot overflow.
    pub fn completion_entries(&self) -> u32 {
        let sum = u32::from(self.rx_buffers)
            .saturating_add(self.sockets_max)
            .saturating_add(self.submission_entries.saturating_mul(2));
        sum.min(1 << 16).next_power_of_two()
    }

    /// Bytes taken at start: buffers, slots, both queues and the socket table.
    pub fn memory_bytes(&self) -> u64 {
        // Each buffer with its ring entry, and one more for draining.
        let rx = u64::from(self.rx_buffers) * (u64::from(self.rx_buffer_bytes) + 16)
            + u64::from(self.rx_buffer_bytes);
        let tx = u64::from(self.submission_entries) * (u64::from(self.tx_slot_bytes) + 32);
        let queues =
            u64::from(self.submission_entries) * 64 + u64::from(self.completion_entries()) * 16;
        let sockets = u64::from(self.sockets_max) * (crate::table::SLOT_BYTES as u64 + 8);
        rx + tx + queues + sockets
    }

    /// Of these, the bytes that the kernel shares and counts against the limit of locked memory
    /// (RLIMIT_MEMLOCK): both queues and the ring of lent buffers, in whole pages.
    pub fn locked_bytes(&self) -> u64 {
        let pages = |bytes: u64| bytes.next_multiple_of(4_096);
        // The completion queue and the index of the submission queue are one piece.
        let index = u64::from(self.submission_entries) * 4 + 128;
        pages(u64::from(self.completion_entries()) * 16 + index)
            + pages(u64::from(self.submission_entries) * 64)
            + pages(u64::from(self.rx_buffers) * 16)
    }

    /// # Errors
    /// The first limit that is out of range.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let check = |field, value: u32, ok: bool, allowed| {
            if ok { Ok(()) } else { Err(LimitsError { field, value: u64::from(value), allowed }) }
        };
        check(
            "sockets_max",
            self.sockets_max,
            (1..=65_536).contains(&self.sockets_max),
            "1..=65536",
        )?;
        check(
            "rx_buffers",
            u32::from(self.rx_buffers),
            self.rx_buffers.is_power_of_two() && self.rx_buffers <= 32_768,
            "a power of two up to 32768",
        )?;
        check(
            "rx_buffer_bytes",
            self.rx_buffer_bytes,
            (256..=65_536).contains(&self.rx_buffer_bytes)
                && self.rx_buffer_bytes.is_multiple_of(64),
            "256..=65536, a multiple of 64",
        )?;
        check(
            "submission_entries",
            self.submission_entries,
            self.submission_entries.is_power_of_two()
                && (8..=32_768).contains(&self.submission_entries),
            "a power of two, 8..=32768",
        )?;
        check(
            "tx_slot_bytes",
            self.tx_slot_bytes,
            (256..=65_536).contains(&self.tx_slot_bytes) && self.tx_slot_bytes.is_multiple_of(64),
            "256..=65536, a multiple of 64",
        )?;
        check(
            "completions_per_turn_max",
            self.completions_per_turn_max,
            (1..=4096).contains(&self.completions_per_turn_max),
            "1..=4096",
        )
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sockets, {} x {} B receive, {} x {} B transmit, {} completions: {} KiB",
            self.sockets_max,
            self.rx_buffers,
            self.rx_buffer_bytes,
            self.submission_entries,
            self.tx_slot_bytes,
            self.completion_entries(),
            self.memory_bytes() / 1024
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_range_are_named() {
        let good = Limits::default();
        assert_eq!(good.validate(), Ok(()));
        type Spoil = fn(&mut Limits);
        let cases: [(&str, Spoil); 6] = [
            ("sockets_max", |l| l.sockets_max = 0),
            ("rx_buffers", |l| l.rx_buffers = 1000),
            ("rx_buffer_bytes", |l| l.rx_buffer_bytes = 100),
            ("submission_entries", |l| l.submission_entries = 3),
            ("tx_slot_bytes", |l| l.tx_slot_bytes = 70_000),
            ("completions_per_turn_max", |l| l.completions_per_turn_max = 0),
        ];
        for (field, spoil) in cases {
            let mut limits = good.clone();
            spoil(&mut limits);
            assert_eq!(limits.validate().map_err(|e| e.field), Err(field));
        }
    }

    #[test]
    fn memory_is_the_sum_of_its_parts() {
        let limits = Limits::default();
        assert!(limits.memory_bytes() > 1024 * 1664 + 512 * 2048);
        assert!(limits.memory_bytes() < 4 * 1024 * 1024);
        assert!(limits.completion_entries() >= u32::from(limits.rx_buffers) + 4096 + 1024);
        assert!(limits.locked_bytes() < limits.memory_bytes());
        assert!(limits.locked_bytes() >= u64::from(limits.completion_entries()) * 16 + 512 * 64);
    }
}
