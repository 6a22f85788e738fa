//! Route sets (RFC 3261 §12.1, §12.2.1.1).

use crate::msg::{HeaderName, Headers, Message, NameAddr, Uri};

/// Most routes of a dialog; a longer Record-Route is refused.
pub const ROUTES_MAX: usize = 32;

/// The routes of a dialog in the order of travel, each value as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSet {
    routes: Vec<NameAddr>,
}

impl RouteSet {
    /// A preloaded route set.
    pub fn new(routes: Vec<NameAddr>) -> RouteSet {
        RouteSet { routes }
    }

    /// From the Record-Route of a request (UAS) or, reversed, of a response (UAC). A malformed or
    /// overlong list is `None`.
    pub fn from_record_route(message: &Message, reversed: bool) -> Option<RouteSet> {
        let mut routes = message.name_addrs(HeaderName::RecordRoute)?;
        if routes.len() > ROUTES_MAX {
            return None;
        }
        if reversed {
            routes.reverse();
        }
        Some(RouteSet { routes })
    }

    /// True if requests go to the remote target itself.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The first hop.
    pub fn first(&self) -> Option<&NameAddr> {
        self.routes.first()
    }

    /// The request URI for a request to `target`, and its Route headers. A strict router as first
    /// hop swaps places with the target (RFC 3261 §12.2.1.1).
    pub fn apply<'a>(&'a self, target: &'a Uri, headers: &mut Headers) -> &'a Uri {
        let Some((first, rest)) = self.routes.split_first() else {
            return target;
        };
        if first.uri.param("lr").is_some() {
            for route in &self.routes {
                headers.add(HeaderName::Route, route.to_string());
            }
            return target;
        }
        for route in rest {
            headers.add(HeaderName::Route, route.to_string());
        }
        headers.add(HeaderName::Route, format!("<{target}>"));
        &first.uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> NameAddr {
        NameAddr::parse(text.as_bytes()).expect("legal")
    }

    fn check(routes: &[&str], uri: &str, expect: &[&str]) {
        let set = RouteSet::new(routes.iter().map(|text| addr(text)).collect());
        let target = Uri::parse("sip:t@target").expect("legal");
        let mut headers = Headers::new();
        assert_eq!(set.apply(&target, &mut headers).as_str(), uri);
        let written: Vec<_> = headers.iter().map(|h| h.value_str().into_owned()).collect();
        assert_eq!(written, expect);
    }

    #[test]
    fn loose_and_strict_routers() {
        check(&[], "sip:t@target", &[]);
        check(&["<sip:p1;lr>", "<sip:p2;lr>"], "sip:t@target", &["<sip:p1;lr>", "<sip:p2;lr>"]);
        check(&["<sip:p1>", "<sip:p2;lr>"], "sip:p1", &["<sip:p2;lr>", "<sip:t@target>"]);
    }
}
