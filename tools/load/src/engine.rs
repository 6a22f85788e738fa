//! The thread that runs all phones: one epoll, one timer, no locks.
//!
//! Owns the phones with their SIP endpoints and the legs with their media. A turn reads what is
//! ready, sends the RTP that is due, runs the deadlines, starts new calls and sleeps again.

mod calls;
mod drops;
mod leg;
mod poller;
mod script;
mod sip;
mod totals;
mod wheel;

use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sip_core::{DialogHandle, NameAddr, SipConfig, SipEndpoint, Uri};

use crate::clock::{Clock, now_ns, realtime_ahead_ns};
use crate::media::{Noticed, Scratch};
use crate::phone::{Phone, Step};
use crate::report::{EventKind, PhoneReport, Role, TimelineEvent};
use crate::source::BurstCache;

use leg::{Leg, LegState};
use poller::{Poller, Ready};
pub use totals::Totals;
use wheel::Wheel;

/// Datagrams read from a SIP socket before the others get their turn.
const SIP_BURST_MAX: usize = 64;
/// Calls that one turn may start for one phone.
const NEW_CALLS_MAX: usize = 20;
/// RTP is still received and counted so long after a call has ended.
const DRAIN_NS: u64 = 300_000_000;
/// Ended calls are closed in batches, because each batch reads a table of all sockets.
const CLOSE_EVERY_NS: u64 = 250_000_000;

/// Wakes those who wait for something to happen.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<u64>,
    condition: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.condition.notify_all();
    }

    /// How often it rang so far.
    pub fn count(&self) -> u64 {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has rung more than `seen` times, or `timeout` is over.
    pub fn wait(&self, seen: u64, timeout: Duration) {
        let guard = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.condition.wait_timeout_while(guard, timeout, |rung| *rung == seen);
    }
}

/// What the bank asks of the engine.
pub enum Command {
    /// Plug in a phone; its number is the order of arrival.
    Add(Box<Plug>),
    /// A caller makes one more call.
    Dial(usize),
    /// Steps for all calls of a phone that go on, after those of the script.
    Run(usize, Vec<Step>),
    /// Hang up all calls of a phone and make no further ones.
    HangUp(usize),
    /// The latest call.
    Report(usize, Sender<PhoneReport>),
    /// All calls that are kept, and those that go on.
    Reports(usize, Sender<Vec<PhoneReport>>),
    /// The sums over all calls.
    Totals(usize, Sender<Totals>),
    /// End the thread.
    Stop,
}

/// A phone with its socket bound and its addresses resolved.
pub struct Plug {
    /// The description.
    pub phone: Phone,
    /// Bound, non-blocking.
    pub socket: UdpSocket,
    /// Its address.
    pub addr: SocketAddr,
    /// Request URI and first hop of a caller.
    pub target: Option<(Uri, SocketAddr)>,
}

struct PhoneState {
    phone: Phone,
    socket: UdpSocket,
    addr: SocketAddr,
    own: NameAddr,
    target: Option<(Uri, SocketAddr)>,
    endpoint: SipEndpoint,
    by_handle: HashMap<DialogHandle, usize>,
    calls: u64,
    calls_wanted: u64,
    next_call_ns: u64,
    live: usize,
    reports: Vec<PhoneReport>,
    totals: Totals,
}

impl PhoneState {
    /// When the next call is to be started, if one may be.
    fn next_call_ns(&self) -> Option<u64> {
        let may = self.calls < self.calls_wanted
            && self.live < self.phone.traffic.at_once_max
            && self.target.is_some();
        may.then_some(self.next_call_ns)
    }
}

/// The state of the thread.
pub struct Engine {
    clock: Clock,
    poller: Poller,
    inbox: Receiver<Command>,
    bell: Arc<Bell>,
    ring: bool,
    phones: Vec<PhoneState>,
    legs: Vec<Option<Leg>>,
    free: Vec<usize>,
    deadlines: BTreeSet<(u64, usize)>,
    wheel: Wheel,
    close_at_ns: Option<u64>,
    scratch: Scratch,
    cache: BurstCache,
    rng: StdRng,
}

impl Engine {
    /// An engine without phones.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(
        inbox: Receiver<Command>,
        wake: Arc<EventFd>,
        bell: Arc<Bell>,
        seed: u64,
    ) -> std::io::Result<Self> {
        Ok(Self {
            clock: Clock::new(),
            poller: Poller::new(wake)?,
            inbox,
            bell,
            ring: false,
            phones: Vec::new(),
            legs: Vec::new(),
            free: Vec::new(),
            deadlines: BTreeSet::new(),
            wheel: Wheel::default(),
            close_at_ns: None,
            scratch: Scratch::new(),
            cache: BurstCache::default(),
            rng: StdRng::seed_from_u64(seed),
        })
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            let now = now_ns();
            if std::mem::take(&mut self.ring) {
                self.bell.ring();
            }
            let next = self.next_ns();
            self.poller.wait(now, next, &mut ready);
            self.scratch.realtime_ahead_ns = realtime_ahead_ns();
            // RTP first: its time counts most.
            self.send_rtp();
            for &source in &ready {
                match source {
                    Ready::Rtp(leg) => self.read_rtp(leg),
                    Ready::Sip(phone) => self.read_sip(phone),
                    Ready::Wake => {
                        if self.obey() {
                            return;
                        }
                    }
                    Ready::Timer => {}
                }
            }
            self.send_rtp();
            self.run_deadlines();
            self.run_endpoints();
            self.start_calls();
            self.close_ended();
        }
    }

    fn next_ns(&self) -> Option<u64> {
        let endpoints = self.phones.iter().filter_map(|phone| phone.endpoint.poll_timeout());
        let endpoint = endpoints.min().map(|at| self.clock.ns(at));
        let call = self.phones.iter().filter_map(PhoneState::next_call_ns).min();
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        [endpoint, call, deadline, self.wheel.next_ns(), self.close_at_ns]
            .into_iter()
            .flatten()
            .min()
    }

    /// Carries out commands; `true` to stop. A reply that nobody waits for any more is dropped.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Stop => return true,
                Command::Add(plug) => self.add(*plug),
                Command::Dial(phone) => {
                    if let Some(state) = self.phones.get_mut(phone) {
                        state.calls_wanted += 1;
                        state.next_call_ns = state.next_call_ns.min(now_ns());
                    }
                }
                Command::Run(phone, steps) => {
                    for leg in self.legs_of(phone) {
                        if let Some(Some(state)) = self.legs.get_mut(leg) {
                            state.script.extend(steps.iter().cloned());
                            state.report.script_done = false;
                        }
                        self.advance(leg);
                    }
                    self.pump(phone);
                }
                Command::HangUp(phone) => {
                    if let Some(state) = self.phones.get_mut(phone) {
                        state.calls_wanted = state.calls;
                    }
                    for leg in self.legs_of(phone) {
                        self.hang_up(leg);
                    }
                    self.pump(phone);
                }
                Command::Report(phone, reply) => {
                    let _ = reply.send(self.latest_report(phone));
                }
                Command::Reports(phone, reply) => {
                    let _ = reply.send(self.reports(phone));
                }
                Command::Totals(phone, reply) => {
                    let _ = reply.send(self.totals(phone));
                }
            }
        }
        false
    }

    fn add(&mut self, plug: Plug) {
        let index = self.phones.len();
        let host = plug.addr.ip().to_string();
        let mut sip = SipConfig::new(host.clone(), plug.addr.port(), self.rng.random());
        sip.user_agent = "tandem-load".to_owned();
        sip.dialogs_max = 20_000;
        sip.transactions_max = 100_000;
        let own = Uri::sip(Some(&plug.phone.user), &host, Some(plug.addr.port()))
            .map_or_else(|| NameAddr::new(fallback_uri()), NameAddr::new);
        let endpoint = SipEndpoint::new(sip, StdRng::seed_from_u64(self.rng.random()));
        let watched = self.poller.add_sip(&plug.socket, index);
        let calls_wanted = plug.phone.traffic.calls;
        let mut totals = Totals::default();
        if let Err(error) = watched {
            totals.fail(&format!("SIP socket cannot be watched: {error}"));
        }
        self.phones.push(PhoneState {
            own,
            endpoint,
            calls_wanted,
            phone: plug.phone,
            socket: plug.socket,
            addr: plug.addr,
            target: plug.target,
            by_handle: HashMap::new(),
            calls: 0,
            next_call_ns: now_ns(),
            live: 0,
            reports: Vec::new(),
            totals,
        });
    }

    fn send_rtp(&mut self) {
        let mut due_legs = Vec::new();
        let mut infos = Vec::new();
        while let Some(due_ns) = self.wheel.poll(now_ns(), &mut due_legs) {
            for index in due_legs.drain(..) {
                let Some(Some(leg)) = self.legs.get_mut(index) else { continue };
                if let Some((digit, method)) = leg.media.tick(due_ns) {
                    leg.note(EventKind::DigitSent { digit, method });
                    infos.push((index, digit, method));
                }
            }
        }
        for (index, digit, method) in infos {
            self.ring = true;
            self.send_info(index, digit, method);
        }
    }

    fn read_rtp(&mut self, index: usize) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        let mut noticed = Vec::new();
        let sounds = leg.media.ear().map_or(0, |ear| ear.heard().len());
        // One datagram a turn: the poller tells again if there are more.
        leg.media.read(&mut self.scratch, &mut noticed);
        let new_sound = leg.media.ear().map_or(0, |ear| ear.heard().len()) > sounds;
        for what in &noticed {
            let kind = match *what {
                Noticed::First { payload_type } => EventKind::FirstRtp { payload_type },
                Noticed::Stream => EventKind::StreamChanged,
                Noticed::Digit(digit) => {
                    leg.report.digits.push(digit);
                    let method = crate::digits::DigitMethod::Rfc4733;
                    EventKind::DigitReceived { digit, method }
                }
            };
            leg.note(kind);
        }
        self.ring |= new_sound || !noticed.is_empty();
        if leg.listens() {
            let phone = leg.phone;
            self.advance(index);
            self.pump(phone);
        }
    }

    fn run_deadlines(&mut self) {
        let now = now_ns();
        while let Some(&(at, index)) = self.deadlines.first() {
            if at > now {
                return;
            }
            self.deadlines.remove(&(at, index));
            let Some(Some(leg)) = self.legs.get_mut(index) else { continue };
            leg.due_ns = None;
            let phone = leg.phone;
            if leg.media_at_ns.is_some_and(|at| at <= now) {
                self.start_media(index);
            }
            self.check_call_length(index, now);
            self.advance(index);
            self.schedule(index);
            self.pump(phone);
        }
    }

    fn run_endpoints(&mut self) {
        let now = Instant::now();
        for phone in 0..self.phones.len() {
            let Some(state) = self.phones.get_mut(phone) else { continue };
            if state.endpoint.poll_timeout().is_some_and(|at| at <= now) {
                state.endpoint.handle_timeout(now);
                self.pump(phone);
            }
        }
    }

    fn start_calls(&mut self) {
        let now = now_ns();
        for phone in 0..self.phones.len() {
            for _ in 0..NEW_CALLS_MAX {
                let Some(state) = self.phones.get_mut(phone) else { break };
                if state.next_call_ns().is_none_or(|at| at > now) {
                    break;
                }
                let gap_ns = 1e9 / state.phone.traffic.rate_per_s.max(1e-6);
                state.next_call_ns = state.next_call_ns.saturating_add(gap_ns as u64);
                self.place_call(phone);
                self.pump(phone);
            }
        }
    }

    /// Closes calls that have ended and drained: counts socket drops, files the report.
    fn close_ended(&mut self) {
        let now = now_ns();
        if self.close_at_ns.is_none_or(|at| at > now) {
            return;
        }
        self.close_at_ns = None;
        let drops = drops::Drops::read();
        for index in 0..self.legs.len() {
            let Some(Some(leg)) = self.legs.get_mut(index) else { continue };
            let Some(ended_ns) = leg.ended_ns else { continue };
            if ended_ns + DRAIN_NS > now {
                self.close_at_ns = Some(now + CLOSE_EVERY_NS);
                continue;
            }
            leg.report.socket_drops = drops.of(leg.media.local());
            self.unschedule(index);
            let Some(leg) = self.legs.get_mut(index).and_then(Option::take) else { continue };
            self.free.push(index);
            self.ring = true;
            if let Some(state) = self.phones.get_mut(leg.phone) {
                let report = leg.snapshot();
                state.totals.add(&report);
                if state.phone.keep_reports || leg.full {
                    state.reports.push(report);
                }
            }
        }
    }

    fn legs_of(&self, phone: usize) -> Vec<usize> {
        let live = |leg: &Option<Leg>| {
            leg.as_ref().is_some_and(|leg| leg.phone == phone && leg.state != LegState::Ended)
        };
        (0..self.legs.len()).filter(|&index| self.legs.get(index).is_some_and(live)).collect()
    }

    fn latest_report(&self, phone: usize) -> PhoneReport {
        let legs = self.legs.iter().flatten().filter(|leg| leg.phone == phone);
        if let Some(leg) = legs.max_by_key(|leg| leg.report.call) {
            return leg.snapshot();
        }
        let Some(state) = self.phones.get(phone) else { return PhoneReport::default() };
        state.reports.last().cloned().unwrap_or_else(|| PhoneReport {
            phone: state.phone.name.clone(),
            role: state.phone.role,
            ..PhoneReport::default()
        })
    }

    fn reports(&self, phone: usize) -> Vec<PhoneReport> {
        let ended = self.phones.get(phone).map(|state| state.reports.as_slice());
        let live = self.legs.iter().flatten().filter(|leg| leg.phone == phone).map(Leg::snapshot);
        let mut all: Vec<PhoneReport> =
            ended.unwrap_or_default().iter().cloned().chain(live).collect();
        all.sort_by_key(|report| report.call);
        all
    }

    fn totals(&self, phone: usize) -> Totals {
        let Some(state) = self.phones.get(phone) else { return Totals::default() };
        let mut totals = state.totals.clone();
        totals.wanted = state.calls_wanted;
        totals.attempted = state.calls;
        totals.live = state.live as u64;
        for leg in self.legs.iter().flatten().filter(|leg| leg.phone == phone) {
            totals.add_live(
                leg.state == LegState::Up,
                leg.media.sent(),
                leg.media.receiver().stats(),
            );
        }
        totals
    }

    fn schedule(&mut self, index: usize) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        let due_ns = leg.next_ns();
        if due_ns == leg.due_ns {
            return;
        }
        if let Some(at) = leg.due_ns {
            self.deadlines.remove(&(at, index));
        }
        leg.due_ns = due_ns;
        self.deadlines.extend(due_ns.map(|at| (at, index)));
    }

    fn unschedule(&mut self, index: usize) {
        if let Some(Some(leg)) = self.legs.get_mut(index)
            && let Some(at) = leg.due_ns.take()
        {
            self.deadlines.remove(&(at, index));
        }
    }
}

/// Only reached when the bound address cannot be written as a URI, which it always can.
fn fallback_uri() -> Uri {
    const LOCAL: &str = "sip:phone@127.0.0.1";
    Uri::parse(LOCAL).unwrap_or_else(|| unreachable!("{LOCAL} is a URI"))
}

impl Leg {
    fn note(&mut self, kind: EventKind) {
        self.note_at(now_ns(), kind);
    }

    fn note_at(&mut self, at_ns: u64, kind: EventKind) {
        if self.report.events.len() < leg::EVENTS_MAX {
            self.report.events.push(TimelineEvent { at_ns, kind });
        }
    }

    fn is_caller(&self) -> bool {
        self.report.role == Role::Caller
    }
}
