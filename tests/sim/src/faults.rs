//! What goes wrong in a run, drawn from its seed.

use rand::RngExt as _;
use rand::rngs::StdRng;
use tandem_wan::LinkConfig;

/// Kinds of faults, for the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Datagrams lost.
    Loss,
    /// Datagrams doubled.
    Duplication,
    /// Datagrams out of order.
    Reordering,
    /// The link between an edge and control was cut.
    LinkCut,
    /// Control was killed and started again.
    ControlCrash,
    /// Control was killed after a commit, before its effects.
    ControlCrashAfterCommit,
    /// An edge was killed and started again.
    EdgeCrash,
    /// A web server was slow.
    WebSlow,
    /// A web server failed.
    WebBroken,
    /// A status callback was refused.
    CallbackBroken,
    /// A prompt could not be had.
    PromptFailed,
    /// No sockets for a leg.
    PortsExhausted,
    /// The wall clock was set.
    ClockStep,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Loss,
        Self::Duplication,
        Self::Reordering,
        Self::LinkCut,
        Self::ControlCrash,
        Self::ControlCrashAfterCommit,
        Self::EdgeCrash,
        Self::WebSlow,
        Self::WebBroken,
        Self::CallbackBroken,
        Self::PromptFailed,
        Self::PortsExhausted,
        Self::ClockStep,
    ];
}

/// What may happen in a run. Probabilities are per mille and per occasion.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// SIP lines.
    pub sip: LinkConfig,
    /// RTP lines.
    pub rtp: LinkConfig,
    /// Trunk line.
    pub trunk: LinkConfig,
    /// Delay of the link, one way, in ms: least and most.
    pub link_delay_ms: (u64, u64),
    /// Cuts of links.
    pub link_cuts: u32,
    /// Kills of control.
    pub control_crashes: u32,
    /// Kills of edges.
    pub edge_crashes: u32,
    /// Steps of the wall clock.
    pub clock_steps: u32,
    /// Of requests to web servers.
    pub web_slow: u32,
    /// Of requests to web servers.
    pub web_broken: u32,
    /// Of callbacks.
    pub callback_broken: u32,
    /// Of prompts, at the media layer or at an edge.
    pub prompt_failed: u32,
    /// Of allocations.
    pub ports_exhausted: u32,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        let line = LinkConfig { delay_ms: 5.0, ..LinkConfig::default() };
        Self {
            sip: line,
            rtp: line,
            trunk: LinkConfig { delay_ms: 80.0, ..LinkConfig::default() },
            link_delay_ms: (80, 82),
            link_cuts: 0,
            control_crashes: 0,
            edge_crashes: 0,
            clock_steps: 0,
            web_slow: 0,
            web_broken: 0,
            callback_broken: 0,
            prompt_failed: 0,
            ports_exhausted: 0,
        }
    }

    /// Each kind is switched on by its own dice, so that runs differ in kind and not only in
    /// detail.
    pub fn draw(rng: &mut StdRng) -> Self {
        let mut faults = Self::none();
        let mut on = |percent: u32| rng.random_range(0..100) < percent;
        let (lossy, doubles, reorders, jitters) = (on(70), on(40), on(40), on(60));
        let (cuts, crashes, edges, steps) = (on(40), on(45), on(20), on(30));
        let (slow, broken, callbacks) = (on(30), on(30), on(40));
        let (prompts, ports) = (on(25), on(20));
        let sip = &mut faults.sip;
        if lossy {
            sip.loss = f64::from(rng.random_range(1..120u32)) / 1_000.0;
        }
        if doubles {
            sip.duplicate = f64::from(rng.random_range(1..100u32)) / 1_000.0;
        }
        if reorders {
            sip.reorder = f64::from(rng.random_range(1..100u32)) / 1_000.0;
            sip.reorder_ms = f64::from(rng.random_range(1..300u32));
        }
        if jitters {
            sip.delay_ms = f64::from(rng.random_range(5..150u32));
            sip.jitter_ms = sip.delay_ms * 0.8;
        }
        faults.rtp = LinkConfig {
            loss: sip.loss.min(0.03),
            duplicate: sip.duplicate.min(0.02),
            reorder: sip.reorder.min(0.02),
            reorder_ms: 25.0,
            delay_ms: sip.delay_ms.min(60.0),
            jitter_ms: sip.jitter_ms.min(10.0),
            ..LinkConfig::default()
        };
        faults.trunk.loss = faults.rtp.loss / 2.0;
        if jitters {
            let low = rng.random_range(1..120);
            faults.link_delay_ms = (low, low + rng.random_range(1..200));
        }
        let mut count = |on: bool, most: u32| if on { rng.random_range(1..=most) } else { 0 };
        faults.link_cuts = count(cuts, 4);
        faults.control_crashes = count(crashes, 4);
        faults.edge_crashes = count(edges, 2);
        faults.clock_steps = count(steps, 3);
        faults.web_slow = count(slow, 200);
        faults.web_broken = count(broken, 200);
        faults.callback_broken = count(callbacks, 400);
        faults.prompt_failed = count(prompts, 150);
        faults.ports_exhausted = count(ports, 150);
        faults
    }

    /// The network as it is after healing.
    pub fn heal(&mut self) {
        let healed = Self::none();
        *self = healed;
    }

    /// Nothing but the network and the wall clock disturbs: calls go as written.
    pub fn is_calm(&self) -> bool {
        self.link_cuts == 0
            && self.control_crashes == 0
            && self.edge_crashes == 0
            && self.web_slow == 0
            && self.web_broken == 0
            && self.prompt_failed == 0
            && self.ports_exhausted == 0
    }
}
