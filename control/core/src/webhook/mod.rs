//! Requests to application servers: what is in them, how they are signed, how often they are
//! tried and what comes after the last failure.

pub mod fallback;
pub mod overrides;
pub mod request;
pub mod seal;
pub mod sign;
