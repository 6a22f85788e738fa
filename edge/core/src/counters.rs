//! Plain counters of an edge core; the exporter copies them.

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams from addresses of no provider that carry no token of ours.
    pub datagrams_unlisted: u64,
    /// ICMP errors that quote a datagram of ours: nobody is there.
    pub icmp_believed: u64,
    /// ICMP errors that quote none.
    pub icmp_ignored: u64,
    /// New calls shed by the rate limit of their provider, before any state.
    pub calls_shed_rate: u64,
    /// New calls refused while draining.
    pub calls_refused_drain: u64,
    /// New calls refused for lack of legs, ports or sockets.
    pub calls_refused_capacity: u64,
    /// New calls refused because no control node is reachable.
    pub calls_refused_no_control: u64,
    /// New calls given to a control node because a better one is not reachable.
    pub calls_second_choice: u64,
    /// Calls given to another control node because theirs went away before it did anything.
    pub calls_offered_again: u64,
    /// New calls refused for lack of a common codec or usable SDP.
    pub calls_refused_media: u64,
    /// New calls refused because the sender is no provider although it knows a token.
    pub calls_refused_unlisted: u64,
    /// Inbound legs.
    pub legs_inbound: u64,
    /// Outbound legs.
    pub legs_outbound: u64,
    /// Legs that ended.
    pub legs_ended: u64,
    /// Legs connected without control (LAT-15), counted by call.
    pub calls_without_instructions: u64,
    /// Commands carried out.
    pub commands: u64,
    /// Commands answered from memory.
    pub commands_repeated: u64,
    /// Commands of an owner that has been replaced.
    pub commands_old_epoch: u64,
    /// Commands ahead of a missing one.
    pub commands_gap: u64,
    /// Commands refused for their content.
    pub commands_refused: u64,
    /// Commands that could not be read.
    pub commands_unusable: u64,
    /// Messages of ours that control could not use.
    pub messages_refused: u64,
    /// Events given to control for the first time.
    pub events: u64,
    /// Events sent again after a reconnect.
    pub events_resent: u64,
    /// Events dropped because control was away too long.
    pub events_dropped: u64,
    /// Worker events about ports or programs that are gone.
    pub worker_events_stale: u64,
    /// Ends of legs that did not wait for their worker's counters any longer.
    pub stats_late: u64,
    /// Legs ended by media timeout.
    pub media_timeouts: u64,
    /// Legs ended because control stayed away.
    pub control_lost: u64,
    /// Sessions that control did not know.
    pub orphans: u64,
}
