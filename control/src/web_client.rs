//! HTTP to customers' servers: one request at a time as the core has made it, within its time
//! limits, with the cookies of its session. Redirects and retries are the core's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use control_core::io::{FetchFailure, FetchFailureKind, FetchRequest, FetchResponse, Method};
use control_core::webhook::overrides::Overrides;
use control_media_layer::failure::{HttpFailure, classify, describe};
use cookie_store::CookieStore;
use link_daemon::clock;
use link_proto::CallSid;
use reqwest::header::{COOKIE, HeaderMap, SET_COOKIE};
use reqwest::{Certificate, Client};
use tokio::time::timeout;
use url::Url;

use crate::config::Web;
use crate::core_task::{Boxed, WebClient};
use crate::web_cache::{WebCache, validators};

/// Longest silence on a connection that is used again. Many servers close theirs after 5 s, which is
/// also what a Gather waits for: a request that crosses the end of its connection would be lost.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Clients with different connect limits that are kept.
const CLIENTS_MAX: usize = 16;
/// Cookies of one session.
const COOKIES_MAX: usize = 100;
/// Sessions whose cookies are kept.
const JARS_MAX: usize = 20_000;

/// The HTTP client. Cheap to clone; connections are pooled.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

struct Inner {
    /// By connect limit and server name indication, which belong to a connection.
    clients: Mutex<VecDeque<((u64, bool), Client)>>,
    jars: Mutex<Jars>,
    cache: Mutex<WebCache>,
    /// Authorities beside those of the system.
    authorities: Vec<Certificate>,
}

#[derive(Default)]
struct Jars {
    by_session: HashMap<CallSid, CookieStore>,
    /// Oldest first. May name sessions that are gone.
    order: VecDeque<CallSid>,
}

impl Jars {
    /// The jar of a session, made if it is not there.
    fn of(&mut self, session: CallSid) -> &mut CookieStore {
        if !self.by_session.contains_key(&session) {
            self.order.push_back(session);
            if self.order.len() > JARS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_session.remove(&oldest);
            }
        }
        self.by_session.entry(session).or_default()
    }
}

impl HttpClient {
    /// A client. The process must have installed its rustls crypto provider.
    ///
    /// # Errors
    /// If TLS cannot be set up, for example without any root certificate.
    pub fn new(authorities: Vec<Certificate>) -> Result<Self, reqwest::Error> {
        let (clients, jars, cache) = (Mutex::default(), Mutex::default(), Mutex::default());
        let this = Self { inner: Arc::new(Inner { clients, jars, cache, authorities }) };
        this.inner.client(&Overrides::default())?;
        Ok(this)
    }
}

/// The authorities that the configuration adds to those of the system.
///
/// # Errors
/// If the file cannot be read or holds no certificate.
pub fn authorities(web: &Web) -> anyhow::Result<Vec<Certificate>> {
    let Some(path) = &web.ca_file else { return Ok(Vec::new()) };
    let name = || path.display().to_string();
    let certificates = Certificate::from_pem_bundle(&std::fs::read(path).with_context(name)?);
    let certificates = certificates.with_context(name)?;
    anyhow::ensure!(!certificates.is_empty(), "{}: no certificate in it", name());
    Ok(certificates)
}

impl WebClient for HttpClient {
    fn fetch(&self, request: FetchRequest) -> Boxed<Result<FetchResponse, FetchFailure>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let begun = clock::now();
            let total = Duration::from_millis(request.overrides.total_ms);
            let result = match timeout(total, inner.exchange(&request, begun)).await {
                Ok(result) => result,
                Err(_) => Err(Failure::of(FetchFailureKind::TotalTimeout, "no answer in time")),
            };
            result.map_err(|failure| FetchFailure {
                kind: failure.kind,
                message: failure.message,
                elapsed_ms: elapsed_ms(begun),
            })
        })
    }

    fn session_ended(&self, session: CallSid) {
        lock(&self.inner.jars).by_session.remove(&session);
    }
}

struct Failure {
    kind: FetchFailureKind,
    message: String,
}

impl Failure {
    fn of(kind: FetchFailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let kind = match classify(&error) {
            HttpFailure::InvalidUrl => FetchFailureKind::InvalidUrl,
            HttpFailure::Dns => FetchFailureKind::Dns,
            HttpFailure::ConnectTimeout => FetchFailureKind::ConnectTimeout,
            HttpFailure::Refused => FetchFailureKind::Refused,
            HttpFailure::Connect => FetchFailureKind::Connect,
            HttpFailure::Tls => FetchFailureKind::Tls,
            HttpFailure::CertificateName => FetchFailureKind::CertificateName,
            HttpFailure::CertificateExpired => FetchFailureKind::CertificateExpired,
            HttpFailure::Certificate => FetchFailureKind::Certificate,
            HttpFailure::Timeout => FetchFailureKind::TotalTimeout,
            HttpFailure::Redirects | HttpFailure::Protocol => FetchFailureKind::Protocol,
        };
        Self { kind, message: describe(error) }
    }
}

fn elapsed_ms(begun: Instant) -> u64 {
    let elapsed = clock::now().saturating_duration_since(begun);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn client(&self, overrides: &Overrides) -> Result<Client, reqwest::Error> {
        let key = (overrides.connect_ms, overrides.sni);
        let mut clients = lock(&self.clients);
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == key) {
            return Ok(client.clone());
        }
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(overrides.connect_ms))
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            .referer(false)
            .no_proxy()
            .tls_certs_merge(self.authorities.iter().cloned())
            .tls_sni(overrides.sni)
            // Without a name in the handshake the server cannot show the right certificate.
            .tls_danger_accept_invalid_hostnames(!overrides.sni)
            .build()?;
        if clients.len() >= CLIENTS_MAX {
            // The first one is that of the defaults.
            clients.remove(1);
        }
        clients.push_back((key, client.clone()));
        Ok(client)
    }

    async fn exchange(
        &self,
        request: &FetchRequest,
        begun: Instant,
    ) -> Result<FetchResponse, Failure> {
        if let Some(kept) = lock(&self.cache).fresh(begun, request) {
            return Ok(FetchResponse { elapsed_ms: 0, ..kept });
        }
        let http = &request.request;
        let url = Url::parse(&http.url)
            .map_err(|error| Failure::of(FetchFailureKind::InvalidUrl, error.to_string()))?;
        let client = self.client(&request.overrides)?;
        let method = match http.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
        };
        let mut builder = client.request(method, url.clone());
        for (name, value) in &http.headers {
            builder = builder.header(name, value);
        }
        let kept = lock(&self.cache).kept(request);
        for (name, value) in validators(kept.as_ref()) {
            builder = builder.header(name, value);
        }
        self.remember(request);
        if let Some(cookies) = self.cookies(request.session, &url) {
            builder = builder.header(COOKIE, cookies);
        }
        if let Some(body) = &http.body {
            builder = builder.body(body.clone());
        }
        let silence = Duration::from_millis(request.overrides.read_ms);
        let connect = Duration::from_millis(request.overrides.connect_ms);
        let silent = || Failure::of(FetchFailureKind::ReadTimeout, "the server fell silent");
        let sent = timeout(connect.saturating_add(silence), builder.send());
        let mut response = sent.await.map_err(|_| silent())??;
        self.keep_cookies(request.session, &url, response.headers());
        let status = response.status().as_u16();
        let headers = response.headers().iter().map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let headers = headers.collect();
        let mut body = Vec::new();
        while let Some(chunk) = timeout(silence, response.chunk()).await.map_err(|_| silent())?? {
            if body.len().saturating_add(chunk.len()) > request.body_bytes_max {
                let message = format!("the body is longer than {} bytes", request.body_bytes_max);
                return Err(Failure::of(FetchFailureKind::BodyTooLarge, message));
            }
            body.extend_from_slice(&chunk);
        }
        let response = FetchResponse { status, headers, body, elapsed_ms: elapsed_ms(begun) };
        Ok(lock(&self.cache).answered(clock::now(), request, kept, response))
    }

    /// Cookies that an earlier process got for this session.
    fn remember(&self, request: &FetchRequest) {
        let mut jars = lock(&self.jars);
        if request.cookies.is_empty() || jars.by_session.contains_key(&request.session) {
            return;
        }
        let jar = jars.of(request.session);
        for cookie in &request.cookies {
            if let Ok(url) = Url::parse(&cookie.url) {
                // It was a cookie when it was set.
                let _ = jar.parse(&cookie.value, &url);
            }
        }
    }

    fn cookies(&self, session: CallSid, url: &Url) -> Option<String> {
        let jars = lock(&self.jars);
        let jar = jars.by_session.get(&session)?;
        let pairs: Vec<String> =
            jar.get_request_values(url).map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn keep_cookies(&self, session: CallSid, url: &Url, headers: &HeaderMap) {
        if !headers.contains_key(SET_COOKIE) {
            return;
        }
        let mut jars = lock(&self.jars);
        let jar = jars.of(session);
        for cookie in headers.get_all(SET_COOKIE).iter().filter_map(|v| v.to_str().ok()) {
            if jar.iter_any().count() < COOKIES_MAX {
                // What is no cookie, or one of another domain, is left out.
                let _ = jar.parse(cookie, url);
            }
        }
    }
}
