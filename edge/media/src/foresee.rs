//! Names the memory that a packet will need, so that a shell that has several packets at hand can
//! have it brought near for all of them at once. Changes nothing.

use std::mem::offset_of;

use crate::command::PortKey;
use crate::port::{LINE_BYTES, Port};
use crate::worker::Worker;

/// What a packet needs at both its ports, and one of the parts beside it.
fn lines(port: *const u8, part: usize, near: &impl Fn(*const u8, usize)) {
    near(port, 2 * LINE_BYTES);
    near(port.wrapping_add(part), 4 * LINE_BYTES);
}

impl Worker {
    /// A packet of this port comes soon: what the port needs to take it.
    pub fn foresee(&self, port: PortKey, near: impl Fn(*const u8, usize)) {
        let Some(port) = self.ports.soon(port).and_then(|slot| self.ports.place(slot)) else {
            return;
        };
        lines(port, offset_of!(Port, input), &near);
    }

    /// The next step: what the port that it feeds needs to send the packet.
    pub fn foresee_sink(&self, port: PortKey, near: impl Fn(*const u8, usize)) {
        let Some(sink) = self.sink(port).and_then(|slot| self.ports.place(slot)) else { return };
        lines(sink, offset_of!(Port, out), &near);
    }

    /// The port that a packet of this port leaves by.
    #[must_use]
    pub fn foreseen_sink(&self, port: PortKey) -> Option<PortKey> {
        self.ports.get(self.sink(port)?).map(|sink| sink.key)
    }

    fn sink(&self, port: PortKey) -> Option<u32> {
        let port = self.ports.get(self.ports.soon(port)?)?;
        port.sinks.as_slice().last().copied()
    }
}
