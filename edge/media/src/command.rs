//! What signalling tells a media worker.
//!
//! A *port* is a SIP leg or a trunk channel. Signalling chooses its [`PortKey`]; the shell binds
//! the sockets of a leg under the same key before the worker hears of it. All ports of a session
//! live on one worker. A worker carries commands out in order and never refuses one in silence:
//! every program that was started reports its end, every removed port reports its counters.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

pub use link_proto::media::{AudioCodec, LinkPath, RecordTrack};
use link_proto::{ChannelId, OpId};

/// A port of a worker: a place in a table and how often the place was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// Place, below the configured number of ports of the edge; unique over all shards.
    pub index: u32,
    /// Use of the place; an event or command with another one is about a port that is gone.
    pub generation: u32,
}

/// A session of signalling, in the same manner. It only groups ports and names programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Place; unique over all shards.
    pub index: u32,
    /// Use of the place.
    pub generation: u32,
}

/// A media program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpKey {
    /// Session.
    pub session: SessionKey,
    /// Number within the session.
    pub op: OpId,
}

/// Open recording at the recorder, as the shell numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecorderHandle(pub u32);

/// A codec under its RTP payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadMapping {
    /// RTP payload type, 0–127.
    pub payload_type: u8,
    /// What it means.
    pub codec: AudioCodec,
}

/// Who may set the address that a leg's RTP is sent to, besides signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latching {
    /// Nobody but signalling: RTP from elsewhere is dropped.
    Off,
    /// The address in the SDP with any port, or one in its /24 (IPv4) or /64 (IPv6).
    SdpNetwork,
    /// Any address: the provider is known to sit behind NAT.
    Any,
}

/// Direction of a leg's media, seen from us (RFC 3264 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// We send only: the endpoint has put us on hold with music, or listens only.
    SendOnly,
    /// We receive only.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// RTP is sent to the endpoint.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// RTP is expected from the endpoint; otherwise the media timeout does not run.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

/// All that is negotiated about a leg. [`WorkerCommand::UpdateLeg`] replaces it as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct LegConfig {
    /// Audio payload types that the endpoint may send. At most [`LegConfig::CODECS_MAX`].
    pub receive: Vec<PayloadMapping>,
    /// Audio payload type that we send.
    pub send: PayloadMapping,
    /// telephone-event (RFC 4733) payload type that the endpoint sends.
    pub telephone_event_receive: Option<u8>,
    /// telephone-event payload type that we send.
    pub telephone_event_send: Option<u8>,
    /// Packet length towards the endpoint in ms.
    pub ptime_ms: u32,
    /// Where RTP goes according to SDP; `None` before there is one (then nothing is sent, and what
    /// arrives is dropped and counted).
    pub remote_rtp: Option<SocketAddr>,
    /// Where RTCP goes (RFC 3605, else RTP port + 1); equal to `remote_rtp` with rtcp-mux.
    pub remote_rtcp: Option<SocketAddr>,
    /// RTP and RTCP share a port (RFC 5761).
    pub rtcp_mux: bool,
    /// Who may move the remote address.
    pub latching: Latching,
    /// Rises whenever signalling gave a new remote address: only then may the worker learn again.
    pub latch_epoch: u32,
    /// SSRC that we send; constant for the life of the leg.
    pub local_ssrc: u32,
    /// CNAME for RTCP (RFC 7022), at most 32 bytes.
    pub cname: String,
    /// Report [`crate::event::WorkerEvent::MediaTimeout`] after so many ms without RTP; `None` =
    /// off. Runs only while [`Self::answered`] and [`Self::direction`] receives.
    pub media_timeout_ms: Option<u32>,
    /// The leg is established.
    pub answered: bool,
    /// Direction.
    pub direction: Direction,
}

impl LegConfig {
    /// Most entries of [`Self::receive`].
    pub const CODECS_MAX: usize = 4;
}

/// A trunk channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Which peer node, as the trunk numbers them.
    pub peer: u32,
    /// Number of the channel, equal at both ends.
    pub channel: ChannelId,
    /// Codec in both directions; its static payload type is used.
    pub codec: AudioCodec,
    /// Payload type of telephone-event inside the channel.
    pub telephone_event: Option<u8>,
    /// SSRC that we send.
    pub local_ssrc: u32,
}

/// A prompt, ready to be encoded. Built outside the worker and never freed by it alone.
#[derive(PartialEq, Eq)]
pub struct Prompt {
    /// Linear PCM, mono, 8,000 samples/s.
    pub samples: Vec<i16>,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prompt({} samples)", self.samples.len())
    }
}

/// One piece of a play program.
#[derive(Debug, Clone, PartialEq)]
pub enum ProgramItem {
    /// A prompt.
    Prompt {
        /// Audio.
        prompt: Arc<Prompt>,
        /// How often; 0 = until stopped.
        times: u32,
    },
    /// Silence.
    Pause {
        /// Length in ms.
        length_ms: u64,
    },
    /// DTMF as RFC 4733 events, or as tones if the endpoint has no telephone-event.
    Digits {
        /// Characters out of `0-9A-D*#wW`; `w` = 500 ms, `W` = 1 s of silence.
        digits: String,
    },
    /// Ringback until stopped.
    Ringback {
        /// ISO 3166 code, two lower-case letters.
        country: [u8; 2],
    },
    /// 1,000 Hz.
    Beep {
        /// Length in ms.
        length_ms: u64,
    },
}

/// When a program begins. Waiting for the end of another program is done by signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramStart {
    /// With the command.
    Now,
    /// With [`WorkerCommand::StartOp`].
    OnCommand,
}

/// Collection of digits.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectProgram {
    /// Ends the collection when reached; `None` = unlimited.
    pub digits_max: Option<u32>,
    /// Characters that end the collection and are not part of the result.
    pub finish_on: String,
    /// Inter-digit and first-digit timeout in ms.
    pub timeout_ms: u64,
    /// When the timer starts (digits count from the command on; the first one starts it too).
    pub timer: ProgramStart,
    /// Play program that the first digit stops; if it does not run here, the port's source is cut.
    pub stops_play: Option<OpId>,
}

/// What becomes of the time in which a recording is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordPause {
    /// It is silence in the recording.
    Silence,
    /// It is left out.
    Skip,
}

/// Recording.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordProgram {
    /// Where the audio goes.
    pub recorder: RecorderHandle,
    /// Second port.
    pub with: Option<PortKey>,
    /// Direction of the first port.
    pub track: RecordTrack,
    /// It begins interrupted.
    pub paused: Option<RecordPause>,
    /// Two channels instead of a mix.
    pub dual_channel: bool,
    /// When it begins.
    pub start: ProgramStart,
    /// Longest recording in ms.
    pub length_max_ms: u64,
    /// Silence in ms that ends it; 0 = off. Does not run while no RTP arrives.
    pub silence_timeout_ms: u64,
    /// Keys that end it.
    pub finish_on: String,
    /// Remove silence at both ends.
    pub trim_silence: bool,
}

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerCommand {
    /// A leg exists; its sockets are bound.
    AddLeg {
        /// Key.
        port: PortKey,
        /// Session.
        session: SessionKey,
        /// What is known by now.
        config: LegConfig,
    },
    /// Signalling has news about a leg.
    UpdateLeg {
        /// Key.
        port: PortKey,
        /// Everything anew.
        config: LegConfig,
    },
    /// A trunk channel exists.
    AddChannel {
        /// Key.
        port: PortKey,
        /// Session.
        session: SessionKey,
        /// Its parameters.
        config: ChannelConfig,
    },
    /// Remove a port: its programs report their end (`LegEnded`), then the port its counters by
    /// [`crate::event::WorkerEvent::PortRemoved`]. Ports it fed are filled with silence.
    RemovePort {
        /// Key.
        port: PortKey,
    },
    /// Make `from` the source of `to`, in place of the one it has.
    Connect {
        /// Where packets arrive.
        from: PortKey,
        /// Where they are sent.
        to: PortKey,
        /// Relay or transcode.
        path: LinkPath,
    },
    /// Take the source of `to` away if it is `from`; a leg is filled with silence.
    Disconnect {
        /// Present source.
        from: PortKey,
        /// The port that is fed.
        to: PortKey,
    },
    /// Play towards a port: the program becomes its source; a program that was it reports
    /// `Stopped`.
    StartPlay {
        /// Name of the program.
        op: OpKey,
        /// Port.
        port: PortKey,
        /// In order.
        items: Vec<ProgramItem>,
    },
    /// Listen for digits that arrive at a port.
    StartCollect {
        /// Name of the program.
        op: OpKey,
        /// Port.
        port: PortKey,
        /// Rules.
        program: CollectProgram,
    },
    /// Record what arrives at a port.
    StartRecord {
        /// Name of the program.
        op: OpKey,
        /// Port.
        port: PortKey,
        /// Rules.
        program: RecordProgram,
    },
    /// Interrupt a recording, or go on with it (`None`).
    PauseRecord {
        /// Name of the program.
        op: OpKey,
        /// How.
        pause: Option<RecordPause>,
    },
    /// Report each of these keys at a port.
    StartWatch {
        /// Name of the program.
        op: OpKey,
        /// Port.
        port: PortKey,
        /// Keys.
        keys: String,
    },
    /// Start the program, or the timer of the collection, that waits for it.
    StartOp {
        /// Name of the program.
        op: OpKey,
    },
    /// End a program; it reports its result. Unknown ones are ignored.
    StopOp {
        /// Name of the program.
        op: OpKey,
    },
    /// A digit that came by signalling (SIP INFO): programs take it as if it had come by RTP, and
    /// ports fed by this one get it as telephone-event.
    InjectDigit {
        /// Port at which it arrived.
        port: PortKey,
        /// One of `0-9A-D*#`.
        digit: char,
        /// Length in ms.
        duration_ms: u32,
    },
    /// Count over the present ports of a session.
    Snapshot {
        /// Session.
        session: SessionKey,
        /// Comes back in the answer.
        phase: u32,
    },
}
