//! edge-media
