//! edge-uring
