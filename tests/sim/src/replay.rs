//! What happened in a run: a hash that two runs of one seed must share, and, on demand, text.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use link_proto::ChannelId;

use crate::world::Parcel;

/// Lines that are kept.
const LINES_MAX: usize = 20_000;

/// The trace of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    verbose: bool,
    lines: std::collections::VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    pub fn new(verbose: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, verbose, lines: std::collections::VecDeque::new() }
    }

    fn mix(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash ^= self.hash >> 29;
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// A datagram arrives.
    pub fn datagram(&mut self, at: Duration, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.mix(&(at.as_micros() as u64).to_le_bytes());
        self.mix(bytes);
        let sip = from.port() == crate::net::SIP_PORT;
        if self.verbose && sip {
            let text = String::from_utf8_lossy(bytes);
            let head = text.lines().next().unwrap_or_default().to_owned();
            let id = text.lines().find(|line| line.starts_with("Call-ID")).unwrap_or_default();
            let cseq = text.lines().find(|line| line.starts_with("CSeq")).unwrap_or_default();
            self.line(at, format!("{from} > {to} {head} | {id} | {cseq}"));
        }
    }

    /// A trunk packet arrives.
    pub fn trunk(&mut self, at: Duration, from: usize, channel: ChannelId, bytes: &[u8]) {
        self.mix(&(at.as_micros() as u64).to_le_bytes());
        self.mix(bytes);
        if self.verbose && bytes.len() < 40 {
            self.line(at, format!("trunk from edge {from}: channel {} {bytes:?}", channel.0));
        }
    }

    /// Something happens.
    pub fn parcel(&mut self, at: Duration, parcel: &Parcel) {
        self.mix(&(at.as_micros() as u64).to_le_bytes());
        match parcel {
            Parcel::Up { message, .. } | Parcel::Down { message, .. } => {
                self.mix(&(message_kind(message) as u64).to_le_bytes());
            }
            other => self.mix(&(discriminant(other)).to_le_bytes()),
        }
        if self.verbose && !matches!(parcel, Parcel::Phone { act: crate::phone::Act::Frame(_), .. })
        {
            self.line(at, shortened(parcel));
        }
    }

    fn line(&mut self, at: Duration, text: String) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>10.3} {text}", at.as_secs_f64()));
    }

    /// The text, if it is kept.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

fn shortened(value: &impl Debug) -> String {
    let mut text = format!("{value:?}");
    if text.len() > 1_600 {
        let cut = (0..=1_600).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn message_kind(message: &link_proto::message::Message) -> usize {
    use link_proto::message::Message as M;
    match message {
        M::Hello(_) => 1,
        M::Welcome(_) => 2,
        M::Reconcile(m) => 3 + m.legs.len() * 100,
        M::Orphans(m) => 4 + m.sessions.len() * 100,
        M::Event(m) => 5 + m.sequence as usize * 100,
        M::EventAck(m) => 6 + m.sequence as usize * 100,
        M::Command(m) => 7 + m.id as usize * 100,
        M::CommandAck(m) => 8 + m.id as usize * 100,
        M::Tables(m) => 9 + m.version as usize * 100,
        M::Load(_) => 10,
        M::Refused(_) => 11,
    }
}

fn discriminant(parcel: &Parcel) -> u64 {
    match parcel {
        Parcel::EdgeInput { shard, .. } => 100 + *shard as u64,
        Parcel::EdgeCrash { .. } => 1,
        Parcel::EdgeStart { .. } => 2,
        Parcel::ControlCrash { .. } => 3,
        Parcel::ControlCrashBusy { .. } => 21,
        Parcel::ControlStart => 4,
        Parcel::Cut { .. } => 5,
        Parcel::Connect { .. } => 6,
        Parcel::Up { .. } => 7,
        Parcel::Down { .. } => 8,
        Parcel::EdgeNotices { .. } => 9,
        Parcel::ControlNotices { .. } => 10,
        Parcel::ControlInput { .. } => 11,
        Parcel::CallbackDone { ok, .. } => 12 + u64::from(*ok),
        Parcel::CallbackAgain { .. } => 14,
        Parcel::Upload { .. } => 15,
        Parcel::Dial { .. } => 16,
        Parcel::Phone { .. } => 17,
        Parcel::Api { .. } => 18,
        Parcel::ClockStep { .. } => 19,
        Parcel::Heal => 20,
    }
}
