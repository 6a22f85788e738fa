//! One deadline per port: a binary heap that knows where each port stands. No allocation after
//! `new`.

const NOWHERE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Deadlines {
    heap: Vec<(u64, u32)>,
    place: Vec<u32>,
}

impl Deadlines {
    pub(crate) fn new(ports_max: u32) -> Self {
        let count = ports_max as usize;
        Self { heap: Vec::with_capacity(count), place: vec![NOWHERE; count] }
    }

    /// The earliest deadline and its port.
    pub(crate) fn first(&self) -> Option<(u64, u32)> {
        self.heap.first().copied()
    }

    /// Sets, moves or (`None`) removes the deadline of a port.
    pub(crate) fn set(&mut self, port: u32, due_us: Option<u64>) {
        let Some(&place) = self.place.get(port as usize) else { return };
        let at = place as usize;
        match (due_us, place == NOWHERE) {
            (None, true) => {}
            (None, false) => {
                let last = self.heap.len() - 1;
                self.swap(at, last);
                self.heap.pop();
                self.note(port, NOWHERE);
                if at < last {
                    let at = self.up(at);
                    self.down(at);
                }
            }
            (Some(due), true) => {
                self.heap.push((due, port));
                let at = self.heap.len() - 1;
                self.note(port, at as u32);
                self.up(at);
            }
            (Some(due), false) => {
                if let Some(entry) = self.heap.get_mut(at) {
                    entry.0 = due;
                }
                let at = self.up(at);
                self.down(at);
            }
        }
    }

    fn note(&mut self, port: u32, place: u32) {
        if let Some(entry) = self.place.get_mut(port as usize) {
            *entry = place;
        }
    }

    fn key(&self, at: usize) -> (u64, u32) {
        self.heap.get(at).copied().unwrap_or((u64::MAX, u32::MAX))
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(self.key(a).1, a as u32);
        self.note(self.key(b).1, b as u32);
    }

    fn up(&mut self, mut at: usize) -> usize {
        while at > 0 && self.key(at) < self.key((at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        at
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let least = if self.key(right) < self.key(left) { right } else { left };
            if least >= self.heap.len() || self.key(at) <= self.key(least) {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn the_first_is_the_least(steps in prop::collection::vec((0u32..20, prop::option::of(0u64..50)), 1..200)) {
            let mut deadlines = Deadlines::new(20);
            let mut model = BTreeMap::new();
            for (port, due) in steps {
                deadlines.set(port, due);
                match due {
                    Some(due) => { model.insert(port, due); }
                    None => { model.remove(&port); }
                }
                let least = model.iter().map(|(port, due)| (*due, *port)).min();
                prop_assert_eq!(deadlines.first(), least);
            }
        }
    }
}
