//! Recordings: what arrives at one or two ports, as blocks of 20 ms in step with the clock.
//!
//! Blocks are made by time, not by packets: where no RTP arrives the recording holds silence, so
//! its length is that of the call.

use media_core::frame::FRAME_SAMPLES_MAX;
use media_core::jitter::{JitterBuffer, JitterPacket, Pop};
use media_core::mix::add_saturating;
use media_core::plc::Concealer;
use media_core::rtp::packet::RtpHeader;
use media_core::units::{Dbov, RtpTime, SampleRate, Ssrc};

use link_proto::media::RecordTrack;

use crate::command::{AudioCodec, ProgramStart, RecordPause, RecordProgram, RecorderHandle};
use crate::event::{RecordEnd, WorkerEvent};
use crate::limits::{COPY_BYTES_MAX, RECORD_JITTER, TAPS_MAX};
use crate::list::{List, Pool};
use crate::op::{Body, OpTable};
use crate::port::codec_of;
use crate::recording::{AudioBlock, BLOCK_SAMPLES, RecorderMessage};
use crate::tx::Tx;
use crate::worker::{At, Returned, Worker};

const BLOCK_US: u64 = 20_000;
/// Blocks made at once after a stall.
const BLOCKS_PER_CALL_MAX: usize = 50;
/// Quieter than this is silence.
const SILENCE: Dbov = Dbov(45);
/// RTP arrives if a packet came within this time.
const ARRIVING_US: u64 = 200_000;
/// Kept before and behind what is not silence when silence is trimmed.
const TRIM_MARGIN_BLOCKS: u64 = 5;
/// Bytes of one recording beside its two jitter buffers' storage.
pub(crate) const TRACKS_BYTES: usize = size_of::<Tracks>();

/// What orders the packets of a track.
pub(crate) type Numbers = (Ssrc, u16, RtpTime);

/// The audio of one port on its way into a recording.
#[derive(Debug)]
struct Track {
    jitter: JitterBuffer,
    concealer: Concealer,
    codec: AudioCodec,
    /// Decoded and not yet taken.
    samples: [i16; FRAME_SAMPLES_MAX],
    count: usize,
}

impl Track {
    fn new() -> Self {
        Self {
            jitter: JitterBuffer::new(RECORD_JITTER),
            concealer: Concealer::new(SampleRate::HZ_8000),
            codec: AudioCodec::Pcmu,
            samples: [0; FRAME_SAMPLES_MAX],
            count: 0,
        }
    }

    fn reset(&mut self) {
        self.jitter.clear();
        self.concealer = Concealer::new(SampleRate::HZ_8000);
        self.count = 0;
    }

    fn insert(&mut self, numbers: Numbers, codec: AudioCodec, payload: &[u8], now_us: u64) {
        let (ssrc, seq, timestamp) = numbers;
        if self.codec != codec {
            self.jitter.clear();
            self.codec = codec;
        }
        let packet = JitterPacket { ssrc, seq, timestamp, units: payload.len() as u32, payload };
        self.jitter.insert(&packet, now_us);
    }

    /// The next 20 ms; what is missing is silence.
    fn block(&mut self, now_us: u64, block: &mut [i16; BLOCK_SAMPLES]) {
        while self.count < BLOCK_SAMPLES {
            let Some(room) = self.samples.get_mut(self.count..) else { return };
            let frame = BLOCK_SAMPLES.min(room.len());
            let made = match self.jitter.pop(now_us) {
                Pop::Frame { payload, .. } => {
                    let count = codec_of(self.codec).decode(payload, room);
                    self.concealer.on_frame(room.get_mut(..count).unwrap_or_default());
                    count
                }
                Pop::Lost => {
                    self.concealer.conceal(room.get_mut(..frame).unwrap_or_default());
                    frame
                }
                Pop::Silence | Pop::Empty => {
                    let missing = BLOCK_SAMPLES - self.count;
                    room.iter_mut().take(missing).for_each(|sample| *sample = 0);
                    missing
                }
            };
            self.count += made;
        }
        if let Some(taken) = self.samples.first_chunk::<BLOCK_SAMPLES>() {
            *block = *taken;
        }
        self.samples.copy_within(BLOCK_SAMPLES..self.count, 0);
        self.count -= BLOCK_SAMPLES;
    }
}

/// Storage of one recording, lent from a pool.
#[derive(Debug)]
pub(crate) struct Tracks([Track; 2]);

impl Tracks {
    pub(crate) fn new() -> Self {
        Self([Track::new(), Track::new()])
    }
}

/// A running recording.
#[derive(Debug)]
pub(crate) struct Record {
    recorder: RecorderHandle,
    tracks: u32,
    /// Slot of the second port, while it is there.
    pub(crate) with: Option<u32>,
    pub(crate) track: RecordTrack,
    pub(crate) paused: Option<RecordPause>,
    dual_channel: bool,
    blocks_max: u64,
    silence_timeout_us: u64,
    finish_on: String,
    trim_silence: bool,
    /// `None`: it waits for its start.
    pub(crate) next_block_us: Option<u64>,
    blocks: u64,
    silent_us: u64,
    /// First and last block that are not silent.
    voice: Option<(u64, u64)>,
    last_packet_us: Option<u64>,
}

impl Record {
    pub(crate) fn new(program: RecordProgram, tracks: u32, with: Option<u32>, now_us: u64) -> Self {
        let mut record = Self {
            recorder: program.recorder,
            tracks,
            with,
            track: program.track,
            paused: program.paused,
            dual_channel: program.dual_channel,
            blocks_max: (program.length_max_ms / 20).max(1),
            silence_timeout_us: program.silence_timeout_ms.saturating_mul(1_000),
            finish_on: program.finish_on,
            trim_silence: program.trim_silence,
            next_block_us: None,
            blocks: 0,
            silent_us: 0,
            voice: None,
            last_packet_us: None,
        };
        if program.start == ProgramStart::Now {
            record.start(now_us);
        }
        record
    }

    pub(crate) fn start(&mut self, now_us: u64) {
        self.next_block_us.get_or_insert(now_us + BLOCK_US);
    }

    /// Counts a block. The end if it was the last one.
    fn note(&mut self, silent: bool, now_us: u64) -> Option<RecordEnd> {
        let block = self.blocks;
        self.blocks += 1;
        if silent {
            let arriving = self.last_packet_us.is_some_and(|us| us + ARRIVING_US >= now_us);
            self.silent_us += if arriving { BLOCK_US } else { 0 };
        } else {
            self.silent_us = 0;
            self.voice = Some((self.voice.map_or(block, |(first, _)| first), block));
        }
        if self.silence_timeout_us > 0 && self.silent_us >= self.silence_timeout_us {
            return Some(RecordEnd::Silence);
        }
        (self.blocks >= self.blocks_max).then_some(RecordEnd::LengthMax)
    }

    /// First block that is kept, and how many are.
    fn kept(&self) -> (u64, u64) {
        match (self.trim_silence, self.voice) {
            (false, _) => (0, self.blocks),
            (true, None) => (0, 0),
            (true, Some((first, last))) => {
                let from = first.saturating_sub(TRIM_MARGIN_BLOCKS);
                (from, (last + 1 + TRIM_MARGIN_BLOCKS).min(self.blocks) - from)
            }
        }
    }
}

fn is_silent(block: &[i16]) -> bool {
    Dbov::of_block(block) > SILENCE
}

/// Gives an audio packet that leaves a port to the recordings of what it sends.
pub(crate) fn record_sent(
    ops: &mut OpTable,
    tracks: &mut Pool<Tracks>,
    taps: List<TAPS_MAX>,
    numbers: Numbers,
    codec: AudioCodec,
    payload: &[u8],
    now_us: u64,
) {
    for place in taps.as_slice() {
        let Some(Body::Record(record)) = ops.get_mut(*place).map(|op| &mut op.body) else {
            continue;
        };
        if record.next_block_us.is_none() {
            continue;
        }
        if let Some(Tracks([_, sent])) = tracks.get_mut(record.tracks) {
            sent.insert(numbers, codec, payload, now_us);
        }
    }
}

impl Worker {
    /// Gives an audio packet to the recordings of its port.
    pub(crate) fn record_packet(
        &mut self,
        slot: u32,
        header: &RtpHeader,
        codec: AudioCodec,
        payload: &[u8],
        at: At,
    ) {
        let Some(listeners) = self.ports.get(slot).map(|port| port.input.listeners) else { return };
        for place in listeners.as_slice() {
            let Some(op) = self.ops.get_mut(*place) else { continue };
            let track = usize::from(op.port != slot);
            let Body::Record(record) = &mut op.body else { continue };
            if record.next_block_us.is_none() || record.track == RecordTrack::Sent {
                continue;
            }
            record.last_packet_us = Some(at.us);
            let tracks = self.tracks.get_mut(record.tracks);
            if let Some(track) = tracks.and_then(|tracks| tracks.0.get_mut(track)) {
                let numbers = (header.ssrc, header.seq, header.timestamp);
                track.insert(numbers, codec, payload, at.us);
            }
        }
    }

    /// Makes the blocks that are due.
    pub(crate) fn record_blocks<T: Tx>(&mut self, place: u32, at: At, tx: &mut T) {
        for _ in 0..BLOCKS_PER_CALL_MAX {
            let Some(op) = self.ops.get_mut(place) else { return };
            let Body::Record(record) = &mut op.body else { return };
            let Some(due_us) = record.next_block_us.filter(|due| *due <= at.us) else { return };
            record.next_block_us = Some(due_us + BLOCK_US);
            let Some(Tracks([first, second])) = self.tracks.get_mut(record.tracks) else { return };
            let (mut a, mut b) = ([0; BLOCK_SAMPLES], [0; BLOCK_SAMPLES]);
            first.block(due_us, &mut a);
            second.block(due_us, &mut b);
            match record.paused {
                Some(RecordPause::Skip) => continue,
                Some(RecordPause::Silence) => (a, b) = ([0; BLOCK_SAMPLES], [0; BLOCK_SAMPLES]),
                None => {}
            }
            let silent = is_silent(&a) && is_silent(&b);
            let mut samples = [0; BLOCK_SAMPLES * 2];
            if record.dual_channel {
                let pairs = a.iter().zip(&b).flat_map(|(a, b)| [*a, *b]);
                samples.iter_mut().zip(pairs).for_each(|(to, from)| *to = from);
            } else {
                add_saturating(&mut a, &b);
                samples.iter_mut().zip(a).for_each(|(to, from)| *to = from);
            }
            let channels = 1 + u8::from(record.dual_channel);
            let block = AudioBlock { recorder: record.recorder, channels, samples };
            tx.record(RecorderMessage::Audio(block));
            if let Some(end) = record.note(silent, due_us) {
                return self.end_record(place, end, tx);
            }
        }
    }

    pub(crate) fn record_digit<T: Tx>(&mut self, place: u32, digit: char, at: At, tx: &mut T) {
        let Some(Body::Record(record)) = self.ops.get(place).map(|op| &op.body) else { return };
        if record.next_block_us.is_some() && record.finish_on.contains(digit) {
            self.record_blocks(place, at, tx);
            self.end_record(place, RecordEnd::FinishKey(digit), tx);
        }
    }

    pub(crate) fn end_record<T: Tx>(&mut self, place: u32, end: RecordEnd, tx: &mut T) {
        self.unlisten(place);
        let Some(op) = self.ops.remove(place) else { return };
        let Body::Record(record) = op.body else { return };
        let (first, count) = record.kept();
        let per_block = BLOCK_SAMPLES as u64;
        tx.record(RecorderMessage::Finish {
            recorder: record.recorder,
            first_sample: first * per_block,
            sample_count: count * per_block,
        });
        if let Some(tracks) = self.tracks.get_mut(record.tracks) {
            tracks.0.iter_mut().for_each(Track::reset);
        }
        self.tracks.give_back(record.tracks);
        self.returned.push_back(Returned::Text(record.finish_on));
        self.emit(WorkerEvent::RecordDone { op: op.key, duration_ms: count * 20, end });
        self.schedule(op.port);
    }
}

const _: () = assert!(RECORD_JITTER.payload_bytes_max <= COPY_BYTES_MAX);
// A block may be left over in front of the longest packet.
const _: () = assert!(RECORD_JITTER.payload_bytes_max + BLOCK_SAMPLES <= FRAME_SAMPLES_MAX);
