//! The core as a whole: phones, a scripted control node, a pretended worker, one clock.

mod calls;
mod control_link;
mod lossy;
mod outside;
mod outside_peers;
mod world;
