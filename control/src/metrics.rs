//! What control shows on `/metrics`, beside what its parts count themselves.

use std::fmt;

use control_core::Metrics as CoreMetrics;
use control_media_layer::MediaStats;
use control_store::{Store, StoreStats};
use link_daemon::metrics::Metrics;
use link_daemon::metrics::prometheus_client::collector::Collector;
use link_daemon::metrics::prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric as _,
};
use link_daemon::metrics::prometheus_client::metrics::counter::{ConstCounter, Counter};
use link_daemon::metrics::prometheus_client::metrics::family::Family;
use link_daemon::metrics::prometheus_client::metrics::gauge::{ConstGauge, Gauge};

use crate::core_task::CoreHandle;

/// `{direction="in|out"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Direction {
    /// `in` or `out`.
    pub direction: &'static str,
}

/// `{peer_region="eu"}`: regions are few and come from certificates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerRegion {
    /// Region.
    pub peer_region: String,
}

/// `{reason="…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// A word out of a fixed set.
    pub reason: &'static str,
}

/// Counters of the link server.
#[derive(Debug, Clone)]
pub struct LinkMetrics {
    /// Messages on control streams.
    pub messages: Family<Direction, Counter>,
    /// Messages that could not be used or delivered.
    pub dropped: Family<Reason, Counter>,
    /// Connected edges.
    pub connected: Family<PeerRegion, Gauge>,
    /// Connections that were refused or replaced.
    pub refused: Family<Reason, Counter>,
    /// Bytes of prompts sent to edges.
    pub prompt_bytes: Counter,
    /// Bytes of recordings received from edges.
    pub recording_bytes: Counter,
}

impl LinkMetrics {
    /// Registers them as `tandem_link_…`.
    pub fn new(metrics: &Metrics) -> Self {
        let link = metrics.for_role("link");
        Self {
            messages: link.counters("control_messages", "Messages on control streams"),
            dropped: link.counters(
                "control_dropped_messages",
                "Messages that could not be used or delivered",
            ),
            connected: link.gauges("connected_edges", "Edges that are connected"),
            refused: link
                .counters("refused_connections", "Connections that were refused or replaced"),
            prompt_bytes: link.counter("prompt_bytes", "Bytes of prompts sent to edges"),
            recording_bytes: link
                .counter("recording_bytes", "Bytes of recordings received from edges"),
        }
    }
}

/// Registers the counters of core and store, which are read when somebody asks.
pub fn register_snapshots(metrics: &Metrics, core: CoreHandle, store: Store) {
    metrics.collector(Box::new(Snapshots { core, store }));
}

/// Registers the counters of the media layer, which are read when somebody asks.
pub fn register_media(metrics: &Metrics, stats: impl Fn() -> MediaStats + Send + Sync + 'static) {
    metrics.collector(Box::new(MediaSnapshots(Box::new(stats))));
}

struct MediaSnapshots(Box<dyn Fn() -> MediaStats + Send + Sync>);

impl fmt::Debug for MediaSnapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MediaSnapshots")
    }
}

impl Collector for MediaSnapshots {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = (self.0)();
        for (name, help, value) in [
            ("tandem_media_requests", "Media asked for", stats.requests),
            ("tandem_media_hits", "Answered from the cache without asking", stats.hits),
            ("tandem_media_revalidated", "Answered after a 304", stats.revalidated),
            ("tandem_media_stale", "Answered with stale media", stats.stale),
            ("tandem_media_collapsed", "Waited for another's request", stats.collapsed),
            ("tandem_media_origin_requests", "Requests to origins", stats.origin_requests),
            ("tandem_media_transcodes", "Conversions in this process", stats.transcodes),
            (
                "tandem_media_speech_requests",
                "Texts given to speech services",
                stats.speech_requests,
            ),
            ("tandem_media_failures", "Failures", stats.failures),
        ] {
            counter(&mut encoder, name, help, value)?;
        }
        gauge(&mut encoder, "tandem_media_cache_bytes", "Bytes kept on disk", stats.cache_bytes)
    }
}

struct Snapshots {
    core: CoreHandle,
    store: Store,
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshots")
    }
}

impl Collector for Snapshots {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let core = self.core.metrics();
        for (name, help, value) in core_counters(&core) {
            counter(&mut encoder, name, help, value)?;
        }
        gauge(&mut encoder, "tandem_control_sessions", "Sessions that exist", core.sessions)?;
        let store = self.store.stats();
        for (name, help, value) in store_counters(&store) {
            counter(&mut encoder, name, help, value)?;
        }
        let waiting = store.queue_jobs;
        gauge(&mut encoder, "tandem_control_store_queue_jobs", "Jobs that wait", waiting)
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn core_counters(core: &CoreMetrics) -> [(&'static str, &'static str, u64); 18] {
    [
        ("tandem_control_sessions_begun", "Sessions begun", core.sessions_begun),
        ("tandem_control_sessions_ended", "Sessions ended", core.sessions_ended),
        (
            "tandem_control_calls_unknown_number",
            "Inbound calls to unknown numbers",
            core.unknown_number,
        ),
        ("tandem_control_calls_overload", "Calls refused for lack of room", core.overload),
        ("tandem_control_events_repeated", "Events seen before", core.events_repeated),
        ("tandem_control_events_early", "Events with a hole before them", core.events_early),
        (
            "tandem_control_events_unknown",
            "Events about unknown sessions or legs",
            core.events_unknown,
        ),
        ("tandem_control_events_unusable", "Events that could not be read", core.events_unusable),
        ("tandem_control_commands_refused", "Commands refused by edges", core.commands_refused),
        ("tandem_control_commands_resent", "Commands sent again", core.commands_resent),
        ("tandem_control_results_stale", "Results nobody waited for", core.results_stale),
        ("tandem_control_webhook_requests", "Requests for instructions", core.fetches),
        (
            "tandem_control_webhook_failures",
            "Requests without a usable document",
            core.fetches_failed,
        ),
        ("tandem_control_fallbacks_taken", "Fallbacks that took over", core.fallbacks_taken),
        ("tandem_control_sessions_swept", "Sessions ended by the sweeper", core.swept),
        ("tandem_control_errors_internal", "Sessions ended by a defect", core.internal_errors),
        ("tandem_control_legs_lost", "Legs lost with their edge", core.legs_lost),
        (
            "tandem_control_states_unreadable",
            "Stored sessions that could not be read at the start",
            core.states_unreadable,
        ),
    ]
}

fn store_counters(store: &StoreStats) -> [(&'static str, &'static str, u64); 4] {
    [
        ("tandem_control_store_commits", "Transactions committed", store.commits),
        ("tandem_control_store_jobs", "Jobs committed", store.jobs),
        ("tandem_control_store_jobs_failed", "Jobs that failed", store.jobs_failed),
        ("tandem_control_store_jobs_refused", "Jobs refused for lack of room", store.jobs_refused),
    ]
}
