//! Errors of parsing and of commands.

use std::fmt;

/// Where and why a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Byte offset into the datagram (or into the field's value if `offset_in_field`).
    pub offset: usize,
    /// The header or part at fault, e.g. `CSeq` or `start line`.
    pub field: &'static str,
    /// What is wrong with it.
    pub kind: ParseErrorKind,
    /// For a request that can be answered: the 400 or 505 response; [`crate::SipEndpoint`] sends
    /// it. `None` means silence.
    pub answer: Option<Box<crate::msg::Message>>,
}

/// Kinds of [`ParseError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// Nothing but CR, LF or NUL: a keep-alive.
    Empty,
    /// Larger than a limit of the parser.
    TooLarge,
    /// The grammar does not allow it.
    Syntax,
    /// A SIP version other than 2.0.
    Version,
    /// A mandatory header is missing.
    Missing,
    /// A header that may occur once occurs twice with different values.
    Duplicate,
    /// Content-Length beyond the end of the datagram.
    Truncated,
}

impl ParseError {
    pub(crate) fn new(offset: usize, field: &'static str, kind: ParseErrorKind) -> Self {
        ParseError { offset, field, kind, answer: None }
    }

    /// True if the peer can be told (a request with enough of a Via, From, To, Call-ID, CSeq).
    pub fn answerable(&self) -> bool {
        self.answer.is_some()
    }
}

impl fmt::Display for ParseErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseErrorKind::Empty => "is empty",
            ParseErrorKind::TooLarge => "is too large",
            ParseErrorKind::Syntax => "is malformed",
            ParseErrorKind::Version => "has an unsupported version",
            ParseErrorKind::Missing => "is missing",
            ParseErrorKind::Duplicate => "occurs twice",
            ParseErrorKind::Truncated => "is longer than the message",
        })
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (byte {})", self.field, self.kind, self.offset)
    }
}

impl std::error::Error for ParseError {}

/// Why a command of the user was refused. Nothing has been sent then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The handle is not (or no longer) known.
    #[error("no such dialog or request")]
    Unknown,
    /// The state of the call does not allow it, e.g. `accept` on an outbound call.
    #[error("not possible in this state")]
    State,
    /// An offer is already under way in either direction (RFC 3261 §14.1).
    #[error("another offer is pending")]
    Pending,
    /// The endpoint is full.
    #[error("no room for another transaction or dialog")]
    Capacity,
    /// An argument is not legal SIP (status class, URI).
    #[error("argument is not legal here")]
    Argument,
}
