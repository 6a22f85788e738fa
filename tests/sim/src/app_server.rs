//! Customers' web servers: pages by path, what was asked, whether it was rightly signed.

use std::collections::BTreeMap;

use control_core::io::{FetchFailure, FetchFailureKind, FetchResponse, HttpRequest, Method};
use control_core::webhook::sign;
use link_proto::AccountSid;

/// A page.
#[derive(Debug, Clone)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: String,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Location`, for redirects.
    pub location: Option<String>,
    /// Time until the answer in ms.
    pub delay_ms: u64,
    /// No answer at all.
    pub failure: Option<FetchFailureKind>,
}

impl Page {
    /// An instruction document with these verbs.
    pub fn document(verbs: &str) -> Self {
        Self {
            status: 200,
            body: format!("<?xml version=\"1.0\"?><Response>{verbs}</Response>"),
            content_type: "text/xml",
            location: None,
            delay_ms: 20,
            failure: None,
        }
    }
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// ms since the start of the run.
    pub at_ms: u64,
    /// Path of the URL.
    pub path: String,
    /// Parameters.
    pub params: BTreeMap<String, String>,
    /// Idempotency token.
    pub token: String,
    /// The whole request, to compare repeats.
    pub request: HttpRequest,
}

/// A customer.
#[derive(Debug, Clone)]
pub struct Customer {
    /// Account.
    pub account: AccountSid,
    /// Secret.
    pub auth_token: String,
}

/// All web servers of all customers. Host `app0.test` belongs to the first, and so on.
#[derive(Debug, Default)]
pub struct AppServers {
    /// Customers.
    pub customers: Vec<Customer>,
    /// Pages by path.
    pub pages: BTreeMap<String, Page>,
    /// Everything that was asked.
    pub receipts: Vec<Receipt>,
    /// Requests that should not have been.
    pub violations: Vec<String>,
}

impl AppServers {
    /// Takes a request and answers it; the answer takes `elapsed_ms`.
    pub fn handle(
        &mut self,
        at_ms: u64,
        request: &HttpRequest,
    ) -> Result<FetchResponse, FetchFailure> {
        let path = self.take(at_ms, request);
        let Some(page) = path.and_then(|path| self.pages.get(&path)) else {
            return Ok(FetchResponse { status: 404, elapsed_ms: 5, ..FetchResponse::default() });
        };
        if let Some(kind) = page.failure {
            let message = format!("{kind:?}");
            return Err(FetchFailure { kind, message, elapsed_ms: page.delay_ms });
        }
        let mut headers = vec![("Content-Type".to_owned(), page.content_type.to_owned())];
        headers.extend(page.location.clone().map(|to| ("Location".to_owned(), to)));
        Ok(FetchResponse {
            status: page.status,
            headers,
            body: page.body.clone().into_bytes(),
            elapsed_ms: page.delay_ms,
        })
    }

    /// Notes a request and checks signature and account. Returns its path.
    pub fn take(&mut self, at_ms: u64, request: &HttpRequest) -> Option<String> {
        let url = url::Url::parse(&request.url).ok()?;
        let params: BTreeMap<String, String> = match request.method {
            Method::Get => url.query_pairs().into_owned().collect(),
            Method::Post => {
                let body = request.body.as_deref().unwrap_or_default();
                url::form_urlencoded::parse(body.as_bytes()).into_owned().collect()
            }
        };
        let path = url.path().to_owned();
        let index = url.host_str()?.strip_prefix("app")?.strip_suffix(".test")?.parse().ok();
        let Some(customer) = index.and_then(|index: usize| self.customers.get(index)) else {
            self.violations.push(format!("request to {}", request.url));
            return None;
        };
        if params.get("AccountSid") != Some(&customer.account.to_string()) {
            self.violations.push(format!("{} got {:?}", request.url, params.get("AccountSid")));
        }
        let signed: Vec<(String, String)> = match request.method {
            Method::Get => Vec::new(),
            Method::Post => params.clone().into_iter().collect(),
        };
        let header = |name: &str| {
            let found = request.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        if header(sign::HEADER) != sign::sha1(&customer.auth_token, &request.url, &signed) {
            self.violations.push(format!("signature of {} is wrong", request.url));
        }
        let token = header(control_core::webhook::request::IDEMPOTENCY_HEADER);
        let request = request.clone();
        self.receipts.push(Receipt { at_ms, path: path.clone(), params, token, request });
        Some(path)
    }
}
