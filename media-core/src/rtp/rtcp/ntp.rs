//! NTP time as RTCP carries it, and round-trip times (RFC 3550 §4 and §6.4.1).

/// Seconds from 1900 (NTP) to 1970 (Unix).
const NTP_UNIX_OFFSET_S: u64 = 2_208_988_800;

/// NTP timestamp in 32.32 fixed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From wall time in microseconds since 1970. Wraps in 2036 as NTP does.
    #[must_use]
    pub const fn from_unix_us(unix_us: u64) -> Self {
        let seconds = (unix_us / 1_000_000).wrapping_add(NTP_UNIX_OFFSET_S) as u32;
        let fraction = ((unix_us % 1_000_000) << 32) / 1_000_000;
        Self(((seconds as u64) << 32) | fraction)
    }

    /// The middle 32 bits, unit 1/65536 s: what LSR carries.
    #[must_use]
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// DLSR (unit 1/65536 s) of a delay in microseconds; saturates.
#[must_use]
pub fn dlsr_from_us(delay_us: u64) -> u32 {
    u32::try_from(u128::from(delay_us) * 65_536 / 1_000_000).unwrap_or(u32::MAX)
}

/// Round-trip time in microseconds from a report block that came at `now`: `now - lsr - dlsr`.
///
/// `None` when the peer has had no sender report from us (`lsr` 0) or the result is negative or
/// longer than half the circle (nine hours), as broken clocks produce.
#[must_use]
pub fn round_trip_us(now: NtpTime, lsr: u32, dlsr: u32) -> Option<u64> {
    if lsr == 0 {
        return None;
    }
    let since_report = now.middle().wrapping_sub(lsr);
    let round_trip = since_report.checked_sub(dlsr)?;
    if since_report > u32::MAX / 2 {
        return None;
    }
    Some(u64::from(round_trip) * 1_000_000 / 65_536)
}

/// The last sender report of the peer: source of LSR and DLSR in our report blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastSenderReport {
    last: Option<(u32, u64)>,
}

impl LastSenderReport {
    /// Notes a report that came at `arrival_us` (monotonic).
    pub const fn on_report(&mut self, ntp: NtpTime, arrival_us: u64) {
        self.last = Some((ntp.middle(), arrival_us));
    }

    /// LSR and DLSR for a block sent at `now_us`; zeros before the first report (RFC 3550 §6.4.1).
    #[must_use]
    pub fn lsr_and_dlsr(&self, now_us: u64) -> (u32, u32) {
        self.last.map_or((0, 0), |(lsr, at_us)| (lsr, dlsr_from_us(now_us.saturating_sub(at_us))))
    }
}
