//! Audio file formats over slices.

pub mod wav;
