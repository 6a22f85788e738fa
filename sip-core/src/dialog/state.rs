//! The state of one dialog (RFC 3261 §12): identity, sequence numbers, remote target, route set.

use std::net::{IpAddr, SocketAddr};

use super::route_set::RouteSet;
use crate::msg::{HeaderName, Headers, Message, Method, NameAddr, StartLine, Uri};
use crate::transport::{Destination, Transport};

/// What a CSeq number in a request from the peer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CSeqCheck {
    /// Higher than any before.
    InOrder,
    /// Lower: 500 (RFC 3261 §12.2.2).
    OutOfOrder,
}

/// One dialog.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: String,
    /// Our address with our tag.
    pub local: NameAddr,
    /// The peer's address with its tag.
    pub remote: NameAddr,
    /// CSeq of our last request.
    pub local_cseq: u32,
    /// CSeq of the peer's last request.
    pub remote_cseq: Option<u32>,
    /// Where requests go to in the end.
    pub remote_target: Uri,
    /// By which way.
    pub route_set: RouteSet,
    /// Where the message came from that made or last refreshed the dialog.
    pub flow: Destination,
}

impl Dialog {
    /// The dialog that a 101–299 makes at the caller (RFC 3261 §12.1.2).
    pub fn uac(request: &Message, response: &Message, flow: Destination) -> Option<Dialog> {
        let target = response.contact().map(|contact| contact.uri);
        Some(Dialog {
            call_id: response.call_id()?.into_owned(),
            local: request.from()?,
            remote: response.to()?,
            local_cseq: request.cseq()?.number,
            remote_cseq: None,
            // A response without Contact breaks the RFC; its Request-URI is the best there is.
            remote_target: target.or_else(|| request.request_uri())?,
            route_set: RouteSet::from_record_route(response, true)?,
            flow,
        })
    }

    /// The dialog that an INVITE makes at the callee (RFC 3261 §12.1.1).
    pub fn uas(request: &Message, local_tag: &str, flow: Destination) -> Option<Dialog> {
        let from = request.from()?;
        let target = request.contact().map_or_else(|| from.uri.clone(), |contact| contact.uri);
        Some(Dialog {
            call_id: request.call_id()?.into_owned(),
            local: request.to()?.with_tag(local_tag),
            remote: from,
            local_cseq: 0,
            remote_cseq: Some(request.cseq()?.number),
            remote_target: target,
            route_set: RouteSet::from_record_route(request, false)?,
            flow,
        })
    }

    /// The peer's tag; empty for peers of RFC 2543.
    pub fn remote_tag(&self) -> &str {
        self.remote.tag().unwrap_or_default()
    }

    /// Our tag.
    pub fn local_tag(&self) -> &str {
        self.local.tag().unwrap_or_default()
    }

    /// Takes the CSeq of a request from the peer.
    pub fn check_cseq(&mut self, number: u32) -> CSeqCheck {
        match self.remote_cseq {
            Some(last) if number < last => CSeqCheck::OutOfOrder,
            _ => {
                self.remote_cseq = Some(number);
                CSeqCheck::InOrder
            }
        }
    }

    /// Target refresh by INVITE, UPDATE or their 2xx (RFC 3261 §12.2).
    pub fn refresh_target(&mut self, message: &Message, flow: Destination) {
        if let Some(contact) = message.contact() {
            self.remote_target = contact.uri;
            self.flow = flow;
        }
    }

    /// The number for our next request.
    pub fn next_cseq(&mut self) -> u32 {
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.local_cseq
    }

    /// A request in the dialog, without Via and Contact (RFC 3261 §12.2.1.1).
    pub fn request(&self, method: Method, cseq: u32) -> Message {
        let mut routes = Headers::new();
        let uri = self.route_set.apply(&self.remote_target, &mut routes);
        let mut message = Message::request(method.clone(), uri);
        if let StartLine::Request { uri: raw, .. } = &mut message.start {
            *raw = bytes::Bytes::copy_from_slice(uri.without_headers().as_bytes());
        }
        let headers = &mut message.headers;
        headers.add(HeaderName::MaxForwards, "70");
        headers.add(HeaderName::From, self.local.to_string());
        headers.add(HeaderName::To, self.remote.to_string());
        headers.add(HeaderName::CallId, &self.call_id);
        headers.add(HeaderName::CSeq, format!("{cseq} {method}"));
        for route in &routes {
            headers.push(route.clone());
        }
        message
    }

    /// Where a request in the dialog is sent. We ask no DNS: a next hop that is a name, or that
    /// cannot be reached from here (a private address behind NAT, a transport that is not in
    /// `transports`), is replaced by the flow.
    pub fn destination(&self, transports: &[Transport]) -> Destination {
        if self.flow.transport.is_reliable() {
            // The connection that is there (RFC 5923 in spirit): the peer may be behind NAT.
            return self.flow;
        }
        let next = self.route_set.first().map_or(&self.remote_target, |route| &route.uri);
        let Some(ip) = next.host().and_then(|host| host.ip()) else {
            return self.flow;
        };
        if ip.is_ipv4() != self.flow.addr.is_ipv4()
            || (ip != self.flow.addr.ip() && is_private(ip) && !is_private(self.flow.addr.ip()))
        {
            return self.flow;
        }
        let named = match next.param("transport") {
            Some(name) => Transport::from_name(name),
            None => Some(self.flow.transport),
        };
        let Some(transport) = named.filter(|named| transports.contains(named)) else {
            return self.flow;
        };
        let port = next.port().unwrap_or_else(|| transport.default_port());
        if port == 0 || !is_unicast(ip) {
            return self.flow;
        }
        Destination { addr: SocketAddr::new(ip, port), transport, local: self.flow.local }
    }
}

/// False for addresses that name nobody, or more than one.
fn is_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}

/// True for addresses that have no meaning outside their network.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || shared
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialog(contact: &str, record_route: &str, flow: &str) -> Dialog {
        let text = format!(
            "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
             To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\nContact: {contact}\r\n{record_route}\r\n"
        );
        let message = Message::parse(&bytes::Bytes::from(text)).expect("legal");
        Dialog::uas(&message, "ours", Destination::udp(flow.parse().expect("address")))
            .expect("dialog")
    }

    fn check(contact: &str, record_route: &str, flow: &str, expect: &str) {
        assert_eq!(
            dialog(contact, record_route, flow).destination(&[Transport::Udp]).addr.to_string(),
            expect
        );
    }

    #[test]
    fn requests_go_to_route_target_or_flow() {
        check("<sip:a@192.0.2.1:5070>", "", "192.0.2.9:1", "192.0.2.1:5070");
        check("<sip:a@10.0.0.1:5070>", "", "192.0.2.9:1", "192.0.2.9:1");
        check("<sip:a@10.0.0.1:5070>", "", "10.0.0.9:1", "10.0.0.1:5070");
        check("<sip:a@phone.example>", "", "192.0.2.9:1", "192.0.2.9:1");
        check("<sip:a@192.0.2.1:5070;transport=tcp>", "", "192.0.2.9:1", "192.0.2.9:1");
        check("<sip:a@192.0.2.1:5070;transport=UDP>", "", "192.0.2.9:1", "192.0.2.1:5070");
        check("<sip:a@192.0.2.1:0>", "", "192.0.2.9:1", "192.0.2.9:1");
        check("<sip:a@192.0.2.1:5070;transport=x>", "", "192.0.2.9:1", "192.0.2.9:1");
        for nobody in ["0.0.0.0", "255.255.255.255", "224.0.1.75"] {
            check(&format!("<sip:a@{nobody}>"), "", "192.0.2.9:1", "192.0.2.9:1");
        }
        let route = "Record-Route: <sip:192.0.2.77;lr>, <sip:192.0.2.78;lr>\r\n";
        check("<sip:a@192.0.2.1>", route, "192.0.2.9:1", "192.0.2.77:5060");
    }

    #[test]
    fn cseq_numbers_may_jump_but_not_fall() {
        let mut dialog = dialog("<sip:a@192.0.2.1>", "", "192.0.2.9:1");
        assert_eq!(dialog.check_cseq(6), CSeqCheck::OutOfOrder);
        assert_eq!(dialog.check_cseq(7), CSeqCheck::InOrder);
        assert_eq!(dialog.check_cseq(99), CSeqCheck::InOrder);
        assert_eq!(dialog.check_cseq(98), CSeqCheck::OutOfOrder);
        let bye = dialog.request(Method::Bye, 1);
        assert_eq!(bye.to().and_then(|to| to.tag().map(str::to_owned)).as_deref(), Some("1"));
    }
}
