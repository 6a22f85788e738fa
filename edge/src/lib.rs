//! The regional daemon: shells around `edge-core` and `edge-media`.

pub mod config;
pub mod link_client;
pub mod prompt_cache;
pub mod recorder;
pub mod trunk;
pub mod trunk_ring;
pub mod upload;
