//! Requests to application servers.

pub mod overrides;
