//! What happens by time at a port: frames, timeouts, reports, programs.

use media_core::dtmf::Digit;
use media_core::dtmf::event::EventSender;
use media_core::frame::FRAME_SAMPLES_MAX;

use crate::egress::PAYLOAD_BYTES_MAX;
use crate::event::{PlayEnd, WorkerEvent};
use crate::limits::{DIGIT_MS, FILL_BEHIND_US_MAX, FRAMES_BEHIND_MAX, RELAY_QUIET_US};
use crate::op::Body;
use crate::path::playback::Rendered;
use crate::port::{CLOCK_HZ, Kind, Port, Source, codec_of};
use crate::tx::Tx;
use crate::worker::{At, Worker};

/// Power of the digits that we send, in −dBm0.
const DIGIT_VOLUME: u8 = 10;

impl Worker {
    /// Everything of one port whose time has come.
    pub(crate) fn tick_port<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        self.catch_up(slot, at, tx);
        self.check_timeout(slot, at);
        self.report_if_due(slot, at, tx);
        let Some(port) = self.ports.get(slot) else { return };
        let listeners = port.input.listeners;
        for place in listeners.as_slice().iter().copied() {
            let due = self.ops.get(place).filter(|op| op.port == slot).and_then(|op| op.due_us());
            if due.is_some_and(|due| due <= at.us) {
                self.tick_program(place, at, tx);
            }
        }
        self.make_frames(slot, at, tx);
    }

    fn tick_program<T: Tx>(&mut self, place: u32, at: At, tx: &mut T) {
        match self.ops.get(place).map(|op| &op.body) {
            Some(Body::Collect(_)) => self.collect_timeout(place),
            Some(Body::Record(_)) => self.record_blocks(place, at, tx),
            Some(Body::Play(_) | Body::Watch(_)) | None => {}
        }
    }

    fn check_timeout(&mut self, slot: u32, at: At) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        let Kind::Leg(leg) = &port.kind else { return };
        let Some(timeout_us) = leg.timeout_us.filter(|_| leg.is_expecting()) else { return };
        if !port.input.timed_out && at.us >= port.input.alive_us + timeout_us {
            port.input.timed_out = true;
            let event = WorkerEvent::MediaTimeout { port: port.key };
            self.emit(event);
        }
    }

    /// Makes the frames that are due.
    fn make_frames<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        notice_quiet(port, at, tx);
        for _ in 0..FRAMES_BEHIND_MAX {
            let Some(port) = self.ports.get_mut(slot) else { return };
            if !port.makes_frames() {
                port.out.tick_us = None;
                return;
            }
            port.out.start_rhythm(at.us);
            let Some(due_us) = port.out.tick_us.filter(|due| *due <= at.us) else { return };
            port.out.tick_us = Some(due_us + port.out.ptime_us());
            self.make_frame(slot, at, tx);
        }
        let Some(port) = self.ports.get_mut(slot) else { return };
        if port.out.tick_us.is_some_and(|due| due <= at.us) {
            // Too late to catch up: a new spurt in a new rhythm.
            port.out.tick_us = Some(at.us + port.out.ptime_us());
            port.out.frame_id = port.out.fresh_id();
            self.stats.stalls += 1;
        }
    }

    fn make_frame<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        if port.out.event.is_none() && !start_digit(port) {
            return match port.out.source {
                Source::Play(place) => self.play_frame(slot, place, at, tx),
                Source::Port(_) if port.out.begun => {}
                // Silence for everybody would keep a thread behind that is so already, and packets with it.
                Source::Port(_) if tx.behind_us() >= FILL_BEHIND_US_MAX => {}
                Source::None | Source::Port(_) => self.fill_frame(slot, at, tx),
            };
        }
        self.event_packet(slot, at, tx);
    }

    /// One packet of the digit that is being sent. The three with the end bit go out one by one.
    fn event_packet<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        let sends = port.exit().is_some();
        let out = &mut port.out;
        let Some(payload_type) = out.telephone_event else {
            out.event = None;
            return;
        };
        let Some(event) = &mut out.event else { return };
        let packet = event.poll(&mut out.stream, at.rtp);
        if event.is_done() {
            out.event = None;
            // What goes on behind the event is a new spurt.
            out.frame_id = out.fresh_id();
            out.relay_id = out.fresh_id();
            out.begun = false;
            if matches!(out.source, Source::Port(_)) {
                // The next relayed packet shall find its place free.
                out.tick_us = Some(at.us + out.ptime_us() * 3 / 2);
            }
        }
        if let Some((numbers, payload)) = packet
            && sends
        {
            self.send_made(slot, numbers, payload_type, &payload, at, tx);
        }
    }

    fn fill_frame<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        if port.exit().is_none() {
            return;
        }
        let out = &mut port.out;
        let (units, payload_type) = (out.units(), out.payload_type);
        let mut payload = [0u8; PAYLOAD_BYTES_MAX];
        let Some(payload) = payload.get_mut(..units as usize) else { return };
        codec_of(out.codec).fill_silence(payload);
        let Ok(numbers) = out.stream.generate(out.frame_id, units, at.rtp) else { return };
        self.stats.packets_fill += 1;
        self.send_made(slot, numbers, payload_type, payload, at, tx);
    }

    fn play_frame<T: Tx>(&mut self, slot: u32, place: u32, at: At, tx: &mut T) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        if let Kind::Leg(leg) = &port.kind
            && leg.latch.rtp().is_none()
        {
            // Nothing was heard yet: the program waits for an address.
            return;
        }
        let sends = port.exit().is_some();
        let out = &mut port.out;
        let Some(op) = self.ops.get_mut(place) else { return };
        let key = op.key;
        let Body::Play(play) = &mut op.body else { return };
        if play.is_finished() {
            // Nothing in it to play.
            self.end_play(place, PlayEnd::Finished);
            return self.make_frame_after_play(slot, at, tx);
        }
        let units = out.units();
        let mut samples = [0i16; FRAME_SAMPLES_MAX];
        let Some(samples) = samples.get_mut(..units as usize) else { return };
        // On hold time goes on, unheard.
        let numbers = if sends {
            out.stream.generate(out.frame_id, units, at.rtp).map(Some)
        } else {
            Ok(None)
        };
        let Ok(numbers) = numbers else { return };
        let rendered = play.render(samples, out.telephone_event.is_some());
        let starts = sends && !std::mem::replace(&mut play.started, true);
        let finished = play.is_finished();
        if let Rendered::Digit(digit) = rendered {
            out.push_digit(digit);
        }
        let mut payload = [0u8; PAYLOAD_BYTES_MAX];
        let length = codec_of(out.codec).encode(samples, &mut payload);
        let payload_type = out.payload_type;
        if starts {
            self.emit(WorkerEvent::PlayStarted { op: key });
        }
        if let (Some(numbers), Some(payload)) = (numbers, payload.get(..length)) {
            self.send_made(slot, numbers, payload_type, payload, at, tx);
        }
        if finished {
            self.end_play(place, PlayEnd::Finished);
        }
    }

    /// The frame whose turn it is goes to what follows the program.
    fn make_frame_after_play<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        if self.ports.get(slot).is_some_and(Port::is_filled) {
            self.fill_frame(slot, at, tx);
        }
    }
}

/// A relayed source that has been quiet for long counts as one that has not begun; but while this
/// thread is behind, its packets may be waiting, and silence in their place would put it back further.
fn notice_quiet<T: Tx>(port: &mut Port, at: At, tx: &T) {
    let out = &mut port.out;
    let last_us = out.last_us.unwrap_or(0);
    if !matches!(out.source, Source::Port(_))
        || !out.begun
        || at.us.saturating_sub(last_us) < out.quiet_after_us()
    {
        return;
    }
    let behind_us = tx.behind_us();
    if at.us.saturating_sub(last_us).saturating_sub(behind_us) < out.quiet_after_us() {
        out.look_us = at.us + behind_us.min(RELAY_QUIET_US);
        return;
    }
    out.begun = false;
    out.frame_id = out.fresh_id();
}

/// Takes the next waiting digit. False if there is none.
fn start_digit(port: &mut Port) -> bool {
    let units = port.out.units();
    let out = &mut port.out;
    let Some(code) = out.digits.as_slice().first().copied() else { return false };
    out.digits.remove(code);
    if out.telephone_event.is_none() {
        return false;
    }
    let Some(digit) = u8::try_from(code).ok().and_then(Digit::from_event) else { return false };
    let step_units = u16::try_from(units).unwrap_or(u16::MAX);
    let total_units = DIGIT_MS * (CLOCK_HZ / 1_000);
    let source = out.fresh_id();
    out.event = Some(EventSender::new(digit, source, total_units, step_units, DIGIT_VOLUME));
    true
}
