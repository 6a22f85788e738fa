//! What the admin port shows of signalling: copied by the signalling thread a few times a second,
//! so that a slow reader of `/metrics` or `/calls` cannot hold up a call. The list of legs, which is long
//! where there are thousands, is copied only if somebody has asked for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_core::view::LegView;
use edge_core::{Counters, EdgeCore};
use link_proto::message::Load;
use link_proto::table::ResourceUse;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::media_ports::MediaPorts;

/// So long a reader waits for the list of legs: far longer than it takes until the next copy.
const LEGS_WITHIN: Duration = Duration::from_secs(5);

/// One copy of everything.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Of the call core.
    pub counters: Counters,
    /// Of the SIP endpoint.
    pub sip: sip_core::Counters,
    /// Live legs.
    pub legs: u64,
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
pub struct Snapshot {
    view: Mutex<View>,
    legs_asked: AtomicBool,
    legs: watch::Sender<Vec<LegView>>,
}

impl Snapshot {
    /// Replaces the copy.
    pub fn update(&self, core: &EdgeCore, ports: &MediaPorts, now: Instant) {
        let load = core.load();
        let view = View {
            counters: *core.counters(),
            sip: *core.sip_counters(),
            legs: core.legs_live() as u64,
            legs_max: load.legs_max,
            draining: load.draining,
            used: load.used,
            port_pairs_used: ports.used(),
            port_pairs_left: ports.left(),
        };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
        if self.legs_asked.swap(false, Ordering::Relaxed) {
            self.legs.send_replace(core.legs(now));
        }
    }

    /// The copy.
    pub fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For the link, once a second.
    pub fn load(&self) -> Load {
        let view = self.view();
        Load {
            legs: view.legs,
            legs_max: view.legs_max,
            draining: view.draining,
            used: view.used,
            routes: Vec::new(),
        }
    }

    /// For `/calls`: every leg at the next copy.
    pub async fn calls(&self) -> Value {
        let mut legs = self.legs.subscribe();
        self.legs_asked.store(true, Ordering::Relaxed);
        if tokio::time::timeout(LEGS_WITHIN, legs.changed()).await.is_err() {
            return json!({ "error": "signalling does not answer" });
        }
        let shown = legs.borrow().iter().map(shown).collect();
        Value::Array(shown)
    }
}

fn shown(leg: &LegView) -> Value {
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
}
