//! control-media-layer
