//! Whole daemons under calls.

pub mod churn;
pub mod five_hundred;
pub mod set_up;
pub mod world;
