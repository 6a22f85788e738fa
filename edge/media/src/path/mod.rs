//! Where packets go.

pub(crate) mod collect;
pub(crate) mod forward;
pub(crate) mod playback;
pub(crate) mod record;
