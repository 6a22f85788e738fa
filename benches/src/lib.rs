//! What Tandem costs, measured against what else there is on the same machine in the same run.
//!
//! * [`system`] — packets: generator, the systems that forward (edge, rtpengine, the floor), and the
//!   relay benches. Figures are ratios between systems that were measured alternately.
//! * [`calls`] — whole daemons under calls: 500 at once, set-up overhead, churn.
//! * [`bridge`] — a media worker without sockets, for what a packet costs in between.
//! * [`machine`], [`gate`] — cores, clocks, and whether the machine was quiet enough to believe it.
//! * [`report`], [`plot`], [`compare`] — tables, dated results, drawings, differences between runs.

pub mod bridge;
pub mod calls;
pub mod compare;
pub mod gate;
pub mod machine;
pub mod plot;
pub mod report;
pub mod run;
pub mod system;
