//! Typed headers, one file each.

pub mod cseq;
pub mod media_type;
pub mod name_addr;
pub mod params;
pub mod reason;
pub mod via;
