//! Daemons pinned to their cores, for benches with real phones.

use std::net::SocketAddr;
use std::time::Duration;

use tandem_rig::{Control, ControlPlan, Edge, EdgePlan, Rig, RoutePlan};

use crate::machine::{Memory, memory, pause, pinned_script, process_cpu};
use crate::run::Context;

/// Numbers that lead to the answerer.
pub const CALLEE: &str = "+17775550101";
/// Name of the edge.
pub const EDGE: &str = "edge-bench";

/// A running edge, and control if the calls need it. The fields end in their order.
pub struct World {
    /// The edge, on the core of the system.
    pub edge: Edge,
    /// Control, on the core of the load: it has no part in the media.
    pub control: Option<Control>,
    _rig: Rig,
    _folder: tempfile::TempDir,
}

/// A route from [`CALLEE`] to the answerer.
pub fn route(answerer: SocketAddr, without_instructions: bool) -> RoutePlan {
    RoutePlan {
        prefix: CALLEE.to_owned(),
        node: EDGE.to_owned(),
        uri: format!("sip:{{number}}@{answerer}"),
        without_instructions,
    }
}

/// An edge for so many legs.
pub fn edge_plan(legs_max: u16) -> EdgePlan {
    let mut plan = EdgePlan::new(EDGE, "eu");
    plan.legs_max = legs_max;
    plan.calls_per_s_max = 10_000;
    plan
}

impl World {
    /// Starts the daemons.
    ///
    /// # Errors
    /// With the end of their logs.
    pub fn start(
        context: &Context,
        control: Option<&ControlPlan>,
        mut edge: EdgePlan,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("rig");
        let control = match control {
            Some(plan) => {
                let program = pinned_script(folder.path(), context.tandem(), context.cores.load)?;
                let control = Rig::in_folder(&data, &program)?.control(plan)?;
                edge.controls = vec![(control.node.clone(), control.link)];
                Some(control)
            }
            None => None,
        };
        let program = pinned_script(folder.path(), context.tandem(), context.cores.system)?;
        let rig = Rig::in_folder(&data, &program)?;
        let edge = rig.edge(&edge)?;
        Ok(Self { edge, control, _rig: rig, _folder: folder })
    }

    /// Memory of the edge.
    ///
    /// # Errors
    /// If it has ended.
    pub fn edge_memory(&self) -> anyhow::Result<Memory> {
        memory(self.edge.process.id())
    }

    /// CPU of the daemons and of this process since their start, seconds.
    ///
    /// # Errors
    /// If one has ended.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        let mut sum = process_cpu(std::process::id())? + process_cpu(self.edge.process.id())?;
        if let Some(control) = &self.control {
            sum += process_cpu(control.process.id())?;
        }
        Ok(sum.as_secs_f64())
    }

    /// A counter of the edge's first media thread.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn media(&self, name: &str) -> anyhow::Result<i64> {
        Ok(self.edge.metric(&format!("tandem_edge_media_{name}_total"))? as i64)
    }

    /// All packets that the edge dropped on purpose, by cause.
    ///
    /// # Errors
    /// If the admin port does not answer.
    pub fn drops(&self) -> anyhow::Result<Vec<(String, i64)>> {
        self.counters("tandem_edge_media_dropped_")
    }

    /// Calls that the edge refused, by cause.
    ///
    /// # Errors
    /// If the admin port does not answer.
    pub fn refusals(&self) -> anyhow::Result<Vec<(String, i64)>> {
        let mut refused = self.counters("tandem_edge_calls_refused_")?;
        refused.extend(self.counters("tandem_edge_calls_shed_")?);
        Ok(refused)
    }

    fn counters(&self, prefix: &str) -> anyhow::Result<Vec<(String, i64)>> {
        let url = format!("http://{}/metrics", self.edge.admin);
        let page = tandem_rig::http::get(&url, None)?.text();
        let found = page.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix(prefix)?.split_once(' ')?;
            Some((name.trim_end_matches("_total").to_owned(), value.parse::<f64>().ok()? as i64))
        });
        Ok(found.collect())
    }
}

/// The media threads copy their counters once a second.
pub fn wait_for_counters() {
    pause(Duration::from_millis(2_200));
}
