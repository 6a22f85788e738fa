//! [`SipEndpoint`]: the hub. It owns transactions, calls and timers, and only dispatches; each
//! concern has a file of its own in this folder.

mod call_timer;
mod challenge;
mod in_dialog;
mod reinvite;
mod request_in;
mod response_in;
mod timer_queue;
mod uac;
mod uas;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::StdRng;

use self::timer_queue::{Timer, TimerQueue};
use crate::auth::Credentials;
use crate::config::SipConfig;
use crate::counters::Counters;
use crate::dialog::Call;
use crate::error::{CommandError, ParseErrorKind};
use crate::event::{DialogHandle, Event, FailCause, Input, Output, RequestId};
use crate::msg::Message;
use crate::token::TokenKey;
use crate::transaction::{Effect, Machine, Table, TransactionId};
use crate::transport::{Destination, response_destination, stamp_top_via};

/// Who uses a transaction.
#[derive(Clone, Debug)]
enum User {
    /// The first INVITE of a call, either side.
    Invite(DialogHandle),
    /// A re-INVITE (or, as server, an UPDATE with an offer) of a call, either side.
    Reinvite(DialogHandle),
    /// Our BYE.
    Bye(DialogHandle),
    /// A request of ours whose outcome the user wants to know.
    Request(Option<DialogHandle>, RequestId, Option<Box<Credentials>>),
    /// A request of the peer that the user answers.
    Served(RequestId),
    /// CANCEL, BYE of a fork, requests that were answered at once.
    Nobody,
}

/// An ACK for a 2xx, sent again when the 2xx comes again (RFC 3261 §13.2.2.4).
#[derive(Clone, Debug)]
struct AckRecord {
    remote_tag: String,
    bytes: Bytes,
    to: Destination,
}

/// A SIP user agent for many calls. See the crate page.
pub struct SipEndpoint {
    config: SipConfig,
    rng: StdRng,
    token: TokenKey,
    counters: Counters,
    outputs: VecDeque<Output>,
    timers: TimerQueue,
    transactions: Table<User>,
    /// ACKs by the transaction of their INVITE; they live as long as it.
    acks: BTreeMap<TransactionId, Vec<AckRecord>>,
    calls: BTreeMap<DialogHandle, Call>,
    /// Our tags; each belongs to one call.
    tags: BTreeMap<String, DialogHandle>,
    /// Requests of peers that the user has not answered.
    served: BTreeMap<RequestId, TransactionId>,
    next_handle: u64,
    next_request: u64,
    /// OPTIONS is answered 200.
    available: bool,
}

impl SipEndpoint {
    /// An endpoint with the given configuration and source of randomness.
    pub fn new(config: SipConfig, rng: StdRng) -> Self {
        let token = TokenKey::new(&config.token_key);
        SipEndpoint {
            config,
            rng,
            token,
            counters: Counters::default(),
            outputs: VecDeque::new(),
            timers: TimerQueue::default(),
            transactions: Table::default(),
            acks: BTreeMap::new(),
            calls: BTreeMap::new(),
            tags: BTreeMap::new(),
            served: BTreeMap::new(),
            next_handle: 1,
            next_request: 1,
            available: true,
        }
    }

    /// Door 1: a message came in, or one could not be sent.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Datagram { source, local, transport, bytes } => {
                let source = Destination { addr: source, transport, local: Some(local) };
                self.handle_message(now, source, &bytes);
            }
            Input::SendFailed { to } => {
                for id in self.transactions.with_peer(&to) {
                    self.transport_failed(now, id);
                }
            }
        }
    }

    /// Door 2: runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Transaction(id) => self.transaction_timer(now, id),
                Timer::Call(handle) => self.call_timer(now, handle),
            }
        }
    }

    /// Door 3: the next thing to do; drain to `None` after each call of another method.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Door 4: when to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn handle_message(&mut self, now: Instant, source: Destination, bytes: &Bytes) {
        match Message::parse(bytes) {
            Ok(message) if message.is_request() => self.receive_request(now, source, message),
            Ok(message) => self.receive_response(now, source, message),
            Err(error) => match error.answer {
                Some(mut answer) => {
                    self.counters.parse_errors_answered += 1;
                    let to = answer.top_via().map_or(source, |v| response_destination(&v, source));
                    stamp_top_via(&mut answer, source.addr);
                    self.counters.responses_sent += 1;
                    self.send(to, answer.to_bytes());
                }
                None if error.kind == ParseErrorKind::Empty => {
                    self.counters.keepalives_received += 1;
                }
                None => self.counters.parse_errors_dropped += 1,
            },
        }
    }

    fn transaction_timer(&mut self, now: Instant, id: TransactionId) {
        let timers = self.config.timers;
        let Some(entry) = self.transactions.entry_mut(id) else { return };
        let effect = match &mut entry.machine {
            Machine::ClientInvite(machine) => machine.on_timer(now),
            Machine::ClientNonInvite(machine) => machine.on_timer(now, &timers),
            Machine::ServerInvite(machine) => machine.on_timer(now, &timers),
            Machine::ServerNonInvite(machine) => machine.on_timer(now),
        };
        self.apply(id, &effect);
        if effect.timed_out {
            self.transaction_timed_out(now, id);
        }
        self.settle_transaction(id);
    }

    fn transaction_timed_out(&mut self, now: Instant, id: TransactionId) {
        let Some(entry) = self.transactions.entry(id) else { return };
        let user = entry.user.clone();
        match entry.machine {
            Machine::ClientInvite(_) | Machine::ClientNonInvite(_) => {
                self.counters.transaction_timeouts += 1;
                self.client_failed(now, id, user, FailCause::Timeout);
            }
            // RFC 3261 §17.2.1 timer H: the refusal stands without its ACK.
            Machine::ServerInvite(_) => {}
            Machine::ServerNonInvite(_) => {
                self.counters.requests_unanswered += 1;
                if let User::Reinvite(handle) = user {
                    self.inbound_offer_gone(handle, id);
                }
            }
        }
    }

    fn transport_failed(&mut self, now: Instant, id: TransactionId) {
        let Some(entry) = self.transactions.entry_mut(id) else { return };
        let ends = match &mut entry.machine {
            Machine::ClientInvite(machine) => machine.on_transport_error(),
            Machine::ClientNonInvite(machine) => machine.on_transport_error(),
            // Responses are repeated by their machines; the peer may come back.
            Machine::ServerInvite(_) | Machine::ServerNonInvite(_) => false,
        };
        if ends {
            let user = entry.user.clone();
            self.counters.transport_failures += 1;
            self.client_failed(now, id, user, FailCause::Transport);
        }
        self.settle_transaction(id);
    }

    /// Runs a machine on a repeated request.
    fn repeat_server(&mut self, id: TransactionId) {
        self.counters.request_retransmissions_received += 1;
        let Some(entry) = self.transactions.entry_mut(id) else { return };
        let effect = match &mut entry.machine {
            Machine::ServerInvite(machine) => machine.on_retransmission(),
            Machine::ServerNonInvite(machine) => machine.on_retransmission(),
            Machine::ClientInvite(_) | Machine::ClientNonInvite(_) => Effect::nothing(),
        };
        self.apply(id, &effect);
    }

    /// Enters a call and its tag.
    fn insert_call(&mut self, call: Call) -> DialogHandle {
        let handle = DialogHandle(self.next_handle);
        self.next_handle += 1;
        self.tags.insert(call.local_tag.clone(), handle);
        self.calls.insert(handle, call);
        handle
    }

    /// Removes a call and says the last word about it.
    fn end_call(&mut self, handle: DialogHandle, last: Event) {
        if let Some(call) = self.calls.remove(&handle) {
            self.tags.remove(&call.local_tag);
            self.timers.set(Timer::Call(handle), None);
            self.emit(last);
        }
    }

    fn mint_request_id(&mut self) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        id
    }

    /// From now on requests of this leg go there, whatever Contact and Route say.
    ///
    /// # Errors
    /// [`CommandError::Unknown`].
    pub fn set_destination(
        &mut self,
        handle: DialogHandle,
        to: Destination,
    ) -> Result<(), CommandError> {
        let call = self.calls.get_mut(&handle).ok_or(CommandError::Unknown)?;
        call.peer_override = Some(to);
        Ok(())
    }

    /// While not available, OPTIONS outside a dialog is answered 503, so that those who ask send
    /// their calls elsewhere.
    pub fn set_available(&mut self, available: bool) {
        self.available = available;
    }

    /// Call-ID of a leg.
    pub fn call_id(&self, handle: DialogHandle) -> Option<&str> {
        self.calls.get(&handle).map(|call| call.call_id.as_str())
    }

    /// The configuration.
    pub fn config(&self) -> &SipConfig {
        &self.config
    }

    /// The totals since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Legs alive (a leg that waits for its BYE to be answered included).
    pub fn dialogs_live(&self) -> usize {
        self.calls.len()
    }

    /// Transactions alive.
    pub fn transactions_live(&self) -> usize {
        self.transactions.len()
    }

    /// The token key, for admission and for minting Call-IDs.
    pub fn token_key(&self) -> &TokenKey {
        &self.token
    }
}
