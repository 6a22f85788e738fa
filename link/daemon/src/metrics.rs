//! The process's metrics under one naming rule: `tandem_<role>_<area>_<what>_<unit>[_total]`.
//!
//! Names and help are checked when they are registered, at the start of the process. Labels are
//! enums or names from the configuration; never a call, an account or an address.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub use prometheus_client;

/// Buckets in seconds for what happens within a call: 0.5 ms to 30 s.
pub const SECONDS_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

/// The metrics of one role. Clones share one registry.
#[derive(Clone)]
pub struct Metrics {
    role: &'static str,
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// For `role`: `edge`, `control`, `link`, …
    pub fn new(role: &'static str) -> Self {
        Self { role, registry: Arc::new(Mutex::new(Registry::default())) }
    }

    /// The same registry under another role's names, for parts that several daemons share.
    pub fn for_role(&self, role: &'static str) -> Self {
        Self { role, registry: self.registry.clone() }
    }

    /// Registers any metric. `name` is `<area>_<what>_<unit>` without `_total`.
    ///
    /// # Panics
    /// If the name or help breaks the rule: a defect that shows at the first start.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let full = format!("tandem_{}_{name}", self.role);
        assert!(name_is_good(&full), "metric name {full:?}");
        assert!(!help.is_empty() && !help.ends_with('.'), "help of metric {full:?}");
        self.with_registry(|registry| registry.register(full, help, metric.clone()));
        metric
    }

    /// A counter; `_total` is appended when it is shown.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// A counter per label set; `_total` is appended when it is shown.
    pub fn counters<L>(&self, name: &str, help: &str) -> Family<L, Counter>
    where
        L: EncodeLabelSet + Clone + Eq + std::hash::Hash + Send + Sync + Debug + 'static,
    {
        self.register(name, help, Family::default())
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// A gauge per label set.
    pub fn gauges<L>(&self, name: &str, help: &str) -> Family<L, Gauge>
    where
        L: EncodeLabelSet + Clone + Eq + std::hash::Hash + Send + Sync + Debug + 'static,
    {
        self.register(name, help, Family::default())
    }

    /// A histogram in seconds with [`SECONDS_BUCKETS`]; the name ends in `_seconds`.
    pub fn seconds(&self, name: &str, help: &str) -> Histogram {
        assert!(name.ends_with("_seconds"), "histogram {name:?} has no unit");
        self.register(name, help, Histogram::new(SECONDS_BUCKETS))
    }

    /// A histogram in seconds per label set.
    pub fn seconds_by<L>(&self, name: &str, help: &str) -> Family<L, Histogram>
    where
        L: EncodeLabelSet + Clone + Eq + std::hash::Hash + Send + Sync + Debug + 'static,
    {
        assert!(name.ends_with("_seconds"), "histogram {name:?} has no unit");
        let family =
            Family::<L, Histogram>::new_with_constructor(|| Histogram::new(SECONDS_BUCKETS));
        self.register(name, help, family)
    }

    /// Registers something that fills in its values when metrics are read.
    pub fn collector(&self, collector: Box<dyn Collector>) {
        self.with_registry(|registry| registry.register_collector(collector));
    }

    /// Everything in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a `String` cannot fail; what a broken collector leaves is still shown.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }

    fn with_registry<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        f(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("role", &self.role).finish_non_exhaustive()
    }
}

/// Lower-case words joined by single underscores, no `_total` (the library appends it).
fn name_is_good(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    name.split('_').count() >= 4 && name.split('_').all(word) && !name.ends_with("_total")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::EncodeLabelSet;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Result {
        result: &'static str,
    }

    #[test]
    fn names_follow_the_rule() {
        for (name, good) in [
            ("tandem_edge_rtp_packets", true),
            ("tandem_edge_rtp_packets_total", false),
            ("tandem_edge_Rtp_packets", false),
            ("tandem_edge__packets", false),
            ("tandem_edge_rtp", false),
        ] {
            assert_eq!(name_is_good(name), good, "{name}");
        }
    }

    #[test]
    fn values_are_shown_with_role_and_labels() {
        let metrics = Metrics::new("control");
        metrics.counter("link_frames", "Frames").inc_by(3);
        let by_result = metrics.counters::<Result>("webhook_requests", "Requests");
        by_result.get_or_create(&Result { result: "ok" }).inc();
        metrics.for_role("link").seconds("round_trip_seconds", "Round trip").observe(0.003);
        let text = metrics.encode();
        for line in [
            "tandem_control_link_frames_total 3",
            "tandem_control_webhook_requests_total{result=\"ok\"} 1",
            "tandem_link_round_trip_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
