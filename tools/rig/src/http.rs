//! Asking a daemon something over HTTP.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

/// Status and body of a response, whatever the status.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// With the body, if it is not.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| self.text())
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(20)))
        .http_status_as_error(false)
        .build()
        .into()
}

fn authorization(user: &str, password: &str) -> String {
    // Base64 of RFC 4648 §4; too small a need for a package.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{user}:{password}");
    let mut encoded = String::from("Basic ");
    for chunk in text.as_bytes().chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let index = (bits >> (18 - 6 * n)) as usize & 63;
            encoded.push(if n <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    encoded
}

/// GET, with `user:password` if given.
///
/// # Errors
/// If there is no response.
pub fn get(url: &str, credentials: Option<(&str, &str)>) -> anyhow::Result<Response> {
    let mut request = agent().get(url);
    if let Some((user, password)) = credentials {
        request = request.header("Authorization", authorization(user, password));
    }
    received(request.call().with_context(|| url.to_owned())?)
}

/// GET with header fields.
///
/// # Errors
/// If there is no response.
pub fn get_with(url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
    let mut request = agent().get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    received(request.call().with_context(|| url.to_owned())?)
}

/// POST of a body of any type.
///
/// # Errors
/// If there is no response.
pub fn post_body(url: &str, content_type: &str, body: &[u8]) -> anyhow::Result<Response> {
    let request = agent().post(url).content_type(content_type);
    received(request.send(body).with_context(|| url.to_owned())?)
}

fn received(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Response> {
    let content_type = response.headers().get("content-type");
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.to_owned();
    let body = response.body_mut().with_config().limit(64 << 20).read_to_vec()?;
    Ok(Response { status: response.status().as_u16(), content_type, body })
}

/// POST of a form.
///
/// # Errors
/// If there is no response.
pub fn post(
    url: &str,
    credentials: Option<(&str, &str)>,
    form: &[(&str, &str)],
) -> anyhow::Result<Response> {
    let mut request = agent().post(url).content_type("application/x-www-form-urlencoded");
    if let Some((user, password)) = credentials {
        request = request.header("Authorization", authorization(user, password));
    }
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    received(request.send(body).with_context(|| url.to_owned())?)
}

/// DELETE.
///
/// # Errors
/// If there is no response.
pub fn delete(url: &str, credentials: Option<(&str, &str)>) -> anyhow::Result<Response> {
    let mut request = agent().delete(url);
    if let Some((user, password)) = credentials {
        request = request.header("Authorization", authorization(user, password));
    }
    received(request.call().with_context(|| url.to_owned())?)
}

/// The value of one metric, summed over its labels.
///
/// # Errors
/// If the page cannot be read. A metric that is not there is an error as well: a wrong name must
/// not read as zero.
pub fn metric(admin: std::net::SocketAddr, name: &str) -> anyhow::Result<f64> {
    let page = get(&format!("http://{admin}/metrics"), None)?.text();
    let mut sum = None;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((key, value)) = line.rsplit_once(' ') else { continue };
        let key = key.split('{').next().unwrap_or(key);
        if key == name {
            *sum.get_or_insert(0.0) += value.parse::<f64>().with_context(|| line.to_owned())?;
        }
    }
    sum.with_context(|| format!("{admin} has no metric {name}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn credentials_are_encoded_as_in_rfc_7617() {
        assert_eq!(
            super::authorization("Aladdin", "open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(super::authorization("a", ""), "Basic YTo=");
    }
}
