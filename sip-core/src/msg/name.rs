//! Header names: the known ones, their compact forms (RFC 3261 §7.3.3) and spellings.

macro_rules! header_names {
    ($( $variant:ident $name:literal $compact:tt ),* $(,)?) => {
        /// A header name. Names not listed are `Other`; their spelling is in the header itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum HeaderName { $( $variant, )* Other }

        impl HeaderName {
            /// The name as we write it; empty for `Other`.
            pub fn as_str(self) -> &'static str {
                match self { $( HeaderName::$variant => $name, )* HeaderName::Other => "" }
            }

            /// Recognises a long or compact name in any case.
            pub fn parse(name: &[u8]) -> HeaderName {
                if let [letter] = name {
                    let letter = Some(letter.to_ascii_lowercase());
                    $( if header_names!(@compact $compact) == letter {
                        return HeaderName::$variant;
                    } )*
                    return HeaderName::Other;
                }
                $( if name.eq_ignore_ascii_case($name.as_bytes()) {
                    return HeaderName::$variant;
                } )*
                HeaderName::Other
            }
        }
    };
    (@compact _) => { None::<u8> };
    (@compact $letter:literal) => { Some($letter) };
}

header_names! {
    Via "Via" b'v', From "From" b'f', To "To" b't', CallId "Call-ID" b'i', CSeq "CSeq" _,
    Contact "Contact" b'm', MaxForwards "Max-Forwards" _, ContentLength "Content-Length" b'l',
    ContentType "Content-Type" b'c', Route "Route" _, RecordRoute "Record-Route" _,
    Allow "Allow" _, Supported "Supported" b'k', Require "Require" _, UserAgent "User-Agent" _,
    ProxyRequire "Proxy-Require" _, Unsupported "Unsupported" _, Server "Server" _,
    Reason "Reason" _, Expires "Expires" _, Accept "Accept" _, Date "Date" _,
    ContentEncoding "Content-Encoding" b'e', ContentDisposition "Content-Disposition" _,
    Subject "Subject" b's', RetryAfter "Retry-After" _, Warning "Warning" _,
    Authorization "Authorization" _, WwwAuthenticate "WWW-Authenticate" _,
    ProxyAuthorization "Proxy-Authorization" _, ProxyAuthenticate "Proxy-Authenticate" _,
    SessionExpires "Session-Expires" b'x', MinSe "Min-SE" _, RSeq "RSeq" _, RAck "RAck" _,
    ReferTo "Refer-To" b'r', ReferredBy "Referred-By" b'b', Replaces "Replaces" _,
    Event "Event" b'o', AllowEvents "Allow-Events" b'u',
    SubscriptionState "Subscription-State" _, PAssertedIdentity "P-Asserted-Identity" _,
    PPreferredIdentity "P-Preferred-Identity" _, Privacy "Privacy" _, Diversion "Diversion" _,
    HistoryInfo "History-Info" _, RemotePartyId "Remote-Party-ID" _, Timestamp "Timestamp" _,
    Identity "Identity" b'y', Path "Path" _, MinExpires "Min-Expires" _,
    MimeVersion "MIME-Version" _, AlertInfo "Alert-Info" _,
    AcceptContact "Accept-Contact" b'a', RejectContact "Reject-Contact" b'j',
    RequestDisposition "Request-Disposition" b'd',
    Organization "Organization" _, AcceptEncoding "Accept-Encoding" _,
}

impl HeaderName {
    /// True if several values may stand in one header, separated by commas, and we split them.
    pub fn is_list(self) -> bool {
        use HeaderName::*;
        matches!(
            self,
            Via | Contact
                | Route
                | RecordRoute
                | Allow
                | Supported
                | Require
                | ProxyRequire
                | Unsupported
                | Reason
                | Accept
                | Path
                | Diversion
                | HistoryInfo
                | PAssertedIdentity
                | AllowEvents
                | Warning
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_compact_and_unknown_names() {
        for (text, expect) in [
            ("via", HeaderName::Via),
            ("V", HeaderName::Via),
            ("i", HeaderName::CallId),
            ("call-id", HeaderName::CallId),
            ("x", HeaderName::SessionExpires),
            ("X-Custom", HeaderName::Other),
            ("z", HeaderName::Other),
            ("", HeaderName::Other),
        ] {
            assert_eq!(HeaderName::parse(text.as_bytes()), expect, "{text}");
        }
        assert_eq!(HeaderName::parse(&[0]), HeaderName::Other);
    }
}
