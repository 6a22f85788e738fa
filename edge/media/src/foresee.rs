//! Names the memory that a packet will need, so that a shell that has several packets at hand can
//! have it brought near for all of them at once. Changes nothing.

use crate::command::PortKey;
use crate::port::{Kind, Port};
use crate::worker::Worker;

/// Address and size of a piece of memory; it is not read here.
fn piece<T>(value: &T, near: &impl Fn(*const u8, usize)) {
    near((&raw const *value).cast(), size_of::<T>());
}

fn latch_and_counts(port: &Port, near: &impl Fn(*const u8, usize)) {
    piece(&port.key, near);
    piece(&port.counters, near);
    if let Kind::Leg(leg) = &port.kind {
        piece(&leg.latch, near);
    }
}

impl Worker {
    /// A packet of this port comes soon: what the port needs to take it.
    pub fn foresee(&self, port: PortKey, near: impl Fn(*const u8, usize)) {
        let Some(port) = self.ports.soon(port).and_then(|slot| self.ports.get(slot)) else {
            return;
        };
        piece(&port.input, &near);
        piece(&port.sinks, &near);
        latch_and_counts(port, &near);
    }

    /// The next step: what the port that it feeds needs to send the packet.
    pub fn foresee_sink(&self, port: PortKey, near: impl Fn(*const u8, usize)) {
        let Some(sink) = self.sink(port) else { return };
        piece(&sink.out, &near);
        latch_and_counts(sink, &near);
    }

    /// The port that a packet of this port leaves by.
    #[must_use]
    pub fn foreseen_sink(&self, port: PortKey) -> Option<PortKey> {
        self.sink(port).map(|sink| sink.key)
    }

    fn sink(&self, port: PortKey) -> Option<&Port> {
        let port = self.ports.get(self.ports.soon(port)?)?;
        self.ports.get(port.sinks.as_slice().last().copied()?)
    }
}
