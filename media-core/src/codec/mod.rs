//! Audio codecs and their registry by SDP name.

pub mod g711;
