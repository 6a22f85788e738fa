//! The phones of a region: one SIP endpoint with many calls, each after its own script.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use sip_core::{
    Body, Destination, DialogHandle, EndReason, Event, Input, InviteParams, NameAddr, Output,
    SipConfig, SipEndpoint, Transport, Uri,
};

use crate::net::{SIP_PORT, phone_ip};

/// What a called phone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// 180, then 200.
    Answer,
    /// 183 with a session description, then 200.
    EarlyMedia,
    /// 180, and nothing more.
    Ring,
    /// A final refusal.
    Refuse(u16),
}

/// What a phone does in one call.
#[derive(Debug, Clone)]
pub struct Script {
    /// When called.
    pub manner: Manner,
    /// ms from the call to the answer or refusal.
    pub answer_ms: u64,
    /// ms from the call's start after which it hangs up, whatever the state.
    pub give_up_ms: Option<u64>,
    /// ms from the answer to its BYE.
    pub hang_up_ms: Option<u64>,
    /// Keys, with the time from the answer in ms.
    pub keys: Vec<(u64, char)>,
    /// Nobody talks longer: ms from the start.
    pub patience_ms: u64,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            manner: Manner::Answer,
            answer_ms: 500,
            give_up_ms: None,
            hang_up_ms: None,
            keys: Vec::new(),
            patience_ms: 180_000,
        }
    }
}

/// Which phone of a call: 0 is the caller, others are called.
pub type Role = u8;

/// One leg of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// Number of the plan.
    pub plan: usize,
    /// Which of its phones.
    pub role: Role,
}

/// How a call ended for the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer's BYE.
    RemoteBye,
    /// Its own BYE.
    LocalBye,
    /// Refused with that status, or no answer in time.
    Failed(u16),
    /// The peer's CANCEL.
    Canceled,
    /// Its own refusal.
    Refused,
    /// The peer did not know the call any more, or acknowledged nothing.
    Lost,
}

/// What a phone remembers of a call.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Whose.
    pub party: Party,
    /// SIP Call-ID.
    pub call_id: String,
    /// Established.
    pub answered: bool,
    /// How it ended.
    pub ended: Option<Ended>,
    /// RTP packets heard.
    pub heard: u64,
    /// SSRCs heard.
    pub ssrcs: Vec<u32>,
    /// Keys that were really pressed.
    pub pressed: String,
}

struct Call {
    memory: usize,
    script: Script,
    rtp: SocketAddr,
    remote: Option<SocketAddr>,
    sending: bool,
    stream: Stream,
}

/// Outgoing RTP.
#[derive(Debug, Default)]
struct Stream {
    sequence: u16,
    timestamp: u32,
    keys: VecDeque<char>,
    /// Key under way and packets of it that were sent.
    event: Option<(u8, u16, u32)>,
}

/// Something a phone does later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Answer or refuse.
    Answer(DialogHandle),
    /// Hang up.
    HangUp(DialogHandle),
    /// Press a key.
    Press(DialogHandle, char),
    /// Send the next RTP packet.
    Frame(DialogHandle),
}

/// What phones want of the world.
#[derive(Debug)]
pub enum Want {
    /// A datagram.
    Send {
        /// Socket.
        from: SocketAddr,
        /// Peer.
        to: SocketAddr,
        /// Content.
        bytes: Bytes,
        /// May not be lost: a digit of the model.
        sure: bool,
    },
    /// An act of its own.
    Later(Duration, Act),
}

/// Phones of a region.
pub struct Phones {
    /// SIP socket.
    pub address: SocketAddr,
    sip: SipEndpoint,
    calls: BTreeMap<DialogHandle, Call>,
    by_rtp: BTreeMap<u16, DialogHandle>,
    /// Scripts of parties that may be called, by user name.
    pub called: BTreeMap<String, (Party, Script)>,
    /// Every call there was.
    pub memories: Vec<Memory>,
    /// Wants, in order.
    pub wants: Vec<Want>,
    rtp_next: u16,
    real_media: bool,
    /// Calls to users that nobody knows.
    pub violations: Vec<String>,
}

impl Phones {
    /// Phones that wait.
    pub fn new(region: usize, real_media: bool, rng: StdRng) -> Self {
        let ip = phone_ip(region);
        let config = SipConfig::new(ip.to_string(), SIP_PORT, [9; 32]);
        Self {
            address: SocketAddr::new(ip, SIP_PORT),
            sip: SipEndpoint::new(config, rng),
            calls: BTreeMap::new(),
            by_rtp: BTreeMap::new(),
            called: BTreeMap::new(),
            memories: Vec::new(),
            wants: Vec::new(),
            rtp_next: 20_000,
            real_media,
            violations: Vec::new(),
        }
    }

    fn remember(&mut self, handle: DialogHandle, party: Party, script: Script) {
        let call_id = self.sip.call_id(handle).unwrap_or_default().to_owned();
        self.rtp_next += 2;
        let rtp = SocketAddr::new(self.address.ip(), self.rtp_next);
        self.by_rtp.insert(self.rtp_next, handle);
        self.later(script.patience_ms, Act::HangUp(handle));
        if let Some(ms) = script.give_up_ms {
            self.later(ms, Act::HangUp(handle));
        }
        let memory = self.memories.len();
        self.memories.push(Memory {
            party,
            call_id,
            answered: false,
            ended: None,
            heard: 0,
            ssrcs: Vec::new(),
            pressed: String::new(),
        });
        let stream = Stream::default();
        let call = Call { memory, script, rtp, remote: None, sending: false, stream };
        self.calls.insert(handle, call);
    }

    fn later(&mut self, ms: u64, act: Act) {
        self.wants.push(Want::Later(Duration::from_millis(ms), act));
    }

    fn body(&self, handle: DialogHandle) -> Option<Body> {
        let rtp = self.calls.get(&handle)?.rtp;
        Some(Body::sdp(format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n\
             a=sendrecv\r\n",
            ip = rtp.ip(),
            port = rtp.port()
        )))
    }

    /// Calls a number.
    pub fn dial(
        &mut self,
        now: Instant,
        edge: SocketAddr,
        number: &str,
        party: Party,
        script: Script,
    ) {
        let Some(uri) = Uri::parse(&format!("sip:{number}@{edge}")) else { return };
        let from = format!("<sip:+4930{:04}@{}>", party.plan, self.address.ip());
        let Some(from) = NameAddr::parse(from.as_bytes()) else { return };
        let (to, target) = (NameAddr::new(uri.clone()), Destination::udp(edge));
        let mut params = InviteParams::new(target, uri, from, to);
        // The port that `remember` will give.
        let port = self.rtp_next + 2;
        let ip = self.address.ip();
        params.body = Some(Body::sdp(format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n\
             a=sendrecv\r\n"
        )));
        match self.sip.invite(now, params) {
            Ok(handle) => self.remember(handle, party, script),
            Err(error) => self.violations.push(format!("INVITE not sent: {error}")),
        }
        self.settle(now);
    }

    /// A datagram arrives.
    pub fn datagram(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if to == self.address {
            let (source, local, transport) = (from, to, Transport::Udp);
            self.sip.handle_input(now, Input::Datagram { source, local, transport, bytes });
            return self.settle(now);
        }
        let Some(call) = self.by_rtp.get(&to.port()).and_then(|h| self.calls.get(h)) else {
            return;
        };
        let Some(memory) = self.memories.get_mut(call.memory) else { return };
        memory.heard += 1;
        if let Some(ssrc) = bytes.get(8..12).and_then(|b| <[u8; 4]>::try_from(b).ok()) {
            let ssrc = u32::from_be_bytes(ssrc);
            if !memory.ssrcs.contains(&ssrc) {
                memory.ssrcs.push(ssrc);
            }
        }
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sip.poll_timeout()
    }

    /// Timers of SIP.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sip.handle_timeout(now);
        self.settle(now);
    }

    /// Something that was planned.
    pub fn act(&mut self, now: Instant, act: Act) {
        match act {
            Act::HangUp(handle) => {
                let _ = self.sip.hang_up(now, handle, 480, Vec::new());
            }
            Act::Answer(handle) => self.answer(now, handle),
            Act::Press(handle, key) => self.press(handle, key),
            Act::Frame(handle) => self.frame(handle),
        }
        self.settle(now);
    }

    fn answer(&mut self, now: Instant, handle: DialogHandle) {
        let Some(call) = self.calls.get(&handle) else { return };
        if let Manner::Refuse(status) = call.script.manner {
            let _ = self.sip.reject(now, handle, status, "", Vec::new());
            return;
        }
        let body = self.body(handle);
        if self.sip.accept(now, handle, Vec::new(), body).is_ok() {
            self.answered(handle);
        }
    }

    fn answered(&mut self, handle: DialogHandle) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        if let Some(memory) = self.memories.get_mut(call.memory) {
            if memory.answered {
                return;
            }
            memory.answered = true;
        }
        let script = call.script.clone();
        call.sending = true;
        if let Some(ms) = script.hang_up_ms {
            self.later(ms, Act::HangUp(handle));
        }
        for (ms, key) in script.keys {
            self.later(ms, Act::Press(handle, key));
        }
        if self.real_media {
            self.later(0, Act::Frame(handle));
        }
    }

    fn press(&mut self, handle: DialogHandle, key: char) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let Some(to) = call.remote else { return };
        if let Some(memory) = self.memories.get_mut(call.memory) {
            memory.pressed.push(key);
        }
        if self.real_media {
            call.stream.keys.push_back(key);
            return;
        }
        let (from, bytes) = (call.rtp, Bytes::from(vec![b'k', key as u8]));
        self.wants.push(Want::Send { from, to, bytes, sure: true });
    }

    fn frame(&mut self, handle: DialogHandle) {
        let Some(call) = self.calls.get_mut(&handle).filter(|call| call.sending) else { return };
        if let Some(to) = call.remote {
            let bytes = call.stream.packet(handle.0 as u32);
            self.wants.push(Want::Send { from: call.rtp, to, bytes, sure: false });
        }
        self.later(20, Act::Frame(handle));
    }

    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.sip.poll_output() {
            match output {
                Output::Send { to, bytes } => {
                    let (from, to) = (self.address, to.addr);
                    self.wants.push(Want::Send { from, to, bytes, sure: false });
                }
                Output::Event(event) => self.event(now, event),
            }
        }
    }

    fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Incoming { handle, call } => self.incoming(now, handle, &call),
            Event::Provisional { handle, sdp: Some(sdp), .. } => self.learn(handle, &sdp),
            Event::Answered { handle, sdp, .. } => {
                if let Some(sdp) = sdp {
                    self.learn(handle, &sdp);
                }
                self.answered(handle);
            }
            Event::ReInvite { handle, sdp, .. } => {
                if let Some(sdp) = sdp {
                    self.learn(handle, &sdp);
                }
                let body = self.body(handle);
                let _ = self.sip.respond_reinvite(now, handle, 200, "", Vec::new(), body);
            }
            Event::Canceled { handle, .. } => self.over(handle, Ended::Canceled),
            Event::Failed { handle, status, .. } => self.over(handle, Ended::Failed(status)),
            Event::Ended { handle, reason, .. } => {
                let how = match reason {
                    EndReason::RemoteBye { .. } => Ended::RemoteBye,
                    EndReason::LocalBye | EndReason::CanceledAfterAnswer => Ended::LocalBye,
                    EndReason::Rejected => Ended::Refused,
                    EndReason::AckTimeout | EndReason::TransactionTimeout | EndReason::Expired => {
                        Ended::Lost
                    }
                };
                self.over(handle, how);
            }
            _ => {}
        }
    }

    fn incoming(&mut self, now: Instant, handle: DialogHandle, call: &sip_core::IncomingCall) {
        let uri = call.uri.to_string();
        let user = uri.trim_start_matches("sip:").split('@').next().unwrap_or_default();
        let Some((party, script)) = self.called.get(user).cloned() else {
            self.violations.push(format!("call to {uri}"));
            let _ = self.sip.reject(now, handle, 404, "", Vec::new());
            return;
        };
        let (manner, answer_ms) = (script.manner, script.answer_ms);
        self.remember(handle, party, script);
        if let Some(sdp) = &call.sdp {
            self.learn(handle, sdp);
        }
        let (status, body) = match manner {
            Manner::EarlyMedia => (183, self.body(handle)),
            _ => (180, None),
        };
        let _ = self.sip.provisional(now, handle, status, "", Vec::new(), body);
        if manner != Manner::Ring {
            self.later(answer_ms, Act::Answer(handle));
        }
    }

    fn learn(&mut self, handle: DialogHandle, sdp: &[u8]) {
        let text = String::from_utf8_lossy(sdp);
        let field = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
        let ip = field("c=IN IP4 ").and_then(|ip| ip.trim().parse().ok());
        let port = field("m=audio ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let (Some(ip), Some(port), Some(call)) = (ip, port, self.calls.get_mut(&handle)) {
            call.remote = Some(SocketAddr::new(ip, port));
        }
    }

    fn over(&mut self, handle: DialogHandle, how: Ended) {
        let Some(call) = self.calls.remove(&handle) else { return };
        self.by_rtp.remove(&call.rtp.port());
        if let Some(memory) = self.memories.get_mut(call.memory) {
            if memory.ended.is_some() {
                self.violations.push(format!("{:?} ended twice", memory.party));
            }
            memory.ended = Some(how);
        }
    }

    /// What is left of calls.
    pub fn residue(&self) -> usize {
        self.calls.len() + self.sip.dialogs_live() + self.sip.transactions_live()
    }

    /// Calls under way.
    pub fn calls_live(&self) -> usize {
        self.calls.len()
    }
}

/// Packets of one telephone-event before its end is sent three times.
const EVENT_PACKETS: u32 = 5;
/// Packets without event behind one.
const PAUSE_PACKETS: u32 = 4;

impl Stream {
    /// The next packet of 20 ms: µ-law silence, or an event (RFC 4733).
    fn packet(&mut self, ssrc: u32) -> Bytes {
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        if self.event.is_none()
            && let Some(key) = self.keys.pop_front()
        {
            let code = "0123456789*#ABCD".find(key).unwrap_or(0) as u8;
            self.event = Some((code, 0, self.timestamp));
        }
        let (payload_type, timestamp, payload) = match &mut self.event {
            Some((code, count, since)) if u32::from(*count) < EVENT_PACKETS + 3 => {
                *count += 1;
                let end = u32::from(*count) > EVENT_PACKETS;
                let units = u32::from(*count).min(EVENT_PACKETS) * 160;
                let [high, low] = (units as u16).to_be_bytes();
                let marker = if *count == 1 { 0x80 } else { 0 };
                let payload = vec![*code, if end { 0x80 | 10 } else { 10 }, high, low];
                (101 | marker, *since, payload)
            }
            _ => (0, self.timestamp, vec![0xff; 160]),
        };
        if let Some((_, count, _)) = &mut self.event
            && payload_type == 0
        {
            *count += 1;
            if u32::from(*count) >= EVENT_PACKETS + 3 + PAUSE_PACKETS {
                self.event = None;
            }
        }
        let mut packet = Vec::with_capacity(172);
        packet.extend([0x80, payload_type]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(payload);
        Bytes::from(packet)
    }
}
