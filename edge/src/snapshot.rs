//! What the admin port shows of signalling: copied by the signalling thread a few times a second,
//! so that a slow reader of `/metrics` or `/calls` cannot hold up a call.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use edge_core::view::LegView;
use edge_core::{Counters, EdgeCore};
use link_proto::message::Load;
use link_proto::table::ResourceUse;
use serde_json::{Value, json};

use crate::media_ports::MediaPorts;

/// One copy of everything.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Of the call core.
    pub counters: Counters,
    /// Of the SIP endpoint.
    pub sip: sip_core::Counters,
    /// Live legs.
    pub legs: Vec<LegView>,
    /// Configured maximum.
    pub legs_max: u64,
    /// Takes no new calls.
    pub draining: bool,
    /// Media resources in use.
    pub used: ResourceUse,
    /// Port pairs in use.
    pub port_pairs_used: usize,
    /// Port pairs left.
    pub port_pairs_left: usize,
}

/// The place of the copy.
#[derive(Debug, Default)]
pub struct Snapshot(Mutex<View>);

impl Snapshot {
    /// Replaces the copy.
    pub fn update(&self, core: &EdgeCore, ports: &MediaPorts, now: Instant) {
        let load = core.load();
        let view = View {
            counters: *core.counters(),
            sip: *core.sip_counters(),
            legs: core.legs(now),
            legs_max: load.legs_max,
            draining: load.draining,
            used: load.used,
            port_pairs_used: ports.used(),
            port_pairs_left: ports.left(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// The copy.
    pub fn view(&self) -> View {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For the link, once a second.
    pub fn load(&self) -> Load {
        let view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Load {
            legs: view.legs.len() as u64,
            legs_max: view.legs_max,
            draining: view.draining,
            used: view.used,
            routes: Vec::new(),
        }
    }

    /// For `/calls`.
    pub fn calls(&self) -> Value {
        let legs = self.view().legs;
        let shown = legs.iter().map(|leg| {
            json!({
                "leg": leg.leg.to_string(),
                "session": leg.session.to_string(),
                "inbound": leg.inbound,
                "state": format!("{:?}", leg.state).to_lowercase(),
                "peer": leg.peer.map(|peer| peer.to_string()),
                "codec": leg.codec.sdp_name(),
                "held": leg.held,
                "worker": leg.worker,
                "answered_ms": leg.answered_ms,
                "sip_call_id": leg.sip_call_id,
            })
        });
        Value::Array(shown.collect())
    }
}
