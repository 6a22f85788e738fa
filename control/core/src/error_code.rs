//! The one table of error codes: number, name, what it says.

use crate::io::FetchFailureKind;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal;)*) => {
        $(#[doc = $text] pub const $name: u32 = $code;)*

        /// Every code with its text, in order.
        pub const TABLE: &[(u32, &str)] = &[$(($code, $text)),*];
    };
}

codes! {
    URL_INVALID = 11100 "invalid URL";
    RETRIEVAL_FAILURE = 11200 "HTTP retrieval failure";
    CONNECT_TIMEOUT = 11201 "TCP connection timed out";
    CONNECT_REFUSED = 11202 "TCP connection refused";
    TOTAL_TIMEOUT = 11203 "HTTP total time exceeded";
    CONNECTION_FAILURE = 11205 "HTTP connection failure";
    PROTOCOL_VIOLATION = 11206 "HTTP protocol violation";
    BAD_HOST = 11210 "HTTP bad host name";
    REDIRECTS_TOO_MANY = 11215 "HTTP too many redirects";
    TLS_HANDSHAKE = 11220 "TLS handshake error";
    CERTIFICATE_NAME = 11235 "certificate invalid: of another host";
    CERTIFICATE_EXPIRED = 11236 "certificate invalid: expired or not valid yet";
    CERTIFICATE_INVALID = 11237 "certificate invalid: no chain to a trusted root";
    RETRY_POLICY_INVALID = 11243 "connection override or retry policy invalid";
    BODY_TOO_LARGE = 11750 "response body too large";
    BODY_EMPTY = 11770 "empty response body";
    PARSE_FAILURE = 12100 "document parse failure";
    ROOT_NOT_RESPONSE = 12102 "root element must be Response";
    SCHEMA = 12200 "document does not follow the schema";
    CONTENT_TYPE = 12300 "invalid content type";
    INTERNAL = 12400 "internal failure";
    DIAL_ATTRIBUTE = 13212 "Dial: invalid timeout value";
    DIAL_STAR = 13213 "Dial: invalid hangupOnStar or hangupOnKey value";
    DIAL_CALLER_ID = 13214 "Dial: invalid callerId value";
    DIAL_NESTED = 13215 "Dial: invalid nested element";
    DIAL_TIME_LIMIT = 13216 "Dial: invalid timeLimit value";
    DIAL_METHOD = 13210 "Dial: invalid method value";
    DIAL_NUMBER = 13223 "Dial: invalid phone number format";
    DIAL_SIP = 13224 "Dial: invalid SIP URI or number not supported";
    DIAL_TOO_MANY = 13233 "Dial: too many targets";
    DIAL_RECORD = 13218 "Dial: invalid record value";
    DIAL_NOUN_METHOD = 13221 "Dial: invalid method value of a noun";
    SEND_DIGITS = 13222 "Dial: invalid sendDigits value";
    GATHER_ACTION = 13310 "Gather: invalid input or action";
    GATHER_METHOD = 13312 "Gather: invalid method value";
    GATHER_TIMEOUT = 13313 "Gather: invalid timeout value";
    GATHER_FINISH = 13314 "Gather: invalid finishOnKey value";
    GATHER_DIGITS = 13321 "Gather: invalid numDigits value";
    GATHER_NESTED = 13323 "Gather: invalid nested element";
    GATHER_SPEECH = 13335 "Gather: speech input is not available";
    PLAY_LOOP = 13410 "Play: invalid loop value";
    PLAY_CONTENT_TYPE = 13420 "Play: invalid content type";
    PLAY_DIGITS = 13430 "Play: invalid digits value";
    SAY_LOOP = 13510 "Say: invalid loop value";
    SAY_VOICE = 13511 "Say: invalid voice value";
    SAY_EMPTY = 13520 "Say: no text";
    SAY_TOO_LONG = 13521 "Say: text too long";
    RECORD_ATTRIBUTE = 13610 "Record: invalid attribute value";
    RECORD_METHOD = 13611 "Record: invalid method value";
    RECORD_TIMEOUT = 13612 "Record: invalid timeout value";
    RECORD_FINISH = 13613 "Record: invalid finishOnKey value";
    RECORD_LENGTH = 13617 "Record: invalid maxLength value";
    REDIRECT_METHOD = 13710 "Redirect: invalid method value";
    VERB_UNKNOWN = 13750 "verb or option is not available in this version";
    REJECT_LATE = 13810 "Reject: the call is answered already";
    PAUSE_LENGTH = 13910 "Pause: invalid length value";
    DOCUMENTS_TOO_MANY = 14106 "document retrieval limit reached";
    CALLBACK_WARNING = 15003 "status callback was not answered with success";
    ACTION_RELATIVE = 15004 "URL must be absolute";
    API_FROM_INVALID = 21212 "From is not a valid phone number or SIP URI";
    API_FROM_UNVERIFIED = 21210 "caller id is neither a number of the account nor verified";
    API_NUMBER_INVALID = 21401 "phone number is not valid";
    API_NUMBER_VERIFIED = 21450 "phone number is verified already";
    API_TO_INVALID = 21211 "To is not a valid phone number or SIP URI";
    API_TO_MISSING = 21201 "no To number given";
    API_FROM_MISSING = 21213 "From is required";
    API_URL_INVALID = 21205 "Url is not a valid URL";
    API_STATUS_CALLBACK_INVALID = 21609 "StatusCallback is not a valid URL";
    API_APPLICATION_UNKNOWN = 21218 "ApplicationSid is not valid";
    API_NOT_IN_STATE = 21220 "call is not in a state to be updated";
    API_DIGITS_INVALID = 21206 "digits are not valid: at most 32 of 0-9 A-D * # w W";
    API_TIMEOUT_INVALID = 21208 "Timeout is not valid";
    API_METHOD_INVALID = 21209 "method is neither GET nor POST";
    API_EVENTS_INVALID = 21626 "events of a status callback are not valid";
    API_PARAMETER = 20422 "parameter has a value that is not allowed";
    API_FORBIDDEN = 20005 "account is not active";
    API_NOT_FOUND = 20404 "the requested resource was not found";
    API_OVERLOAD = 20429 "too many calls";
    API_NO_ROUTE = 21215 "no edge can place this call";
}

/// What a code says.
pub fn text(code: u32) -> &'static str {
    TABLE.iter().find(|(c, _)| *c == code).map_or("unknown error", |(_, text)| text)
}

/// The code of a fetch without response.
pub fn of_fetch_failure(kind: FetchFailureKind) -> u32 {
    use FetchFailureKind as Kind;
    match kind {
        Kind::InvalidUrl => URL_INVALID,
        Kind::Dns => BAD_HOST,
        Kind::ConnectTimeout => CONNECT_TIMEOUT,
        Kind::Refused => CONNECT_REFUSED,
        Kind::Connect => CONNECTION_FAILURE,
        Kind::Tls => TLS_HANDSHAKE,
        Kind::CertificateName => CERTIFICATE_NAME,
        Kind::CertificateExpired => CERTIFICATE_EXPIRED,
        Kind::Certificate => CERTIFICATE_INVALID,
        Kind::ReadTimeout | Kind::TotalTimeout => TOTAL_TIMEOUT,
        Kind::Protocol => PROTOCOL_VIOLATION,
        Kind::BodyTooLarge => BODY_TOO_LARGE,
    }
}

/// Whether a code means that the server could not be asked or gave no document, rather than that
/// its answer is wrong. An invalid URL and a loop of redirects are the customer's doing.
pub fn is_communication(code: u32) -> bool {
    (11_200..=11_237).contains(&code) && code != REDIRECTS_TOO_MANY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        assert!(TABLE.iter().all(|(code, _)| seen.insert(code)));
        assert_eq!(text(13420), "Play: invalid content type");
    }
}
