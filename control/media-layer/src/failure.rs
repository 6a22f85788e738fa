//! Why an HTTP request has no response: the one reading of the HTTP client's errors.

use std::error::Error as _;
use std::io;

/// Classes of failures, each with an error code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpFailure {
    /// The URL cannot be used.
    InvalidUrl,
    /// Name resolution.
    Dns,
    /// No connection in time.
    ConnectTimeout,
    /// Connection refused.
    Refused,
    /// Other failure to connect, or the connection broke.
    Connect,
    /// TLS handshake.
    Tls,
    /// Certificate refused: of another host.
    CertificateName,
    /// Certificate refused: expired or not valid yet.
    CertificateExpired,
    /// Certificate refused for another reason, for example an unknown authority.
    Certificate,
    /// No answer in time.
    Timeout,
    /// Too many redirects.
    Redirects,
    /// Not HTTP, or cut short.
    Protocol,
}

impl HttpFailure {
    /// The ecosystem's error code.
    pub fn code(self) -> u32 {
        match self {
            Self::InvalidUrl => 11100,
            Self::ConnectTimeout => 11201,
            Self::Refused => 11202,
            Self::Timeout => 11203,
            Self::Connect => 11205,
            Self::Protocol => 11206,
            Self::Dns => 11210,
            Self::Redirects => 11215,
            Self::Tls => 11220,
            Self::CertificateName => 11235,
            Self::CertificateExpired => 11236,
            Self::Certificate => 11237,
        }
    }
}

/// Reads an error of the HTTP client.
pub fn classify(error: &reqwest::Error) -> HttpFailure {
    if error.is_builder() {
        return HttpFailure::InvalidUrl;
    }
    if error.is_redirect() {
        return HttpFailure::Redirects;
    }
    if error.is_timeout() {
        return if error.is_connect() { HttpFailure::ConnectTimeout } else { HttpFailure::Timeout };
    }
    if error.is_dns() {
        return HttpFailure::Dns;
    }
    if let Some(failure) = error.source().and_then(|cause| search(cause, CAUSES_MAX)) {
        return failure;
    }
    if error.is_connect() { HttpFailure::Connect } else { HttpFailure::Protocol }
}

/// Depth to which causes are followed.
const CAUSES_MAX: usize = 16;

/// Looks through causes. An `io::Error` hides the error that it wraps from `source`.
fn search(cause: &(dyn std::error::Error + 'static), depth: usize) -> Option<HttpFailure> {
    let depth = depth.checked_sub(1)?;
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(classify_tls(tls));
    }
    let io = cause.downcast_ref::<io::Error>();
    if let Some(wrapped) = io.and_then(|io| io.get_ref())
        && let Some(failure) = search(wrapped, depth)
    {
        return Some(failure);
    }
    io.and_then(classify_io).or_else(|| search(cause.source()?, depth))
}

fn classify_io(error: &io::Error) -> Option<HttpFailure> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(HttpFailure::Refused),
        io::ErrorKind::TimedOut => Some(HttpFailure::ConnectTimeout),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable => Some(HttpFailure::Connect),
        _ => None,
    }
}

fn classify_tls(error: &rustls::Error) -> HttpFailure {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(
            Bad::NotValidForName | Bad::NotValidForNameContext { .. },
        ) => HttpFailure::CertificateName,
        rustls::Error::InvalidCertificate(
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. },
        ) => HttpFailure::CertificateExpired,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            HttpFailure::Certificate
        }
        _ => HttpFailure::Tls,
    }
}

/// An error with its causes, for people. Without the URL, which may hold a password.
pub fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    text
}
