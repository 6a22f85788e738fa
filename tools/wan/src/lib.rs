//! A wide-area network in a box: delay, jitter, loss, duplication, reordering, corruption, rate.
//!
//! Two halves:
//!
//! * [`link`] is sans-IO. A [`Link`] carries items of any type one way, a [`Path`] both ways; both
//!   take `now` as an argument and draw from one seed, so that the simulator and the relay behave
//!   alike and a run can be repeated.
//! * [`relay`] moves real UDP datagrams between two sets of ports through one [`Path`] per mapping,
//!   on a thread of its own, woken by timerfd (lateness well below a millisecond on an idle core).
//!
//! ```text
//!  client ──► listen 127.0.0.1:7001 ──[ there: delay, loss … ]──► target 127.0.0.1:7000
//!         ◄──                       ◄──[ back:  delay, loss … ]──
//! ```
//!
//! Each client address gets an upstream socket of its own, as a NAT would give it.

pub mod link;
pub mod relay;

pub use link::{
    ConfigError, Delivery, Direction, Link, LinkConfig, LinkCounters, Path, PathConfig,
};
pub use relay::{Mapping, MappingStats, Relay, RelayError, RelayStats};
