//! Plain counters of an endpoint; the exporter copies them.

/// Everything an endpoint counts. All values are totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests received, retransmissions included.
    pub requests_received: u64,
    /// Responses received, retransmissions included.
    pub responses_received: u64,
    /// Requests sent first time.
    pub requests_sent: u64,
    /// Responses sent first time.
    pub responses_sent: u64,
    /// Datagrams that are not SIP and were dropped in silence.
    pub parse_errors_dropped: u64,
    /// Malformed requests that were answered 400 (or 505).
    pub parse_errors_answered: u64,
    /// Keep-alive datagrams (only CR and LF, or a lone zero byte).
    pub keepalives_received: u64,
    /// Retransmissions of our requests (timers A and E).
    pub request_retransmissions_sent: u64,
    /// Retransmissions of our responses, by timer or in answer to a repeated request.
    pub response_retransmissions_sent: u64,
    /// Retransmissions of our 2xx by the UAS core.
    pub answer_retransmissions_sent: u64,
    /// ACKs sent again for a repeated 2xx.
    pub ack_retransmissions_sent: u64,
    /// Requests received again.
    pub request_retransmissions_received: u64,
    /// Responses received again.
    pub response_retransmissions_received: u64,
    /// Responses that match no transaction.
    pub responses_unmatched: u64,
    /// ACKs that match no transaction and no dialog.
    pub acks_unmatched: u64,
    /// CANCELs that match no transaction (481 sent).
    pub cancels_unmatched: u64,
    /// In-dialog requests without dialog (481 sent).
    pub dialogs_unmatched: u64,
    /// Requests whose CSeq went backwards (500 sent).
    pub cseq_out_of_order: u64,
    /// Merged requests (482 sent).
    pub requests_merged: u64,
    /// Requests refused by a rule of the RFC (405, 420, 481, 483, 501 …).
    pub requests_refused: u64,
    /// Requests refused for lack of room (503).
    pub capacity_refused: u64,
    /// Requests dropped without an answer for lack of room.
    pub capacity_dropped: u64,
    /// Client transactions that ended by timer B or F.
    pub transaction_timeouts: u64,
    /// Client transactions that ended by a transport failure.
    pub transport_failures: u64,
    /// Calls whose answer was never acknowledged.
    pub ack_timeouts: u64,
    /// Further 2xx of forks that were acknowledged and ended.
    pub forks_ended: u64,
    /// Server requests the user never answered.
    pub requests_unanswered: u64,
    /// Re-INVITEs refused or deferred for glare (491).
    pub glare: u64,
}
