//! The core as a whole: pages of a pretended customer, pretended edges, one clock.

#![allow(clippy::unwrap_used)]

mod ends;
mod fallback;
mod flows;
mod recordings;
mod screening;
mod world;
