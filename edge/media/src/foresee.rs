//! Names the memory that a packet will need, so that a shell that has several packets at hand can
//! have it brought near for all of them at once. Changes nothing.

use crate::command::PortKey;
use crate::port::{LINE_BYTES, Port};
use crate::worker::Worker;

/// Names the first cache lines of a value; it is not read here.
fn lines<T>(first: &T, count: usize, near: &impl Fn(*const u8, usize)) {
    near((&raw const *first).cast(), count * LINE_BYTES);
}

impl Worker {
    /// A packet of this port comes soon: what the port needs to take it.
    pub fn foresee(&self, port: PortKey, near: impl Fn(*const u8, usize)) {
        let Some(port) = self.ports.soon(port).and_then(|slot| self.ports.get(slot)) else {
            return;
        };
        lines(port, 2, &near);
        lines(&port.input, 4, &near);
    }

    /// The next step: what the port that it feeds needs to send the packet.
    pub fn foresee_sink(&self, port: PortKey, near: impl Fn(*const u8, usize)) {
        let Some(sink) = self.sink(port) else { return };
        lines(sink, 2, &near);
        lines(&sink.out, 4, &near);
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
