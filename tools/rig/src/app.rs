//! A customer's web server on loopback: pages that can be slow, fail or change, and a record of
//! every request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// When.
    pub at: Instant,
    /// `GET` or `POST`.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// The whole URL as it was asked for.
    pub url: String,
    /// Parameters of query and form, in order.
    pub params: Vec<(String, String)>,
    /// Parameters of the form alone, as a signature covers them.
    pub form: Vec<(String, String)>,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Recorded {
    /// A parameter by name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

type Dynamic = Arc<dyn Fn(&Recorded) -> Page + Send + Sync>;

/// What a path answers.
#[derive(Clone)]
pub struct Page {
    status: u16,
    content_type: String,
    body: Vec<u8>,
    headers: Vec<(String, String)>,
    delay: Duration,
    dynamic: Option<Dynamic>,
}

impl Page {
    /// Any body.
    pub fn of(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            content_type: content_type.to_owned(),
            body: body.into(),
            headers: Vec::new(),
            delay: Duration::ZERO,
            dynamic: None,
        }
    }

    /// An instruction document; `verbs` stand inside `<Response>`.
    pub fn verbs(verbs: &str) -> Self {
        let xml =
            format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response>{verbs}</Response>\n");
        Self::of("text/xml; charset=utf-8", xml)
    }

    /// A status and nothing else.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::of("text/plain", Vec::new()) }
    }

    /// Decided for each request.
    pub fn dynamic(page: impl Fn(&Recorded) -> Page + Send + Sync + 'static) -> Self {
        Self { dynamic: Some(Arc::new(page)), ..Self::status(200) }
    }

    /// Answers so much later.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// With a further header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

#[derive(Default)]
struct Inner {
    pages: BTreeMap<String, Page>,
    requests: Vec<Recorded>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Inner>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server. Ends with its owner; paths without a page answer 404.
pub struct AppServer {
    address: SocketAddr,
    scheme: &'static str,
    shared: Shared,
    runtime: Option<tokio::runtime::Runtime>,
}

impl AppServer {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port or thread is to be had.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(None)
    }

    /// The same over TLS, with a chain and a key in PEM.
    ///
    /// # Errors
    /// As [`Self::start`], or if the certificate cannot be used.
    pub fn start_tls(chain_pem: &str, key_pem: &str) -> anyhow::Result<Self> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn start_with(tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("app-server")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let shared = Shared::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Served { shared: shared.clone(), scheme };
        let router = Router::new().fallback(answer).with_state(state);
        match tls {
            None => runtime.spawn(async move { axum::serve(listener, router).await }),
            Some(tls) => {
                let listener = TlsListener { listener, tls };
                runtime.spawn(async move { axum::serve(listener, router).await })
            }
        };
        Ok(Self { address, scheme, shared, runtime: Some(runtime) })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Sets what a path answers.
    pub fn page(&self, path: &str, page: Page) -> &Self {
        self.shared.lock().pages.insert(path.to_owned(), page);
        self
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().requests.clone()
    }

    /// The requests for one path.
    pub fn requests_for(&self, path: &str) -> Vec<Recorded> {
        self.requests().into_iter().filter(|request| request.path == path).collect()
    }

    /// Waits until `path` was asked for `count` times.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_for(
        &self,
        path: &str,
        count: usize,
        limit: Duration,
    ) -> anyhow::Result<Vec<Recorded>> {
        crate::process::wait_for(&format!("{count} request(s) for {path}"), limit, || {
            Ok(self.requests_for(path).len() >= count)
        })?;
        Ok(self.requests_for(path))
    }

    /// Stops at once; connections are refused from now on.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(200));
        }
    }
}

impl Drop for AppServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Connections whose handshake has succeeded.
struct TlsListener {
    listener: tokio::net::TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            let handshake = self.tls.accept(stream);
            // A client that refuses the certificate ends it.
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[derive(Clone)]
struct Served {
    shared: Shared,
    scheme: &'static str,
}

async fn answer(
    State(Served { shared, scheme }): State<Served>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let host = headers.get("host").map(|host| text(host.as_bytes())).unwrap_or_default();
    let form = headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    let owned = |text: &[u8]| -> Vec<(String, String)> {
        url::form_urlencoded::parse(text).into_owned().collect()
    };
    let query = owned(uri.query().unwrap_or_default().as_bytes());
    let form = owned(if form { &body } else { &[] });
    let recorded = Recorded {
        at: Instant::now(),
        method: method.to_string(),
        path: uri.path().to_owned(),
        url: format!("{scheme}://{host}{uri}"),
        params: query.into_iter().chain(form.clone()).collect(),
        form,
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
            .collect(),
        body: body.to_vec(),
    };
    let page = {
        let mut inner = shared.lock();
        inner.requests.push(recorded.clone());
        inner.pages.get(&recorded.path).cloned()
    };
    let page = match page {
        None => Page::status(404),
        Some(Page { dynamic: Some(dynamic), .. }) => dynamic(&recorded),
        Some(page) => page,
    };
    tokio::time::sleep(page.delay).await;
    let status = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, page.body).into_response();
    response.headers_mut().remove("content-type");
    let mut set = |name: &str, value: &str| {
        let name = axum::http::HeaderName::try_from(name);
        let value = axum::http::HeaderValue::try_from(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().append(name, value);
        }
    };
    set("content-type", &page.content_type);
    for (name, value) in &page.headers {
        set(name, value);
    }
    response
}
