//! Real daemons, a real web server and free ports, for the demonstration, the end-to-end tests and
//! the benches. Everything that a [`Rig`] starts ends with it.
//!
//! * [`Rig`] — a folder with certificates and configurations, and the daemons that run from it.
//! * [`AppServer`] — a customer's web server: pages, delays, failures, and a record of requests.
//! * [`http`] — the little of HTTP that a test needs to ask a daemon something.

pub mod app;
pub mod http;
pub mod ports;
pub mod process;
pub mod rig;

pub use app::{AppServer, Page, Recorded};
pub use process::Process;
pub use rig::{Control, ControlPlan, Edge, EdgePlan, MediaNode, NumberPlan, Rig, RoutePlan};
