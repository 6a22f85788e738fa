//! Tests that measure time: each has the machine to itself.

mod lat;
mod ops;
mod peers;
mod room;
