//! How messages find their transaction (RFC 3261 §17.1.3, §17.2.3).

use crate::msg::{HeaderName, Message, Method};

/// Client side: our branch and the CSeq method.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey {
    branch: String,
    method: Method,
}

impl ClientKey {
    /// The key of a request with that branch.
    pub fn new(branch: &str, method: Method) -> ClientKey {
        ClientKey { branch: branch.to_ascii_lowercase(), method }
    }

    /// The key a response names.
    pub fn of_response(response: &Message) -> Option<ClientKey> {
        Some(ClientKey::new(response.top_via()?.branch()?, response.cseq()?.method))
    }
}

/// Server side: branch, sent-by and method; for peers of RFC 2543 what identifies their request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKey {
    text: String,
    method: Method,
}

impl ServerKey {
    /// The key of a request; an ACK has the key of its INVITE.
    pub fn of_request(request: &Message) -> Option<ServerKey> {
        let method = match request.method()? {
            Method::Ack => Method::Invite,
            other => other,
        };
        let via = request.top_via()?;
        if let Some(branch) = via.rfc3261_branch() {
            let text = format!("{} {}", branch.to_ascii_lowercase(), via.sent_by_key());
            return Some(ServerKey { text, method });
        }
        // RFC 3261 §17.2.3, RFC 2543 clients. The To tag is left out, because the ACK has one that
        // the INVITE had not; Call-ID, From tag and CSeq number tell the transactions apart.
        let from = request.from()?;
        let text = format!(
            "2543 {} {} {} {} {}",
            request.request_uri()?,
            request.call_id()?,
            from.tag().unwrap_or_default(),
            request.cseq()?.number,
            via,
        );
        Some(ServerKey { text, method })
    }

    /// The INVITE that a CANCEL with this key means (RFC 3261 §9.2).
    pub fn canceled(&self) -> ServerKey {
        ServerKey { text: self.text.clone(), method: Method::Invite }
    }
}

/// What merged requests share (RFC 3261 §8.2.2.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MergeKey {
    call_id: String,
    from_tag: String,
    cseq: u32,
    method: Method,
}

impl MergeKey {
    /// Of a request outside a dialog; `None` for others.
    pub fn of_request(request: &Message) -> Option<MergeKey> {
        if request.headers.first(HeaderName::To).is_some() && request.to()?.tag().is_some() {
            return None;
        }
        MergeKey::with_method(request, request.cseq()?.method)
    }

    /// The INVITE that a CANCEL means by Call-ID, From tag and CSeq number, whatever its Via says.
    pub fn canceled(cancel: &Message) -> Option<MergeKey> {
        MergeKey::with_method(cancel, Method::Invite)
    }

    fn with_method(request: &Message, method: Method) -> Option<MergeKey> {
        Some(MergeKey {
            call_id: request.call_id()?.into_owned(),
            from_tag: request.from()?.tag().unwrap_or_default().to_owned(),
            cseq: request.cseq()?.number,
            method,
        })
    }
}
