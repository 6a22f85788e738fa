//! Media of calls: offer and answer, and media commands turned into worker commands.

pub(crate) mod commands;
pub(crate) mod events;
pub(crate) mod offer_answer;
pub(crate) mod op;
pub(crate) mod programs;
pub(crate) mod resources;
