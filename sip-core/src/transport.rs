//! Transports and response routing (RFC 3261 §18, RFC 3581). No sockets.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::msg::{HeaderName, Host, Message, Via, scan};

/// A SIP transport. Decides reliability and default ports, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A TCP stream.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// Secure WebSocket.
    Wss,
}

impl Transport {
    /// True if the transport itself retransmits, so that timers A, E and G stay off.
    pub fn is_reliable(self) -> bool {
        self != Transport::Udp
    }

    /// Port when neither Via nor URI names one (RFC 3261 §18.2.2, §19.1.2; RFC 7118 §5.2).
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
            Transport::Ws => 80,
            Transport::Wss => 443,
        }
    }

    /// Name in a Via header.
    pub fn via_name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// Value of a `transport` URI parameter.
    pub fn uri_param(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        }
    }

    /// The transport named in a Via header or a `transport` parameter, in any case.
    pub fn from_name(name: &str) -> Option<Transport> {
        const ALL: [Transport; 5] =
            [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
        ALL.into_iter().find(|transport| transport.via_name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.via_name())
    }
}

/// Where bytes go to or came from. On streams `addr` also names the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// Address of the peer.
    pub addr: SocketAddr,
    /// Transport towards the peer.
    pub transport: Transport,
    /// Our socket; `None` leaves the choice to the shell. Answers name the socket on which the
    /// request came, as RFC 3581 §4 wants.
    pub local: Option<SocketAddr>,
}

impl Destination {
    /// A UDP peer, any local socket.
    pub fn udp(addr: SocketAddr) -> Self {
        Destination { addr, transport: Transport::Udp, local: None }
    }

    /// A peer on `transport`, any local socket.
    pub fn new(transport: Transport, addr: SocketAddr) -> Self {
        Destination { addr, transport, local: None }
    }

    /// True if both name the same peer, whatever the local socket.
    pub fn same_peer(&self, other: &Destination) -> bool {
        self.addr == other.addr && self.transport == other.transport
    }
}

/// What has to be added to the top Via of a request that came from `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViaStamp {
    /// `received` value to add (RFC 3261 §18.2.1, RFC 3581 §4).
    pub received: Option<IpAddr>,
    /// `rport` value to fill in (RFC 3581 §4).
    pub rport: Option<u16>,
}

/// The stamp for a request's top Via.
pub fn via_stamp(via: &Via, source: SocketAddr) -> ViaStamp {
    let wants_rport = via.params.has("rport");
    let same_host = matches!(via.host, Host::Ip(ip) if ip == source.ip());
    ViaStamp {
        // RFC 3581 §4: with rport, received is added even if the address is the same.
        received: (!same_host || wants_rport).then_some(source.ip()),
        rport: wants_rport.then_some(source.port()),
    }
}

/// Puts `received` and `rport` into the top Via of a message that came from `source`. Other bytes
/// of the message stay as they are.
pub fn stamp_top_via(message: &mut Message, source: SocketAddr) {
    let Some(header) = message.headers.first(HeaderName::Via) else { return };
    let value = header.value().into_owned();
    let end = scan::find_outside(&value, b',').unwrap_or(value.len());
    let (first, others) = value.split_at(end);
    let Some(mut via) = Via::parse(first) else { return };
    let stamp = via_stamp(&via, source);
    if stamp == (ViaStamp { received: None, rport: None }) {
        return;
    }
    if let Some(ip) = stamp.received {
        via.params.set("received", Some(&ip.to_string()));
    }
    if let Some(port) = stamp.rport {
        via.params.set("rport", Some(&port.to_string()));
    }
    let mut stamped = via.to_string().into_bytes();
    stamped.extend_from_slice(others);
    message.headers.set(HeaderName::Via, stamped);
}

/// Where a response goes (RFC 3261 §18.2.2, RFC 3581 §4). `source` is where the request came from.
pub fn response_destination(via: &Via, source: Destination) -> Destination {
    if source.transport.is_reliable() {
        return source;
    }
    // RFC 3261 §18.2.2 honours maddr. RFC-DEVIATION 3261 §18.2.2: we do not, it lets a stranger
    // choose whom we send to; multicast is out of scope.
    let port = if via.params.has("rport") {
        source.addr.port()
    } else {
        via.port.unwrap_or_else(|| source.transport.default_port())
    };
    Destination { addr: SocketAddr::new(source.addr.ip(), port), ..source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(via: &str, source: &str, expect: &str, stamp: (Option<&str>, Option<u16>)) {
        let via = Via::parse(via.as_bytes()).expect("a valid Via");
        let source = Destination::udp(source.parse().expect("an address"));
        assert_eq!(response_destination(&via, source).addr.to_string(), expect);
        let expect =
            ViaStamp { received: stamp.0.map(|ip| ip.parse().expect("ip")), rport: stamp.1 };
        assert_eq!(via_stamp(&via, source.addr), expect);
    }

    #[test]
    fn responses_follow_received_and_rport() {
        check("SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK1", "10.1.1.1:7", "10.1.1.1:5060", (None, None));
        check(
            "SIP/2.0/UDP a.example:5070;branch=z9hG4bK1",
            "10.1.1.1:7",
            "10.1.1.1:5070",
            (Some("10.1.1.1"), None),
        );
        check(
            "SIP/2.0/UDP 10.1.1.1:5070;rport;branch=z9hG4bK1",
            "10.1.1.1:7",
            "10.1.1.1:7",
            (Some("10.1.1.1"), Some(7)),
        );
        check("SIP/2.0/UDP [2001:db8::1]", "[2001:db8::1]:9", "[2001:db8::1]:5060", (None, None));
    }

    #[test]
    fn a_stream_answers_on_its_connection() {
        let via = Via::parse(b"SIP/2.0/TCP 10.1.1.1;branch=z9hG4bK1").expect("a valid Via");
        let source = Destination::new(Transport::Tcp, "10.9.9.9:4711".parse().expect("address"));
        assert_eq!(response_destination(&via, source), source);
    }
}
