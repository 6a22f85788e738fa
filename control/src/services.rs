//! The parts towards customers: HTTP client, prompts, REST API, status callbacks.

use control_core::io::{
    FetchFailure, FetchFailureKind, FetchRequest, FetchResponse, MediaFailure, MediaFile,
    MediaRequest,
};
use link_proto::media::PromptKey;
use link_proto::{AccountSid, CallSid};
use std::sync::Arc;

use anyhow::Context as _;

use crate::api;
use crate::assemble::{Context, Services};
use crate::callback_sender::{CallbackSender, SenderConfig};
use crate::config::Config;
use crate::core_task::{Boxed, MediaLayer, WebClient};
use crate::prompts::Prompts;
use crate::web_client::{HttpClient, authorities};

/// Builds them. To be called inside a tokio runtime.
///
/// # Errors
/// If one cannot start.
pub fn build(config: &Config) -> anyhow::Result<Services> {
    let authorities = authorities(&config.web).context("web.ca_file")?;
    let prompts = Prompts::start(config, authorities.clone())?;
    let web = HttpClient::new(authorities).context("HTTP client")?;
    let sweeper = prompts.clone();
    Ok(Services {
        web: Arc::new(web),
        media: Arc::new(prompts),
        api: api::router,
        tasks: vec![
            Box::new(|context: Context, shutdown| {
                let web = context.web.clone();
                let sender = CallbackSender::new(SenderConfig::default(), context.store, web);
                Box::pin(sender.run(context.callbacks, shutdown))
            }),
            Box::new(move |context: Context, shutdown| {
                sweeper.register(&context.metrics);
                Box::pin(sweeper.sweep(shutdown))
            }),
        ],
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
