//! The edge as a process, its calls set up over SIP by a route without instructions: no control
//! node has a part in it.

use std::net::UdpSocket;
use std::time::Duration;

use tandem_rig::{EdgePlan, Rig, RoutePlan};

use super::sip::SipCalls;
use super::{Ends, Place, Running};
use crate::machine::{pinned_script, want_descriptors};

/// Numbers of the bench begin so.
pub const PREFIX: &str = "+1777";

/// More of the configuration's `[media]`: the core sleeps whenever it can, as under the peers.
pub const ASLEEP: &str = "keep_awake = \"never\"\n";

/// An edge for so many calls of the bench, on loopback, with a route to `answerer`.
///
/// # Errors
/// Of the socket.
pub fn plan(calls: usize, answerer: &UdpSocket) -> anyhow::Result<EdgePlan> {
    let mut plan = EdgePlan::new("edge-bench", "eu");
    // Some more than needed: a call that is just ending still has its legs.
    plan.legs_max = u16::try_from(calls * 2 + 64)?;
    plan.calls_per_s_max = 100_000;
    plan.routes = vec![RoutePlan {
        prefix: PREFIX.to_owned(),
        node: plan.node.clone(),
        uri: format!("sip:{{number}}@{}", answerer.local_addr()?),
        without_instructions: true,
    }];
    Ok(plan)
}

/// Starts an edge on its core and calls through it. `media` is more of that part of its configuration.
///
/// # Errors
/// If it does not come up, or a call is refused.
pub fn start(place: &Place, calls: usize, ends: &Ends, media: &str) -> anyhow::Result<Running> {
    // Four sockets a call.
    want_descriptors(calls as u64 * 4 + 256)?;
    let answerer = UdpSocket::bind("127.0.0.1:0")?;
    let mut plan = plan(calls, &answerer)?;
    plan.media_timeout_s = 3_600;
    plan.media_more = media.to_owned();
    let folder = tempfile::tempdir()?;
    let program = pinned_script(folder.path(), &place.tandem, place.cores.system)?;
    let rig = Rig::temporary(&program)?;
    let edge = rig.edge(&plan)?;
    let mut sip = SipCalls::new(edge.sip, answerer)?;
    let legs = sip.connect(calls, ends, Duration::from_secs(60))?;
    let pid = edge.process.id();
    let at = edge.sip;
    Ok(Running { pid, sip: at, legs, guard: Box::new((sip, edge, rig, folder)) })
}
