//! The parts towards customers: HTTP client, prompts, REST API, status callbacks.

use control_core::io::{
    FetchFailure, FetchFailureKind, FetchRequest, FetchResponse, MediaFailure, MediaFile,
    MediaRequest,
};
use link_proto::media::PromptKey;
use link_proto::{AccountSid, CallSid};
use std::sync::Arc;

use crate::assemble::Services;
use crate::config::Config;
use crate::core_task::{Boxed, MediaLayer, WebClient};

/// Builds them.
///
/// # Errors
/// If one cannot start.
pub fn build(_config: &Config) -> anyhow::Result<Services> {
    Ok(Services {
        web: Arc::new(Absent),
        media: Arc::new(Absent),
        api: |_| axum::Router::new(),
        tasks: Vec::new(),
    })
}

/// Stands where a part is not built in: everything asked of it fails in the ordinary way, so that
/// calls go to their fallbacks and alerts.
pub struct Absent;

impl WebClient for Absent {
    fn fetch(&self, _: FetchRequest) -> Boxed<Result<FetchResponse, FetchFailure>> {
        let message = "this node has no HTTP client".to_owned();
        let kind = FetchFailureKind::Connect;
        Box::pin(async move { Err(FetchFailure { kind, message, elapsed_ms: 0 }) })
    }

    fn session_ended(&self, _: CallSid) {}
}

impl MediaLayer for Absent {
    fn prepare(&self, _: AccountSid, _: MediaRequest) -> Boxed<Result<MediaFile, MediaFailure>> {
        let message = "this node has no media layer".to_owned();
        Box::pin(async move { Err(MediaFailure { code: 12_400, message }) })
    }

    fn bytes(&self, _: PromptKey) -> Boxed<Option<bytes::Bytes>> {
        Box::pin(async { None })
    }
}
