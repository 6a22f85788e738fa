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
    /// A packet of this port comes soon: what the port needs to take it. If its stream is settled, then
    /// the index of the port that it leaves by is known at once.
    pub fn foresee(&self, port: PortKey, near: impl Fn(*const u8, usize)) -> Option<u32> {
        if let Some(to) = self.settled.foresee(port, &near) {
            return Some(to);
        }
        let place = self.ports.soon(port).and_then(|slot| self.ports.place(slot))?;
        lines(place, offset_of!(Port, input), &near);
        None
    }

    /// The next step: what the port that it feeds needs to send the packet.
    pub fn foresee_sink(&self, port: PortKey, near: impl Fn(*const u8, usize)) {
        if self.settled.exit(port).is_some() {
            return;
        }
        let Some(sink) = self.sink(port).and_then(|slot| self.ports.place(slot)) else { return };
        lines(sink, offset_of!(Port, out), &near);
    }

    /// The index of the port that a packet of this port leaves by.
    #[must_use]
    pub fn foreseen_sink(&self, port: PortKey) -> Option<u32> {
        let settled = self.settled.exit(port);
        settled.or_else(|| self.ports.get(self.sink(port)?).map(|sink| sink.key.index))
    }

    fn sink(&self, port: PortKey) -> Option<u32> {
        let port = self.ports.get(self.ports.soon(port)?)?;
        port.sinks.as_slice().last().copied()
    }
}
