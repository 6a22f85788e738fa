//! tandem-load
