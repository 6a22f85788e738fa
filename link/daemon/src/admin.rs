//! The admin port of every daemon: `/live /ready /metrics /calls /log /reload`.
//!
//! Bind it to an address that only operators reach: it has no login.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::drain::Shutdown;
use crate::log::LogLevel;
use crate::metrics::Metrics;
use crate::reload::Reload;

type CallsFuture = Pin<Box<dyn Future<Output = serde_json::Value> + Send>>;

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    ready: Arc<dyn Fn() -> Result<String, String> + Send + Sync>,
    calls: Arc<dyn Fn() -> CallsFuture + Send + Sync>,
    metrics: Metrics,
    log: LogLevel,
    reload: Option<Reload>,
}

impl Admin {
    /// An admin port that is ready and has no calls, until told otherwise.
    pub fn new(metrics: Metrics, log: LogLevel) -> Self {
        Self {
            ready: Arc::new(|| Ok(String::new())),
            calls: Arc::new(|| Box::pin(async { serde_json::json!([]) })),
            metrics,
            log,
            reload: None,
        }
    }

    /// `/ready` answers 200 with further lines while this is `Ok`, else 503 with the reason in
    /// words.
    #[must_use]
    pub fn ready(
        mut self,
        ready: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        self.ready = Arc::new(ready);
        self
    }

    /// What `POST /reload` asks.
    #[must_use]
    pub fn reload(mut self, reload: Reload) -> Self {
        self.reload = Some(reload);
        self
    }

    /// What `/calls` answers.
    #[must_use]
    pub fn calls<F>(mut self, calls: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = serde_json::Value> + Send + 'static,
    {
        self.calls = Arc::new(move || Box::pin(calls()));
        self
    }

    /// Serves until shutdown. `listener` comes from [`bind`].
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve(self, listener: TcpListener, mut shutdown: Shutdown) -> std::io::Result<()> {
        let router = self.router();
        axum::serve(listener, router)
            .with_graceful_shutdown(async move { shutdown.requested().await })
            .await
    }

    fn router(self) -> Router {
        Router::new()
            .route("/live", get(|| async { "live\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/calls", get(calls))
            .route("/log", get(log).put(set_log))
            .route("/reload", post(reload))
            .with_state(self)
    }
}

/// Binds a TCP port; a port that a killed process left behind can be bound at once.
///
/// # Errors
/// Names the address and the key of the configuration that asks for it.
pub async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    // tokio sets SO_REUSEADDR on listeners.
    TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::anyhow!("`{key}` = {address}: cannot listen (TCP): {error}"))
}

async fn ready(State(admin): State<Admin>) -> Response {
    match (admin.ready)() {
        Ok(more) => format!("ready\n{more}").into_response(),
        Err(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", why.trim_end())).into_response()
        }
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.encode()).into_response()
}

async fn calls(State(admin): State<Admin>) -> Response {
    axum::Json((admin.calls)().await).into_response()
}

async fn log(State(admin): State<Admin>) -> Response {
    admin.log.directives().unwrap_or_else(|| "fixed".to_owned()).into_response()
}

async fn reload(State(admin): State<Admin>) -> Response {
    match admin.reload {
        Some(reload) => match reload.request().await {
            Ok(told) => told.into_response(),
            Err(why) => {
                (StatusCode::BAD_REQUEST, format!("nothing is changed\n{why}\n")).into_response()
            }
        },
        None => (StatusCode::NOT_FOUND, "no configuration to reload\n").into_response(),
    }
}

async fn set_log(State(admin): State<Admin>, directives: String) -> Response {
    match admin.log.set(directives.trim()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(address: SocketAddr, request: &str, body: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let text = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn every_page_answers() {
        let metrics = Metrics::new("test");
        metrics.counter("admin_visits", "Visits").inc();
        let is_ready = Arc::new(AtomicBool::new(false));
        let seen = is_ready.clone();
        let admin = Admin::new(metrics, LogLevel::fixed())
            .ready(move || {
                if seen.load(Ordering::SeqCst) {
                    Ok(String::new())
                } else {
                    Err("no control node".into())
                }
            })
            .calls(|| async { serde_json::json!([{"call": "CA1"}]) });
        let listener = bind("127.0.0.1:0".parse().unwrap(), "admin").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = crate::drain::switch();
        let server = tokio::spawn(admin.serve(listener, shutdown));

        assert_eq!(ask(address, "GET /live", "").await, (200, "live\n".into()));
        assert_eq!(ask(address, "GET /ready", "").await, (503, "no control node\n".into()));
        is_ready.store(true, Ordering::SeqCst);
        assert_eq!(ask(address, "GET /ready", "").await.0, 200);
        let (status, text) = ask(address, "GET /metrics", "").await;
        assert_eq!(status, 200);
        assert!(text.contains("tandem_test_admin_visits_total 1"), "{text}");
        assert_eq!(ask(address, "GET /calls", "").await.1, r#"[{"call":"CA1"}]"#);
        assert_eq!(ask(address, "PUT /log", "debug").await.0, 400, "the log is fixed here");
        assert_eq!(ask(address, "GET /nothing", "").await.0, 404);

        let twice = bind(address, "admin").await.unwrap_err().to_string();
        assert!(twice.contains(&address.to_string()), "{twice}");
        trigger.shut_down();
        server.await.unwrap().unwrap();
    }
}
