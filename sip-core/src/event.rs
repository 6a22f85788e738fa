//! What goes into an endpoint and what comes out.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::auth::Credentials;
use crate::msg::{Header, Message, Method, NameAddr, Reason, Uri};
use crate::transport::{Destination, Transport};

/// One INVITE usage as its user sees it: a leg. Unique for the life of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialogHandle(pub u64);

/// One request other than INVITE that the user answers, or whose answer it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Input of [`crate::SipEndpoint::handle_input`].
#[derive(Clone, Debug)]
pub enum Input {
    /// One message: a datagram, or one framed message of a stream (see [`crate::framing`]).
    Datagram {
        /// Address of the peer.
        source: SocketAddr,
        /// Our socket.
        local: SocketAddr,
        /// Transport of both.
        transport: Transport,
        /// The message.
        bytes: Bytes,
    },
    /// Bytes could not be sent there (ICMP, refused or broken connection).
    SendFailed {
        /// The `to` of the [`Output::Send`] that failed.
        to: Destination,
    },
}

/// Output of [`crate::SipEndpoint::poll_output`].
#[derive(Clone, Debug)]
pub enum Output {
    /// Send `bytes`.
    Send {
        /// Whereto.
        to: Destination,
        /// One SIP message.
        bytes: Bytes,
    },
    /// Something the user has to know.
    Event(Event),
}

/// Outputs are moved often; whole messages in them are boxed.
const _: () = assert!(size_of::<Output>() <= 128);

/// A body with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// `Content-Type` value.
    pub content_type: String,
    /// The body itself.
    pub bytes: Bytes,
}

impl Body {
    /// A body of `application/sdp`.
    pub fn sdp(bytes: impl Into<Bytes>) -> Self {
        Body { content_type: "application/sdp".to_owned(), bytes: bytes.into() }
    }

    /// A body of any type.
    pub fn new(content_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Body { content_type: content_type.into(), bytes: bytes.into() }
    }
}

/// Arguments of [`crate::SipEndpoint::invite`].
#[derive(Clone, Debug)]
pub struct InviteParams {
    /// First hop.
    pub target: Destination,
    /// Request URI, kept byte for byte.
    pub request_uri: Uri,
    /// From; a tag in it is replaced by ours.
    pub from: NameAddr,
    /// To, without tag.
    pub to: NameAddr,
    /// Call-ID; minted if `None`. Minted ones carry our token.
    pub call_id: Option<String>,
    /// Preloaded route set (RFC 3261 §12.2.1.1), loose routers.
    pub route: Vec<NameAddr>,
    /// Further headers, in order.
    pub headers: Vec<Header>,
    /// The offer; `None` asks the callee for one, see [`crate::SipEndpoint::ack`].
    pub body: Option<Body>,
    /// Answers challenges (RFC 8760), one per request of the call.
    pub credentials: Option<Credentials>,
}

impl InviteParams {
    /// Parameters with no route, no headers and no credentials.
    pub fn new(target: Destination, request_uri: Uri, from: NameAddr, to: NameAddr) -> Self {
        InviteParams {
            target,
            request_uri,
            from,
            to,
            call_id: None,
            route: Vec::new(),
            headers: Vec::new(),
            body: None,
            credentials: None,
        }
    }
}

/// Arguments of [`crate::SipEndpoint::send_request`]: a request outside any dialog.
#[derive(Clone, Debug)]
pub struct RequestParams {
    /// Not INVITE, ACK or CANCEL.
    pub method: Method,
    /// First hop.
    pub target: Destination,
    /// Request URI.
    pub request_uri: Uri,
    /// From; a tag in it is replaced by ours.
    pub from: NameAddr,
    /// To.
    pub to: NameAddr,
    /// Call-ID; minted if `None`.
    pub call_id: Option<String>,
    /// CSeq number; a REGISTER that refreshes raises it.
    pub cseq: u32,
    /// Further headers (Contact, Expires …).
    pub headers: Vec<Header>,
    /// Body.
    pub body: Option<Body>,
    /// Answers one 401/407 challenge.
    pub credentials: Option<Credentials>,
}

/// Summary of a new inbound INVITE.
#[derive(Clone, Debug)]
pub struct IncomingCall {
    /// Request URI.
    pub uri: Uri,
    /// From.
    pub from: NameAddr,
    /// To (without tag).
    pub to: NameAddr,
    /// Call-ID.
    pub call_id: String,
    /// Where the request came from.
    pub source: Destination,
    /// The offer, if the INVITE carries one.
    pub sdp: Option<Bytes>,
    /// The whole request.
    pub request: Message,
}

/// Why a client transaction or an outbound call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailCause {
    /// A final response of class 3xx–6xx.
    Response,
    /// No response in time (timer B or F); status is 408.
    Timeout,
    /// The transport could not deliver; status is 503.
    Transport,
    /// The user cancelled and the peer (or the deadline) confirmed; status is mostly 487.
    Canceled,
}

/// Outcome of a request sent with `info`, `request` or `send_request`.
#[derive(Clone, Debug)]
pub enum RequestOutcome {
    /// A final response.
    Response(Box<Message>),
    /// No response in time.
    Timeout,
    /// The transport could not deliver.
    Transport,
}

/// How an answered (or accepted) call came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The peer sent BYE.
    RemoteBye {
        /// Reason headers of the BYE (RFC 3326).
        reasons: Vec<Reason>,
    },
    /// [`crate::SipEndpoint::bye`], and its transaction is over.
    LocalBye,
    /// [`crate::SipEndpoint::reject`].
    Rejected,
    /// The 2xx crossed our CANCEL: it was acknowledged and the call ended by BYE.
    CanceledAfterAnswer,
    /// Our 2xx was never acknowledged (64·T1): BYE was sent.
    AckTimeout,
    /// The peer does not know the dialog any more (481 or 408 in the dialog) or is unreachable.
    TransactionTimeout,
    /// A deadline of ours ran out: `ringing_max`, `call_max`, or `ack` was not called in time.
    Expired,
}

/// What the user learns. Every handle gets exactly one terminal event: `Canceled`, `Failed` or
/// `Ended`; after it the handle is unknown.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new inbound call. 100 Trying has been sent. Answer with `provisional`, `accept`, `reject`.
    Incoming {
        /// The new leg.
        handle: DialogHandle,
        /// What it says.
        call: Box<IncomingCall>,
    },
    /// Terminal. The caller cancelled before an answer; 487 has been sent.
    Canceled {
        /// The leg.
        handle: DialogHandle,
        /// Reason headers of the CANCEL (RFC 3326), e.g. answered elsewhere.
        reasons: Vec<Reason>,
    },
    /// A 1xx above 100 for our INVITE.
    Provisional {
        /// The leg.
        handle: DialogHandle,
        /// To tag: which early dialog (fork). `None` if the response has none.
        early_dialog: Option<String>,
        /// Status code.
        status: u16,
        /// Session description, if any (early media).
        sdp: Option<Bytes>,
        /// The response.
        response: Box<Message>,
    },
    /// A 2xx for our INVITE; it has been acknowledged if our INVITE carried the offer, else `ack`
    /// has to be called with the answer.
    Answered {
        /// The leg.
        handle: DialogHandle,
        /// To tag: which early dialog became the dialog.
        remote_tag: Option<String>,
        /// Answer, or offer if our INVITE had none.
        sdp: Option<Bytes>,
        /// The response.
        response: Box<Message>,
    },
    /// Terminal. Our INVITE failed.
    Failed {
        /// The leg.
        handle: DialogHandle,
        /// Status code; 408, 503 or 487 when there is no response.
        status: u16,
        /// What kind of failure.
        cause: FailCause,
        /// The response, if there is one.
        response: Option<Box<Message>>,
    },
    /// Our 2xx (to INVITE or re-INVITE) is acknowledged.
    AckReceived {
        /// The leg.
        handle: DialogHandle,
        /// The answer, if our 2xx carried the offer.
        sdp: Option<Bytes>,
    },
    /// Terminal. The call is over.
    Ended {
        /// The leg.
        handle: DialogHandle,
        /// Why.
        reason: EndReason,
        /// The BYE of the peer, if that is why.
        request: Option<Box<Message>>,
    },
    /// The peer offers a new session (re-INVITE or UPDATE with body), or asks for an offer
    /// (`sdp` is `None`). Answer with `respond_reinvite`.
    ReInvite {
        /// The leg.
        handle: DialogHandle,
        /// The offer.
        sdp: Option<Bytes>,
        /// The request.
        request: Box<Message>,
    },
    /// Our re-INVITE was answered. If it carried no body, call `ack` with the answer.
    ReInviteAnswered {
        /// The leg.
        handle: DialogHandle,
        /// Answer (or offer, if ours had none).
        sdp: Option<Bytes>,
        /// The response.
        response: Box<Message>,
    },
    /// Our re-INVITE was refused; the session stays as it was (RFC 3261 §14.1). 491 is retried by
    /// the endpoint and not reported before the last try.
    ReInviteFailed {
        /// The leg.
        handle: DialogHandle,
        /// Status code.
        status: u16,
    },
    /// INFO in a dialog. Answer with `respond`.
    Info {
        /// The leg.
        handle: DialogHandle,
        /// For `respond`.
        id: RequestId,
        /// Content-Type in lower case without parameters, or empty.
        content_type: String,
        /// Body.
        body: Bytes,
        /// The request.
        request: Box<Message>,
    },
    /// REFER in a dialog. Answer with `respond` (202 or a refusal).
    Refer {
        /// The leg.
        handle: DialogHandle,
        /// For `respond`.
        id: RequestId,
        /// Refer-To.
        refer_to: Box<NameAddr>,
        /// The request.
        request: Box<Message>,
    },
    /// Any other request in a dialog (NOTIFY, MESSAGE). Answer with `respond`.
    Request {
        /// The leg.
        handle: DialogHandle,
        /// For `respond`.
        id: RequestId,
        /// The request.
        request: Box<Message>,
    },
    /// Our request (`info`, `request`, `send_request`) is done.
    RequestDone {
        /// The leg, if the request was in a dialog and the leg still lives.
        handle: Option<DialogHandle>,
        /// What `info`, `request` or `send_request` returned.
        id: RequestId,
        /// How it went.
        outcome: RequestOutcome,
    },
}
