//! RTCP (RFC 3550 §6): reading compound packets without allocation and writing them.

pub mod bye;
pub mod compound;
pub mod ntp;
pub mod report;
pub mod sdes;
pub mod write;

pub use compound::{Compound, Packet, RtcpParseError};
pub use ntp::{LastSenderReport, NtpTime, round_trip_us};
pub use report::{ReportBlock, SenderInfo};
pub use write::CompoundWriter;

/// Packet type of a sender report.
pub const PT_SR: u8 = 200;
/// Packet type of a receiver report.
pub const PT_RR: u8 = 201;
/// Packet type of a source description.
pub const PT_SDES: u8 = 202;
/// Packet type of a BYE.
pub const PT_BYE: u8 = 203;

#[cfg(test)]
mod tests;
