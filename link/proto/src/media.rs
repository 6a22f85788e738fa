//! Media programs and the wiring between ports, as control commands them and an edge reports them.
//!
//! A *port* is where RTP enters and leaves a node: a SIP leg or a trunk channel. Every port has at
//! most one *source* that feeds what is sent out of it (another port or a play program); a new
//! source replaces the old one. What arrives at a port goes to the ports that name it as their
//! source, and to the programs (collect, record, watch) that listen on it.

use serde::{Deserialize, Serialize};

use crate::ids::{CallSid, ChannelId, NodeId, OpId, RecordingSid};

/// Where RTP enters and leaves a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Port {
    /// A SIP leg that this node owns.
    Leg(CallSid),
    /// A channel in the trunk to another node.
    Channel(ChannelId),
}

/// An audio codec by its SDP name and clock rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AudioCodec {
    /// G.711 µ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
}

impl AudioCodec {
    /// Name in SDP.
    pub fn sdp_name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// Static RTP payload type (RFC 3551 §6).
    pub fn static_payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }
}

/// Key of processed prompt media: lower-case hex SHA-256 over content and media parameters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PromptKey(pub String);

/// One piece of a play program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlayItem {
    /// A prompt from the media layer, `times` times; 0 = until stopped, at most 1,000 times.
    Prompt {
        /// Which media.
        key: PromptKey,
        /// How often.
        times: u32,
    },
    /// Silence.
    Pause {
        /// Length in ms.
        length_ms: u64,
    },
    /// DTMF as RFC 4733 events; `w` = 500 ms, `W` = 1 s of silence.
    Digits {
        /// Characters out of `0-9A-D*#wW`.
        digits: String,
    },
    /// Ringback until stopped; cadence by country code, for example `us`.
    Ringback {
        /// ISO 3166 code in lower case.
        country: String,
    },
    /// The tone before a recording: 1,000 Hz.
    Beep {
        /// Length in ms.
        length_ms: u64,
    },
}

/// When a program begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartWhen {
    /// With the command.
    Now,
    /// When that play program on the same port has ended, for whatever reason.
    AfterPlay(OpId),
    /// When [`MediaCommand::Start`] names it: its play program runs on another node.
    OnCommand,
}

/// Collection of digits (`Gather`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectRules {
    /// Ends the collection when reached; `None` = unlimited.
    pub digits_max: Option<u32>,
    /// Characters that end the collection and are not part of the result; empty = none.
    pub finish_on: String,
    /// Silence on the keypad, in ms, that ends the collection. Runs from [`Self::timer`], and
    /// anew from every digit.
    pub timeout_ms: u64,
    /// When the timer starts. Digits are accepted from the command on.
    pub timer: StartWhen,
    /// The play program that the first digit stops (barge-in), wherever it runs: a local one is
    /// stopped, the source of the port is cut otherwise.
    pub stops_play: Option<OpId>,
}

/// Which direction of a port is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordTrack {
    /// What arrives at the port.
    #[default]
    Received,
    /// What is sent out of the port.
    Sent,
    /// What arrives is the first channel, what is sent the second one, or both are mixed.
    Both,
}

/// Recording of one or two ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordRules {
    /// Identifier and file name.
    pub recording: RecordingSid,
    /// Second port: what arrives there is the second channel, or is mixed in.
    pub with: Option<Port>,
    /// Direction of the port. With [`Self::with`] it is what arrives.
    #[serde(default)]
    pub track: RecordTrack,
    /// Two channels instead of a mix.
    pub dual_channel: bool,
    /// When the recording begins.
    pub start: StartWhen,
    /// Longest recording in ms.
    pub length_max_ms: u64,
    /// Silence in ms that ends the recording; 0 = off. Does not run while no RTP arrives.
    pub silence_timeout_ms: u64,
    /// Keys that end the recording; empty = none.
    pub finish_on: String,
    /// Remove silence at both ends.
    pub trim_silence: bool,
}

/// How packets go from one port to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkPath {
    /// Header rewritten in place, payload untouched.
    Relay,
    /// Decoded and encoded again.
    Transcode,
}

/// A media command for one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediaCommand {
    /// Make a trunk channel to another node.
    OpenChannel {
        /// Its number, equal at both ends.
        channel: ChannelId,
        /// The node at the other end.
        peer: NodeId,
        /// Codec of the audio in both directions.
        codec: AudioCodec,
        /// Payload type of telephone-event inside the channel.
        telephone_event: Option<u8>,
    },
    /// Remove a trunk channel.
    CloseChannel {
        /// Its number.
        channel: ChannelId,
    },
    /// Make `from` the source of `to`.
    Link {
        /// Where packets arrive.
        from: Port,
        /// Where they are sent out.
        to: Port,
        /// Relay or transcode.
        path: LinkPath,
    },
    /// Take away the source of `to` if it is `from`; a leg is filled with silence.
    Unlink {
        /// The present source.
        from: Port,
        /// The port that is fed.
        to: Port,
    },
    /// Play towards a port.
    Play {
        /// Operation.
        op: OpId,
        /// Port.
        port: Port,
        /// In order.
        items: Vec<PlayItem>,
    },
    /// Listen for digits from a port.
    Collect {
        /// Operation.
        op: OpId,
        /// Port.
        port: Port,
        /// Rules.
        rules: CollectRules,
    },
    /// Record what arrives at a port.
    Record {
        /// Operation.
        op: OpId,
        /// Port.
        port: Port,
        /// Rules.
        rules: RecordRules,
    },
    /// Report each of these keys pressed at a port (`hangupOnStar`).
    Watch {
        /// Operation.
        op: OpId,
        /// Port.
        port: Port,
        /// Keys.
        keys: String,
    },
    /// Start a program (or its timer) that waits for [`StartWhen::OnCommand`].
    Start {
        /// Operation.
        op: OpId,
    },
    /// End a program. A play, collect or record program reports its result.
    Stop {
        /// Operation.
        op: OpId,
    },
    /// Interrupt a recording.
    PauseRecord {
        /// Operation.
        op: OpId,
        /// Silence stands for what is left out; otherwise time is left out as well.
        silence: bool,
    },
    /// Go on with a recording.
    ResumeRecord {
        /// Operation.
        op: OpId,
    },
    /// Count: answered by [`MediaEvent::Snapshot`].
    Snapshot {
        /// Number of the phase that begins now.
        phase: u32,
    },
}

/// Why a play program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlayEnd {
    /// Everything was played.
    Finished,
    /// Stopped by command or by a digit.
    Stopped,
    /// The prompt could not be had.
    Failed,
    /// The leg went away.
    LegEnded,
}

/// Why a collection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CollectEnd {
    /// `digits_max` reached.
    Complete,
    /// A key of `finish_on`.
    FinishKey(char),
    /// No key in time.
    Timeout,
    /// Stopped by command.
    Stopped,
    /// The leg went away.
    LegEnded,
}

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordEnd {
    /// A key of `finish_on`.
    FinishKey(char),
    /// Silence.
    Silence,
    /// `length_max_ms`.
    LengthMax,
    /// Stopped by command.
    Stopped,
    /// The leg went away.
    LegEnded,
    /// The file could not be written.
    Failed,
}

/// What a node reports about media.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediaEvent {
    /// The first packet of a play program was sent.
    PlayStarted {
        /// Operation.
        op: OpId,
    },
    /// A play program ended.
    PlayDone {
        /// Operation.
        op: OpId,
        /// Why.
        end: PlayEnd,
    },
    /// The first digit of a collection arrived.
    CollectBegun {
        /// Operation.
        op: OpId,
    },
    /// A collection ended.
    CollectDone {
        /// Operation.
        op: OpId,
        /// Digits without the finish key.
        digits: String,
        /// Why.
        end: CollectEnd,
    },
    /// A recording ended; its bytes follow on a stream of their own.
    RecordDone {
        /// Operation.
        op: OpId,
        /// Which recording.
        recording: RecordingSid,
        /// Length in ms after trimming.
        duration_ms: u64,
        /// Why.
        end: RecordEnd,
    },
    /// A watched key was pressed.
    Key {
        /// Operation.
        op: OpId,
        /// Key.
        key: char,
    },
    /// Counters since the session began on this node.
    Snapshot {
        /// Phase that begins now.
        phase: u32,
        /// RTP packets handed to a trunk or sent to an address of another region.
        packets_out_of_region: u64,
        /// RTP packets sent to endpoints.
        packets_to_endpoints: u64,
        /// RTP packets received from endpoints.
        packets_from_endpoints: u64,
    },
    /// The trunk that a channel needs is gone for good or back again.
    ChannelState {
        /// Channel.
        channel: ChannelId,
        /// Usable.
        up: bool,
    },
}
