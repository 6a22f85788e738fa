//! SIP messages. What came from the wire keeps its bytes; typed accessors read it on demand.

pub mod header;
mod headers;
pub mod method;
pub mod name;
pub mod parser;
pub mod peek;
pub mod scan;
pub mod status;
pub mod uri;
pub mod writer;

use std::borrow::Cow;

use bytes::Bytes;

pub use header::cseq::CSeq;
pub use header::media_type::MediaType;
pub use header::name_addr::NameAddr;
pub use header::params::Params;
pub use header::reason::Reason;
pub use header::via::Via;
pub use headers::{Header, Headers};
pub use method::Method;
pub use name::HeaderName;
pub use status::reason_phrase;
pub use uri::{Host, Scheme, Uri};

/// First line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// A request.
    Request {
        /// Method.
        method: Method,
        /// Request URI as it came; see [`Message::request_uri`].
        uri: Bytes,
    },
    /// A response.
    Response {
        /// 100–699.
        status: u16,
        /// Reason phrase as it came.
        reason: Bytes,
    },
}

/// A SIP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// First line.
    pub start: StartLine,
    /// Headers in order.
    pub headers: Headers,
    /// Body; Content-Length is written to fit.
    pub body: Bytes,
}

impl Message {
    /// Reads one message from a datagram or a framed stream message.
    ///
    /// # Errors
    /// [`crate::ParseError`], with the answer where the sender can be told.
    pub fn parse(bytes: &Bytes) -> Result<Message, crate::ParseError> {
        parser::parse(bytes)
    }

    /// Writes the message. Content-Length is added or corrected.
    pub fn to_bytes(&self) -> Bytes {
        writer::write(self)
    }

    /// A request without headers.
    pub fn request(method: Method, uri: &Uri) -> Message {
        let uri = Bytes::copy_from_slice(uri.as_str().as_bytes());
        let start = StartLine::Request { method, uri };
        Message { start, headers: Headers::new(), body: Bytes::new() }
    }

    /// A response to `request` with the headers RFC 3261 §8.2.6.2 copies: Via, From, To, Call-ID,
    /// CSeq, byte for byte. `to_tag` is added to a To without tag. An empty `reason` takes the
    /// usual phrase.
    pub fn response_to(
        request: &Message,
        status: u16,
        reason: &str,
        to_tag: Option<&str>,
    ) -> Message {
        writer::response_to(request, status, reason, to_tag)
    }

    /// True for requests.
    pub fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// Method of a request; of a response, the method of its CSeq.
    pub fn method(&self) -> Option<Method> {
        match &self.start {
            StartLine::Request { method, .. } => Some(method.clone()),
            StartLine::Response { .. } => self.cseq().map(|cseq| cseq.method),
        }
    }

    /// True if this is a request with that method.
    pub fn is_method(&self, wanted: &Method) -> bool {
        matches!(&self.start, StartLine::Request { method, .. } if method == wanted)
    }

    /// Status of a response.
    pub fn status(&self) -> Option<u16> {
        match self.start {
            StartLine::Response { status, .. } => Some(status),
            StartLine::Request { .. } => None,
        }
    }

    /// Reason phrase of a response.
    pub fn reason(&self) -> Cow<'_, str> {
        match &self.start {
            StartLine::Response { reason, .. } => String::from_utf8_lossy(reason),
            StartLine::Request { .. } => Cow::Borrowed(""),
        }
    }

    /// Request URI, if it is one we can read.
    pub fn request_uri(&self) -> Option<Uri> {
        match &self.start {
            StartLine::Request { uri, .. } => Uri::parse(std::str::from_utf8(uri).ok()?),
            StartLine::Response { .. } => None,
        }
    }

    /// Every value of a header, comma lists split (for the headers where a comma separates); at
    /// most [`parser::LIST_VALUES_MAX`] of a list.
    pub fn values(&self, name: HeaderName) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for header in self.headers.all(name) {
            let value = header.value();
            if name.is_list() {
                let room = parser::LIST_VALUES_MAX.saturating_sub(out.len());
                let parts = scan::split_outside(&value, b',');
                out.extend(parts.take(room).map(<[u8]>::to_vec));
            } else {
                out.push(value.into_owned());
            }
        }
        out
    }

    /// The topmost Via.
    pub fn top_via(&self) -> Option<Via> {
        let header = self.headers.first(HeaderName::Via)?;
        let value = header.value();
        Via::parse(scan::split_outside(&value, b',').next()?)
    }

    /// All Vias; `None` if one of them is malformed.
    pub fn vias(&self) -> Option<Vec<Via>> {
        self.values(HeaderName::Via).iter().map(|value| Via::parse(value)).collect()
    }

    /// From.
    pub fn from(&self) -> Option<NameAddr> {
        self.name_addr(HeaderName::From)
    }

    /// To.
    pub fn to(&self) -> Option<NameAddr> {
        self.name_addr(HeaderName::To)
    }

    /// A header that holds one `name-addr`.
    pub fn name_addr(&self, name: HeaderName) -> Option<NameAddr> {
        NameAddr::parse(&self.headers.first(name)?.value())
    }

    /// A header that holds a list of `name-addr`; `None` if one is malformed.
    pub fn name_addrs(&self, name: HeaderName) -> Option<Vec<NameAddr>> {
        self.values(name).iter().map(|value| NameAddr::parse(value)).collect()
    }

    /// The first Contact.
    pub fn contact(&self) -> Option<NameAddr> {
        NameAddr::parse(self.values(HeaderName::Contact).first()?)
    }

    /// Call-ID.
    pub fn call_id(&self) -> Option<Cow<'_, str>> {
        self.headers.first(HeaderName::CallId).map(Header::value_str)
    }

    /// CSeq.
    pub fn cseq(&self) -> Option<CSeq> {
        CSeq::parse(&self.headers.first(HeaderName::CSeq)?.value())
    }

    /// A header that holds one number.
    pub fn number(&self, name: HeaderName) -> Option<u32> {
        self.headers.first(name)?.value_str().trim().parse().ok()
    }

    /// Content-Type.
    pub fn content_type(&self) -> Option<MediaType> {
        MediaType::parse(&self.headers.first(HeaderName::ContentType)?.value())
    }

    /// Reason headers (RFC 3326); malformed ones are left out.
    pub fn reasons(&self) -> Vec<Reason> {
        self.values(HeaderName::Reason).iter().filter_map(|value| Reason::parse(value)).collect()
    }

    /// Option tags of Supported, Require and the like, in lower case.
    pub fn option_tags(&self, name: HeaderName) -> Vec<String> {
        let lower = |v: &Vec<u8>| String::from_utf8_lossy(v).to_ascii_lowercase();
        self.values(name).iter().map(lower).collect()
    }

    /// The session description: a body of `application/sdp`, or the first such part of a
    /// multipart body (RFC 5621). `None` if there is none.
    pub fn sdp(&self) -> Option<Bytes> {
        if self.body.is_empty() {
            return None;
        }
        let media_type = self.content_type()?;
        match media_type.essence.as_str() {
            "application/sdp" => Some(self.body.clone()),
            multipart if multipart.starts_with("multipart/") => {
                let boundary = media_type.params.unquoted("boundary")?;
                parser::multipart_part(&self.body, &boundary, "application/sdp")
            }
            _ => None,
        }
    }
}
