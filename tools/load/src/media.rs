//! The RTP side of one call: its socket, what it sends each 20 ms, what it makes of what arrives.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::clock::now_ns;
use crate::codec::{Codec, FRAME_SAMPLES};
use crate::digits::{DigitMethod, DigitReceiver, DigitSender, KeyFrame};
use crate::ear::Ear;
use crate::phone::Detail;
use crate::receive::Receiver;
use crate::report::{PhoneReport, RtpSent};
use crate::sdp::{self, Described, MediaDirection};
use crate::source::{BurstCache, Next, Player, Source};

/// Ten minutes of recorded samples.
const AUDIO_SAMPLES_MAX: usize = 10 * 60 * 8000;
const ONSETS_MAX: usize = 100_000;
const HEADER_BYTES: usize = 12;
const PORT_TRIES: u32 = 64;

/// Something about a packet that arrived which belongs in the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// The first packet.
    First {
        /// Its payload type.
        payload_type: u8,
    },
    /// Another SSRC than before.
    Stream,
    /// A key.
    Digit(char),
}

/// Buffers that all calls share.
pub struct Scratch {
    datagram: Vec<u8>,
    control: Vec<u8>,
    samples: Vec<i16>,
    /// How far the kernel's stamps are ahead of our clock; renewed each turn.
    pub realtime_ahead_ns: u64,
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self {
            datagram: vec![0; 2048],
            control: nix::cmsg_space!(TimeSpec),
            samples: Vec::with_capacity(2048),
            realtime_ahead_ns: 0,
        }
    }
}

/// RTP of one call.
pub struct Media {
    socket: UdpSocket,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    peer_allows: bool,
    stopped: bool,
    held: bool,
    codec: Option<Codec>,
    /// Payload type of events that we send: the peer's.
    event_payload_type: Option<u8>,
    /// Payload type of events that we receive: the one we described (RFC 3264 §5.1).
    own_event_payload_type: Option<u8>,
    version: u64,
    seq: u16,
    timestamp: u32,
    ssrc: u32,
    talk_spurt: bool,
    player: Option<Player>,
    rhythm_seed: u64,
    digits: DigitSender,
    sent: RtpSent,
    receiver: Receiver,
    ear: Option<Ear>,
    digit_receiver: DigitReceiver,
    kernel_stamps: bool,
    audio: Option<Vec<i16>>,
}

impl Media {
    /// Binds an even port (RFC 3550 §11), so that nobody's RTCP comes to another call's RTP.
    ///
    /// # Errors
    /// No port or descriptor left.
    pub fn open(
        ip: IpAddr,
        detail: Detail,
        record: bool,
        rng: &mut StdRng,
    ) -> std::io::Result<Self> {
        let mut tries = 0;
        let socket = loop {
            let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
            tries += 1;
            if socket.local_addr()?.port() % 2 == 0 || tries == PORT_TRIES {
                break socket;
            }
        };
        socket.set_nonblocking(true)?;
        let kernel_stamps = detail != Detail::Counters
            && setsockopt(&socket, sockopt::ReceiveTimestampns, &true).is_ok();
        Ok(Self {
            local: socket.local_addr()?,
            socket,
            remote: None,
            peer_allows: true,
            stopped: false,
            held: false,
            codec: None,
            event_payload_type: None,
            own_event_payload_type: None,
            version: 0,
            seq: rng.random(),
            timestamp: rng.random(),
            ssrc: rng.random(),
            talk_spurt: true,
            player: None,
            rhythm_seed: rng.random(),
            digits: DigitSender::default(),
            sent: RtpSent::default(),
            receiver: Receiver::new(detail == Detail::Full),
            ear: (detail != Detail::Counters || record).then(Ear::default),
            digit_receiver: DigitReceiver::default(),
            kernel_stamps,
            audio: record.then(Vec::new),
        })
    }

    /// The socket, for the poller.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Where it receives.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Where it sends to, once that is agreed.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// Sends elsewhere, whatever was agreed.
    pub fn set_remote(&mut self, remote: SocketAddr) {
        self.remote = Some(remote);
    }

    /// Codec that it sends, once that is agreed.
    pub fn codec(&self) -> Option<Codec> {
        self.codec
    }

    /// What it heard.
    pub fn ear(&self) -> Option<&Ear> {
        self.ear.as_ref()
    }

    /// Packets received so far.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Counters of what was sent.
    pub fn sent(&self) -> &RtpSent {
        &self.sent
    }

    /// Whether all queued keys are sent.
    pub fn digits_idle(&self) -> bool {
        self.digits.is_idle()
    }

    /// Queues keys.
    pub fn press(&mut self, keys: &str, method: DigitMethod) {
        self.digits.push(keys, method);
    }

    /// Stops or resumes sending, whatever was agreed.
    pub fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// Puts the peer on hold or takes it back; the next offer says so.
    pub fn set_held(&mut self, held: bool) {
        self.held = held;
    }

    /// Says something else from the next frame on.
    pub fn say(&mut self, source: Source, cache: &mut BurstCache) {
        let codec = self.codec.unwrap_or(Codec::Pcmu);
        self.rhythm_seed = self.rhythm_seed.wrapping_add(1);
        self.player = Some(Player::new(source, codec, self.rhythm_seed, cache));
    }

    /// An offer with these codecs, or, once something is agreed, the agreed ones.
    pub fn offer(&mut self, codecs: &[Codec], events: bool) -> String {
        self.version += 1;
        let direction = if self.held { MediaDirection::SendOnly } else { MediaDirection::SendRecv };
        let own = self.own_event_payload_type.unwrap_or(sdp::EVENT_PAYLOAD_TYPE);
        let events = events.then_some(own);
        self.own_event_payload_type = events;
        sdp::write(self.local, self.version, codecs, events, direction)
    }

    /// Answers an offer with what both speak, in the order of the offer.
    ///
    /// # Errors
    /// Nothing in common, or an offer that cannot be read.
    pub fn answer(
        &mut self,
        offer: &[u8],
        codecs: &[Codec],
        events: bool,
        source: &Source,
        cache: &mut BurstCache,
    ) -> Result<String, String> {
        let described = sdp::read(offer)?;
        let common: Vec<Codec> =
            described.codecs.iter().copied().filter(|codec| codecs.contains(codec)).collect();
        let event_payload_type = described.event_payload_type.filter(|_| events);
        let direction = described.direction.answered();
        self.agree(&described, &common, event_payload_type, source, cache)?;
        self.own_event_payload_type = event_payload_type;
        self.version += 1;
        Ok(sdp::write(self.local, self.version, &common, event_payload_type, direction))
    }

    /// Takes the peer's answer to our offer.
    ///
    /// # Errors
    /// Nothing that we offered, or an answer that cannot be read.
    pub fn answered(
        &mut self,
        answer: &[u8],
        codecs: &[Codec],
        source: &Source,
        cache: &mut BurstCache,
    ) -> Result<(), String> {
        let described = sdp::read(answer)?;
        let common: Vec<Codec> =
            described.codecs.iter().copied().filter(|codec| codecs.contains(codec)).collect();
        self.agree(&described, &common, described.event_payload_type, source, cache)
    }

    fn agree(
        &mut self,
        described: &Described,
        common: &[Codec],
        event_payload_type: Option<u8>,
        source: &Source,
        cache: &mut BurstCache,
    ) -> Result<(), String> {
        let Some(&codec) = common.first() else {
            return Err(format!("no codec in common: the peer speaks {:?}", described.codecs));
        };
        if described.addr.port() == 0 {
            return Err("the peer refused the audio stream (port 0)".to_owned());
        }
        self.remote = Some(described.addr);
        self.peer_allows = described.direction.peer_may_send();
        self.event_payload_type = event_payload_type;
        self.codec = Some(codec);
        if self.player.as_ref().is_none_or(|player| player.codec() != codec) {
            self.player = Some(Player::new(source.clone(), codec, self.rhythm_seed, cache));
        }
        Ok(())
    }

    /// Sends the frame that is due at `due_ns`; the key that begins with it.
    pub fn tick(&mut self, due_ns: u64) -> Option<(char, DigitMethod)> {
        let timestamp = self.timestamp;
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES as u32);
        let (Some(codec), Some(remote)) = (self.codec, self.remote) else { return None };
        if self.stopped || !self.peer_allows {
            self.talk_spurt = true;
            return None;
        }
        let mut speech = [0; FRAME_SAMPLES];
        // The player goes on under keys, so that its rhythm does not depend on them.
        let next = self.player.as_mut().map_or(Next::Nothing, |player| player.next(&mut speech));
        let (key_frame, begins) = self.digits.next(codec);
        let payload_type = codec.payload_type();
        match key_frame {
            KeyFrame::Event { payload, marker, age_samples } => {
                if let Some(event_type) = self.event_payload_type {
                    let began = timestamp.wrapping_sub(age_samples);
                    self.send(remote, event_type, marker, began, &payload, due_ns);
                }
            }
            KeyFrame::Tones(frame) => {
                self.send(remote, payload_type, false, timestamp, &frame, due_ns);
            }
            KeyFrame::Pause => {
                let silence = codec.encode(&[0; FRAME_SAMPLES]);
                self.send(remote, payload_type, false, timestamp, &silence, due_ns);
            }
            KeyFrame::Speech => {
                if let Next::Frame { onset } = next {
                    let spurt = std::mem::take(&mut self.talk_spurt);
                    let at = self.send(remote, payload_type, spurt, timestamp, &speech, due_ns);
                    if onset && self.sent.onsets_ns.len() < ONSETS_MAX {
                        self.sent.onsets_ns.push(at);
                    }
                }
            }
        }
        if let Some((key, _)) = begins {
            self.sent.digits.push(key);
        }
        begins
    }

    /// Whether the peer takes events; keys sent as such go nowhere otherwise.
    pub fn events_agreed(&self) -> bool {
        self.event_payload_type.is_some()
    }

    fn send(
        &mut self,
        remote: SocketAddr,
        payload_type: u8,
        marker: bool,
        timestamp: u32,
        payload: &[u8],
        due_ns: u64,
    ) -> u64 {
        let mut packet = [0u8; HEADER_BYTES + FRAME_SAMPLES];
        let mut header =
            [0x80, payload_type | (u8::from(marker) << 7), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&self.seq.to_be_bytes());
        header[4..8].copy_from_slice(&timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let size = HEADER_BYTES + payload.len();
        packet[..HEADER_BYTES].copy_from_slice(&header);
        packet[HEADER_BYTES..size].copy_from_slice(payload);
        self.seq = self.seq.wrapping_add(1);

        let at = now_ns();
        self.sent.late_max_us = self.sent.late_max_us.max(at.saturating_sub(due_ns) / 1000);
        match self.socket.send_to(&packet[..size], remote) {
            Ok(_) => self.sent.packets += 1,
            Err(_) => self.sent.send_errors += 1,
        }
        self.sent.first_ns.get_or_insert(at);
        self.sent.last_ns = Some(at);
        at
    }

    /// Reads one datagram; `false` if there is none.
    pub fn read(&mut self, scratch: &mut Scratch, noticed: &mut Vec<Noticed>) -> bool {
        let received = if self.kernel_stamps {
            read_stamped(&self.socket, scratch)
        } else {
            let got = self.socket.recv_from(&mut scratch.datagram);
            got.map(|(size, from)| (size, Some(from), now_ns()))
        };
        let (size, from, at_ns) = match received {
            Ok(received) => received,
            // A port that was closed at the other end is reported here; the socket stays usable.
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        };
        let datagram = scratch.datagram.get(..size).unwrap_or_default();
        let before = (self.receiver.stats().packets, self.receiver.stats().ssrc_changes);
        let Some(packet) = self.receiver.receive(at_ns, datagram, self.own_event_payload_type)
        else {
            return true;
        };
        if before.0 == 0 {
            noticed.push(Noticed::First { payload_type: packet.payload_type });
        }
        if self.receiver.stats().ssrc_changes > before.1 {
            noticed.push(Noticed::Stream);
        }
        if self.remote.is_some() && from != self.remote {
            self.receiver.stats_mut().from_elsewhere += 1;
        }
        if Some(packet.payload_type) == self.own_event_payload_type {
            let key = self.digit_receiver.receive(packet.timestamp, packet.payload);
            noticed.extend(key.map(Noticed::Digit));
            return true;
        }
        let Some(codec) = Codec::of_payload_type(packet.payload_type) else {
            self.receiver.stats_mut().wrong_payload_type += 1;
            return true;
        };
        if let Some(ear) = &mut self.ear
            && packet.fresh
        {
            scratch.samples.clear();
            codec.decode(packet.payload, &mut scratch.samples);
            ear.hear(at_ns, &scratch.samples);
            if let Some(audio) = &mut self.audio
                && audio.len() < AUDIO_SAMPLES_MAX
            {
                audio.extend_from_slice(&scratch.samples);
            }
        }
        true
    }

    /// Adds what the media knows to a report.
    pub fn report(&self, report: &mut PhoneReport) {
        report.codec = self.codec;
        report.sent = self.sent.clone();
        report.received = self.receiver.stats().clone();
        if let Some(ear) = &self.ear {
            report.bursts = ear.bursts();
            report.heard = ear.heard().to_vec();
        }
        report.audio = self.audio.clone().unwrap_or_default();
    }
}

type Stamped = (usize, Option<SocketAddr>, u64);

/// Reads with the kernel's receive time: a late wake-up of ours does not look like delay.
fn read_stamped(socket: &UdpSocket, scratch: &mut Scratch) -> std::io::Result<Stamped> {
    let mut vector = [IoSliceMut::new(&mut scratch.datagram)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut vector,
        Some(&mut scratch.control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let mut at_ns = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmTimestampns(time) = control {
            let real = u64::try_from(std::time::Duration::from(time).as_nanos());
            at_ns = real.ok().map(|real| real.saturating_sub(scratch.realtime_ahead_ns));
        }
    }
    let from = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6))))
    });
    Ok((message.bytes, from, at_ns.unwrap_or_else(now_ns)))
}
