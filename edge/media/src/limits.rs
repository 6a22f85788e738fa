//! Every capacity of a worker, the memory they add up to, and the constants of its behaviour.

use std::fmt;

use media_core::frame::FRAME_SAMPLES_MAX;
use media_core::jitter::JitterConfig;

/// Ports that one port may feed.
pub const SINKS_MAX: usize = 8;
/// Programs that may listen to one port.
pub const LISTENERS_MAX: usize = 8;
/// Recordings of what one port sends.
pub const TAPS_MAX: usize = 4;
/// Digits that wait to be sent as telephone-event on one port.
pub const DIGITS_WAITING_MAX: usize = 16;
/// Digits after which an unlimited collection ends.
pub const COLLECT_DIGITS_MAX: usize = 256;
/// Longest packet towards an endpoint in ms.
pub const PTIME_MS_MAX: u32 = 120;
/// Most repetitions of a prompt.
pub const PROMPT_TIMES_MAX: u32 = 1_000;
/// Largest packet that can be copied for several receivers, in bytes.
pub const COPY_BYTES_MAX: usize = 2_048;
/// A relayed source that was quiet for so long in µs is filled up with silence until it goes on …
pub const RELAY_QUIET_US: u64 = 100_000;
/// … or for twice the time between its last two packets, if they were not further apart than this, in
/// µs: an endpoint may send packets of 120 ms.
pub const RELAY_SPACING_US_MAX: u64 = 150_000;
/// A thread that is further behind with what has arrived, in µs, fills up nothing until it has caught up.
pub const FILL_BEHIND_US_MAX: u64 = 50_000;
/// Times of watchdogs (a quiet source, media timeout, RTCP report) are rounded up to a multiple of
/// this, in µs.
pub const WATCHDOG_GRID_US: u64 = 10_000;
/// A leg that was never sent anything is filled with silence so many µs after it could have been,
/// if no program or relayed source came first.
pub const FIRST_FILL_US: u64 = 40_000;
/// Deadlines of ports handled in one call, so that packets get their turn.
pub const DEADLINES_PER_CALL_MAX: usize = 512;
/// Frames sent at once after a stall; beyond that the rhythm starts anew.
pub const FRAMES_BEHIND_MAX: u64 = 3;
/// Usual time between RTCP reports in µs (RFC 3550 §6.2); varied between half and one and a half.
pub const RTCP_INTERVAL_US: u64 = 5_000_000;
/// The same digit by RTP and by signalling within so many µs is one digit.
pub const SAME_DIGIT_US: u64 = 1_000_000;
/// Length of a digit that we send, in ms.
pub const DIGIT_MS: u32 = 100;
/// Pause behind a digit that we send, in ms.
pub const DIGIT_PAUSE_MS: u32 = 80;

const _: () = assert!(PTIME_MS_MAX as usize * 8 <= FRAME_SAMPLES_MAX);
const _: () = assert!(RELAY_QUIET_US >= 60_000, "jitter must not be filled up");
const _: () = assert!(COPY_BYTES_MAX >= 12 + PTIME_MS_MAX as usize * 8);

/// The jitter buffer of one recorded port: up to 60 ms per packet, 40 to 120 ms of delay; with less
/// the packet behind a lost one comes too late to tell loss from silence.
pub(crate) const RECORD_JITTER: JitterConfig = JitterConfig {
    clock_rate_hz: 8_000,
    packets_max: 32,
    payload_bytes_max: 480,
    target_ms: 40,
    adaptive: true,
    target_ms_min: 40,
    target_ms_max: 120,
};

/// Capacities of one worker; all memory for packets is taken at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Ports of the whole edge: the range of [`crate::command::PortKey::index`].
    pub ports_edge_max: u32,
    /// Ports on this worker.
    pub ports_max: u32,
    /// Programs that run at once.
    pub ops_max: u32,
    /// Recordings that run at once.
    pub recordings_max: u32,
    /// Ports that are searched for DTMF in the audio at once.
    pub detectors_max: u32,
}

impl WorkerLimits {
    /// Limits for an edge of so many ports, all of which may come to this worker: three programs
    /// for two ports, and recordings and DTMF in the audio for some of them.
    #[must_use]
    pub const fn for_ports(ports_max: u32) -> Self {
        Self {
            ports_edge_max: ports_max,
            ports_max,
            ops_max: ports_max / 2 * 3 + 64,
            recordings_max: ports_max / 16 + 8,
            detectors_max: ports_max / 8 + 8,
        }
    }

    /// Bytes taken at start.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let size = |count: u32, bytes: usize| u64::from(count) * bytes as u64;
        let track = RECORD_JITTER.packets_max * (RECORD_JITTER.payload_bytes_max + 32);
        size(self.ports_edge_max, 4)
            + size(self.ports_max, crate::table::SLOT_BYTES + 16 + 4 + 8)
            + size(self.ops_max, crate::op::OP_BYTES + 64)
            + size(self.recordings_max, crate::path::record::TRACKS_BYTES + 2 * track)
            + size(self.detectors_max, size_of::<media_core::dtmf::detect::DtmfDetector>())
    }
}

impl fmt::Display for WorkerLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ports, {} programs, {} recordings, {} DTMF detectors: {} KiB",
            self.ports_max,
            self.ops_max,
            self.recordings_max,
            self.detectors_max,
            self.memory_bytes() / 1024
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_per_bridged_call_is_bounded() {
        // Two legs, of which each may have a channel, and their share of all pools.
        let limits = WorkerLimits::for_ports(4_000);
        let per_call = limits.memory_bytes() / 1_000;
        assert!(per_call < 24 * 1024, "{per_call} bytes");
        let ports = crate::table::SLOT_BYTES * 2;
        assert!(ports < 4 * 1024, "{ports} bytes of two legs");
    }
}
