//! The edge's metrics: plain counters of cores and threads, read when somebody asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use link_daemon::metrics::Metrics;
use link_daemon::metrics::prometheus_client::collector::Collector;
use link_daemon::metrics::prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use link_daemon::metrics::prometheus_client::metrics::MetricType;
use link_daemon::metrics::prometheus_client::metrics::counter::ConstCounter;
use link_daemon::metrics::prometheus_client::metrics::gauge::ConstGauge;

use crate::snapshot::Snapshot;
use crate::trunk::{RouteView, TrunkCounters};

/// Registers everything of this process.
pub fn register(metrics: &Metrics, snapshot: Arc<Snapshot>, trunk: Arc<TrunkCounters>) {
    metrics.collector(Box::new(EdgeCollector { snapshot, trunk }));
}

struct EdgeCollector {
    snapshot: Arc<Snapshot>,
    trunk: Arc<TrunkCounters>,
}

impl fmt::Debug for EdgeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EdgeCollector")
    }
}

impl Collector for EdgeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in self.counters() {
            let metric = ConstCounter::new(value);
            let name = format!("tandem_edge_{name}");
            metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)?;
        }
        for (name, help, value) in self.gauges() {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let name = format!("tandem_edge_{name}");
            metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)?;
        }
        self.encode_routes(&mut encoder)
    }
}

type Row = (&'static str, &'static str, u64);

/// One value of every route. They are gauges: all begin anew when a trunk comes up again.
type RouteRow = (&'static str, &'static str, fn(&RouteView) -> u64);

const ROUTES: [RouteRow; 9] = [
    ("trunk_connected_state", "1 while the trunk is connected", |route| u64::from(route.up)),
    ("trunk_rtt_us", "Smoothed round-trip time", |route| route.round_trip_us),
    ("trunk_jitter_us", "Interarrival jitter from the peer", |route| route.jitter_us),
    ("trunk_arrived_datagrams", "Datagrams from the peer that arrived", |route| {
        route.datagrams_received
    }),
    ("trunk_lost_datagrams", "Datagrams from the peer that did not arrive", |route| {
        route.datagrams_lost
    }),
    ("trunk_unacknowledged_packets", "QUIC packets to the peer that were lost", |route| {
        route.sent_lost
    }),
    ("trunk_quic_packets", "QUIC packets to the peer", |route| route.sent),
    ("trunk_quic_sends", "System calls that sent them", |route| route.sends),
    ("trunk_datagram_bytes", "UDP payload that the path carries", |route| route.datagram_bytes_max),
];

impl EdgeCollector {
    fn encode_routes(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let routes = self.trunk.routes();
        for (name, help, value) in ROUTES {
            if routes.is_empty() {
                break;
            }
            let name = format!("tandem_edge_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for route in &routes {
                let metric = ConstGauge::new(i64::try_from(value(route)).unwrap_or(i64::MAX));
                metric.encode(family.encode_family(&[("peer_node", route.node.as_str())])?)?;
            }
        }
        Ok(())
    }

    fn counters(&self) -> Vec<Row> {
        let view = self.snapshot.view();
        let (core, sip, trunk) = (&view.counters, &view.sip, &self.trunk);
        vec![
            (
                "sip_datagrams_unlisted",
                "Datagrams from no provider, dropped before parsing",
                core.datagrams_unlisted,
            ),
            ("sip_requests_received", "SIP requests received", sip.requests_received),
            ("sip_requests_sent", "SIP requests sent", sip.requests_sent),
            ("sip_responses_received", "SIP responses received", sip.responses_received),
            ("sip_responses_sent", "SIP responses sent", sip.responses_sent),
            (
                "sip_malformed_dropped",
                "Malformed SIP that cannot be answered",
                sip.parse_errors_dropped,
            ),
            (
                "sip_malformed_answered",
                "Malformed SIP answered with 400",
                sip.parse_errors_answered,
            ),
            (
                "sip_requests_refused",
                "Requests refused by a rule of SIP (405, 416, 420, 483, 501 …)",
                sip.requests_refused,
            ),
            ("sip_undelivered", "ICMP errors about SIP sent: nobody is there", core.icmp_believed),
            (
                "sip_undelivered_ignored",
                "ICMP errors that do not quote what was sent",
                core.icmp_ignored,
            ),
            (
                "sip_retransmissions_sent",
                "SIP requests sent again",
                sip.request_retransmissions_sent,
            ),
            (
                "sip_retransmissions_received",
                "SIP requests received again",
                sip.request_retransmissions_received,
            ),
            (
                "sip_transaction_timeouts",
                "SIP transactions without answer",
                sip.transaction_timeouts,
            ),
            ("sip_ack_timeouts", "Answers that were never acknowledged", sip.ack_timeouts),
            (
                "calls_shed_rate",
                "Calls refused by the rate limit of their provider",
                core.calls_shed_rate,
            ),
            ("calls_refused_drain", "Calls refused while draining", core.calls_refused_drain),
            (
                "calls_refused_capacity",
                "Calls refused for lack of legs, ports or sockets",
                core.calls_refused_capacity + sip.capacity_refused,
            ),
            (
                "calls_refused_control",
                "Calls refused without a control node",
                core.calls_refused_no_control,
            ),
            (
                "calls_second_choice",
                "Calls given to a control node because a better one was not reachable",
                core.calls_second_choice,
            ),
            (
                "calls_offered_again",
                "Calls given to another control node because theirs went away first",
                core.calls_offered_again,
            ),
            (
                "calls_refused_media",
                "Calls refused for lack of a common codec",
                core.calls_refused_media,
            ),
            (
                "calls_without_instructions",
                "Calls connected without control",
                core.calls_without_instructions,
            ),
            ("legs_inbound", "Inbound legs", core.legs_inbound),
            ("legs_outbound", "Outbound legs", core.legs_outbound),
            ("legs_ended", "Legs that ended", core.legs_ended),
            ("legs_media_timeout", "Legs ended by media timeout", core.media_timeouts),
            ("legs_control_lost", "Legs ended because control stayed away", core.control_lost),
            ("link_commands_executed", "Commands carried out", core.commands),
            ("link_commands_repeated", "Commands answered from memory", core.commands_repeated),
            ("link_commands_refused", "Commands refused for their content", core.commands_refused),
            ("link_commands_unusable", "Commands that could not be read", core.commands_unusable),
            ("link_messages_refused", "Messages that control could not use", core.messages_refused),
            ("link_events_sent", "Events given to control", core.events),
            ("link_events_resent", "Events sent again after a reconnect", core.events_resent),
            (
                "link_events_dropped",
                "Events dropped because control was away too long",
                core.events_dropped,
            ),
            (
                "trunk_packets_sent",
                "RTP packets sent through trunks",
                trunk.packets_sent.load(Relaxed),
            ),
            (
                "trunk_packets_received",
                "RTP packets received through trunks",
                trunk.packets_received.load(Relaxed),
            ),
            ("trunk_datagrams_sent", "Trunk datagrams sent", trunk.datagrams_sent.load(Relaxed)),
            (
                "trunk_dropped_unconnected",
                "RTP packets for a peer that is not connected",
                trunk.dropped_no_connection.load(Relaxed),
            ),
            (
                "trunk_dropped_refused",
                "RTP packets that QUIC refused",
                trunk.dropped_refused.load(Relaxed),
            ),
            (
                "trunk_dropped_stale",
                "RTP packets dropped because they had waited for 40 ms",
                trunk.dropped_stale.load(Relaxed),
            ),
            (
                "trunk_dropped_unknown",
                "RTP packets of unknown channels",
                trunk.dropped_unknown_channel.load(Relaxed),
            ),
            (
                "trunk_dropped_full",
                "RTP packets dropped before a full ring",
                trunk.dropped_ring_full.load(Relaxed),
            ),
            (
                "trunk_datagrams_malformed",
                "Trunk datagrams that cannot be read",
                trunk.malformed.load(Relaxed),
            ),
        ]
    }

    fn gauges(&self) -> Vec<Row> {
        let view = self.snapshot.view();
        vec![
            ("legs_live_count", "Live legs", view.legs),
            ("legs_live_max", "Configured maximum of legs", view.legs_max),
            ("port_pairs_used", "RTP port pairs in use", view.port_pairs_used as u64),
            ("port_pairs_left", "RTP port pairs left", view.port_pairs_left as u64),
            ("drain_active_state", "1 while no new calls are taken", u64::from(view.draining)),
        ]
    }
}
