//! Answers to digest challenges (RFC 7616, RFC 8760): MD5 and SHA-256, `qop=auth` or none.

use md5::Md5;
use sha2::{Digest, Sha256};

use super::Credentials;
use crate::msg::scan;
use crate::msg::{HeaderName, Message, StartLine};

/// A challenge we can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    sha256: bool,
    qop_auth: bool,
}

impl Challenge {
    /// Reads a WWW-Authenticate or Proxy-Authenticate value. `None` if it is not digest, or asks for
    /// an algorithm or protection we do not have.
    pub fn parse(value: &str) -> Option<Challenge> {
        let (scheme, rest) = value.trim().split_once(char::is_whitespace)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let mut challenge = Challenge {
            realm: String::new(),
            nonce: String::new(),
            opaque: None,
            sha256: false,
            qop_auth: false,
        };
        let mut qop = None;
        for part in scan::split_outside(rest.as_bytes(), b',') {
            let (name, value) = std::str::from_utf8(part).ok()?.split_once('=')?;
            let value = scan::unquote(value.trim());
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => challenge.realm = value,
                "nonce" => challenge.nonce = value,
                "opaque" => challenge.opaque = Some(value),
                "qop" => qop = Some(value),
                "algorithm" if value.eq_ignore_ascii_case("MD5") => {}
                "algorithm" if value.eq_ignore_ascii_case("SHA-256") => challenge.sha256 = true,
                "algorithm" => return None,
                _ => {}
            }
        }
        if let Some(qop) = qop {
            challenge.qop_auth = qop.split(',').any(|q| q.trim().eq_ignore_ascii_case("auth"));
            challenge.qop_auth.then_some(())?;
        }
        (!challenge.nonce.is_empty()).then_some(challenge)
    }

    /// The value of the Authorization header.
    pub fn answer(
        &self,
        credentials: &Credentials,
        method: &str,
        uri: &str,
        cnonce: &str,
    ) -> String {
        let hash =
            |text: String| if self.sha256 { hex::<Sha256>(&text) } else { hex::<Md5>(&text) };
        let secret =
            hash(format!("{}:{}:{}", credentials.username, self.realm, credentials.password));
        let request = hash(format!("{method}:{uri}"));
        let middle = match self.qop_auth {
            true => format!("{}:00000001:{cnonce}:auth", self.nonce),
            false => self.nonce.clone(),
        };
        let response = hash(format!("{secret}:{middle}:{request}"));
        let mut out = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
            scan::quote(&credentials.username),
            scan::quote(&self.realm),
            scan::quote(&self.nonce),
            scan::quote(uri),
        );
        out.push_str(if self.sha256 { ", algorithm=SHA-256" } else { ", algorithm=MD5" });
        if self.qop_auth {
            out.push_str(&format!(", qop=auth, nc=00000001, cnonce={}", scan::quote(cnonce)));
        }
        if let Some(opaque) = &self.opaque {
            out.push_str(&format!(", opaque={}", scan::quote(opaque)));
        }
        out
    }
}

fn hex<D: Digest>(text: &str) -> String {
    D::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Turns a challenged request into its next try: CSeq one higher, no Via, with credentials. False if
/// no challenge of the response can be answered.
pub fn authorize(
    request: &mut Message,
    response: &Message,
    credentials: &Credentials,
    cnonce: &str,
) -> bool {
    let (asks, answers) = match response.status() {
        Some(407) => (HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization),
        _ => (HeaderName::WwwAuthenticate, HeaderName::Authorization),
    };
    let mut challenges: Vec<Challenge> = response
        .headers
        .all(asks)
        .filter_map(|header| Challenge::parse(&header.value_str()))
        .filter(|challenge| credentials.realm.as_ref().is_none_or(|r| *r == challenge.realm))
        .collect();
    // RFC 8760 §2.4: the first in the server's order, stronger before weaker.
    challenges.sort_by_key(|challenge| !challenge.sha256);
    let (Some(challenge), Some(cseq)) = (challenges.first(), request.cseq()) else {
        return false;
    };
    let StartLine::Request { method, uri } = &request.start else { return false };
    let uri = String::from_utf8_lossy(uri).into_owned();
    let value = challenge.answer(credentials, method.as_str(), &uri, cnonce);
    let number = cseq.number.saturating_add(1);
    request.headers.set(HeaderName::CSeq, format!("{number} {}", cseq.method));
    request.headers.remove(HeaderName::Via);
    request.headers.remove(answers);
    request.headers.add(answers, value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 §3.9.1 with the method and URI given there.
    #[test]
    fn the_examples_of_rfc_7616() {
        let credentials = Credentials {
            username: "Mufasa".to_owned(),
            password: "Circle of Life".to_owned(),
            realm: None,
        };
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (algorithm, expect) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let text = format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
                 algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            );
            let challenge = Challenge::parse(&text).expect("a digest challenge");
            let answer = challenge.answer(&credentials, "GET", "/dir/index.html", cnonce);
            assert!(answer.contains(&format!("response=\"{expect}\"")), "{answer}");
        }
    }

    #[test]
    fn what_cannot_be_answered() {
        for text in [
            "Basic realm=\"x\"",
            "Digest realm=\"x\"",
            "Digest nonce=\"n\", algorithm=SHA-512-256",
            "Digest nonce=\"n\", qop=\"auth-int\"",
        ] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }
}
