//! What the end-to-end tests share: two regions of real daemons, an application server, phones.
//!
//! * [`Setup`] — what a test's world is to be like; [`Setup::begin`] starts it.
//! * [`World`] — the running daemons, and shorthand for calling, asking and waiting.
//! * [`audio`] — files to play, and what is in a file that was recorded.
//! * [`link`] — the other end of a link, by hand.
//! * [`netns`] — a network of its own for programs that need one.
//! * [`raw`] — SIP by hand, for what no proper phone would send.
//! * [`signature`] — signatures of webhooks, computed anew.
//! * [`tools`] — outside programs.

pub mod audio;
pub mod link;
pub mod netns;
pub mod raw;
pub mod signature;
pub mod tools;
pub mod world;

pub use world::{Setup, World};

/// Called by the tests' callers; runs `/start`.
pub const NUMBER: &str = "+15550001";
/// Who calls.
pub const ALICE: &str = "+15559001";
/// Leads to the callee in the region.
pub const BOB: &str = "+15550101";
/// Leads to the callee behind the core region.
pub const CAROL: &str = "+15560101";
/// Voice of the caller.
pub const ALICE_HZ: f64 = 440.0;
/// Voice of the callee.
pub const BOB_HZ: f64 = 620.0;
/// Tones that every application server has as `/700.wav`, `/900.wav`, `/1100.wav`: 800 ms each.
pub const PROMPTS_HZ: [f64; 3] = [700.0, 900.0, 1100.0];

/// Largest spacing of RTP packets that an endpoint may see, in milliseconds (LAT-07).
pub const GAP_MAX_MS: f64 = 60.0;

/// That no RTP packet came later than [`GAP_MAX_MS`] allows. A machine that stalls makes the phone late
/// as well: by how much it knows from its own sending, and that much is nobody's gap.
///
/// # Panics
/// If one did.
pub fn assert_no_gap(report: &tandem_load::PhoneReport) {
    let gap_ms = report.received.longest_gap().map_or(f64::INFINITY, |gap| gap.0);
    let stall_ms = report.sent.late_max_us as f64 / 1e3;
    let phone = &report.phone;
    assert!(gap_ms <= GAP_MAX_MS + stall_ms, "{phone}: {gap_ms} ms, own stalls {stall_ms} ms");
}

/// That media came without a gap, without a loss, in one stream, and without a re-INVITE.
///
/// # Panics
/// If not.
pub fn assert_undisturbed(report: &tandem_load::PhoneReport) {
    assert_no_gap(report);
    let seen = (report.received.lost, report.received.ssrc_changes, report.reinvites);
    assert_eq!(seen, (0, 0, 0), "{}: lost, other SSRC, re-INVITE", report.phone);
}

/// Lets time pass: for conversations that have to last.
#[allow(clippy::disallowed_methods)]
pub fn pause_ms(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}
