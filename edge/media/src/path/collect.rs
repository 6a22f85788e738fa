//! Collection of digits: the rules, free of everything else.

use link_proto::OpId;

use crate::command::{CollectProgram, OpKey, ProgramStart};
use crate::event::{CollectEnd, PlayEnd, WorkerEvent};
use crate::limits::COLLECT_DIGITS_MAX;
use crate::op::Body;
use crate::port::Source;
use crate::worker::{Returned, Worker};

/// A running collection.
#[derive(Debug)]
pub(crate) struct Collect {
    digits: String,
    digits_max: usize,
    finish_on: String,
    timeout_us: u64,
    stops_play: Option<OpId>,
    begun: bool,
    pub(crate) deadline_us: Option<u64>,
}

impl Collect {
    pub(crate) fn new(program: CollectProgram, now_us: u64) -> Self {
        let digits_max = program.digits_max.map_or(COLLECT_DIGITS_MAX, |max| max as usize);
        let digits_max = digits_max.clamp(1, COLLECT_DIGITS_MAX);
        let mut collect = Self {
            digits: String::with_capacity(digits_max),
            digits_max,
            finish_on: program.finish_on,
            timeout_us: program.timeout_ms.saturating_mul(1_000),
            stops_play: program.stops_play,
            begun: false,
            deadline_us: None,
        };
        if program.timer == ProgramStart::Now {
            collect.start_timer(now_us);
        }
        collect
    }

    /// A timer that runs is left alone.
    pub(crate) fn start_timer(&mut self, now_us: u64) {
        self.deadline_us.get_or_insert(now_us.saturating_add(self.timeout_us));
    }

    /// Takes a digit. Whether it is the first key, and the end if it was the last one.
    fn on_digit(&mut self, digit: char, now_us: u64) -> (bool, Option<CollectEnd>) {
        let first = !std::mem::replace(&mut self.begun, true);
        if self.finish_on.contains(digit) {
            return (first, Some(CollectEnd::FinishKey(digit)));
        }
        self.digits.push(digit);
        self.deadline_us = Some(now_us.saturating_add(self.timeout_us));
        let complete = self.digits.len() >= self.digits_max;
        (first, complete.then_some(CollectEnd::Complete))
    }
}

impl Worker {
    /// A digit arrived at the port of a collection.
    pub(crate) fn collect_digit(&mut self, place: u32, digit: char, now_us: u64) {
        let Some(op) = self.ops.get_mut(place) else { return };
        let (key, port) = (op.key, op.port);
        let Body::Collect(collect) = &mut op.body else { return };
        let (first, end) = collect.on_digit(digit, now_us);
        let stops_play = collect.stops_play.filter(|_| first);
        if first {
            self.emit(WorkerEvent::CollectBegun { op: key });
        }
        if let Some(op) = stops_play {
            self.cut_play(OpKey { session: key.session, op }, port, now_us);
        }
        match end {
            Some(end) => self.end_collect(place, end),
            None => self.schedule(port),
        }
    }

    /// Barge-in: the program is stopped if it runs here. If it runs at another node, its channel
    /// is cut off from the port.
    fn cut_play(&mut self, play: OpKey, slot: u32, now_us: u64) {
        if let Some(place) = self.ops.find(play) {
            return self.end_play(place, PlayEnd::Stopped);
        }
        let Some(Source::Port(from)) = self.ports.get(slot).map(|port| port.out.source) else {
            return;
        };
        if self.ports.get(from).is_some_and(crate::port::Port::is_channel) {
            self.clear_source(slot, now_us);
        }
    }

    pub(crate) fn collect_timeout(&mut self, place: u32) {
        self.end_collect(place, CollectEnd::Timeout);
    }

    pub(crate) fn end_collect(&mut self, place: u32, end: CollectEnd) {
        self.unlisten(place);
        let Some(op) = self.ops.remove(place) else { return };
        if let Body::Collect(collect) = op.body {
            let digits = collect.digits;
            self.returned.push_back(Returned::Text(collect.finish_on));
            self.emit(WorkerEvent::CollectDone { op: op.key, digits, end });
        }
        self.schedule(op.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CollectEnd::{Complete, FinishKey};

    fn rules(digits_max: Option<u32>, finish_on: &str, timer: ProgramStart) -> Collect {
        let finish_on = finish_on.to_owned();
        let program =
            CollectProgram { digits_max, finish_on, timeout_ms: 5_000, timer, stops_play: None };
        Collect::new(program, 1_000)
    }

    #[test]
    #[allow(clippy::type_complexity, reason = "a table")]
    fn each_rule_ends_where_it_should() {
        let cases: [(Option<u32>, &str, &str, Option<CollectEnd>, &str); 8] = [
            (Some(1), "", "1", Some(Complete), "1"),
            (Some(4), "#", "12", None, "12"),
            (Some(4), "#", "12#", Some(FinishKey('#')), "12"),
            (Some(4), "#", "1234", Some(Complete), "1234"),
            (None, "#*", "12*", Some(FinishKey('*')), "12"),
            (None, "", "12#*0", None, "12#*0"),
            (Some(0), "", "7", Some(Complete), "7"),
            (None, "#", "#", Some(FinishKey('#')), ""),
        ];
        for (digits_max, finish_on, keys, end, digits) in cases {
            let mut collect = rules(digits_max, finish_on, ProgramStart::Now);
            let mut last = None;
            for (n, key) in keys.chars().enumerate() {
                assert_eq!(last, None, "{keys}");
                let (first, end) = collect.on_digit(key, 2_000);
                assert_eq!(first, n == 0);
                last = end;
            }
            assert_eq!((last, collect.digits.as_str()), (end, digits), "{keys}");
        }
    }

    #[test]
    fn the_timer_starts_by_rule_or_by_the_first_digit() {
        assert_eq!(rules(None, "", ProgramStart::Now).deadline_us, Some(5_001_000));
        let mut collect = rules(None, "", ProgramStart::OnCommand);
        assert_eq!(collect.deadline_us, None);
        collect.start_timer(7_000);
        collect.start_timer(8_000);
        assert_eq!(collect.deadline_us, Some(5_007_000));
        let mut collect = rules(None, "", ProgramStart::OnCommand);
        collect.on_digit('1', 100);
        assert_eq!(collect.deadline_us, Some(5_000_100));
        collect.on_digit('2', 200);
        assert_eq!(collect.deadline_us, Some(5_000_200));
    }

    #[test]
    fn unlimited_is_not_endless() {
        let mut collect = rules(None, "", ProgramStart::Now);
        let room = collect.digits.capacity();
        let ends: Vec<_> = (0..COLLECT_DIGITS_MAX).map(|_| collect.on_digit('1', 1).1).collect();
        assert_eq!(ends.iter().filter(|end| end.is_some()).count(), 1);
        assert_eq!(ends.last(), Some(&Some(Complete)));
        assert_eq!(collect.digits.capacity(), room, "nothing is allocated for digits");
    }
}
