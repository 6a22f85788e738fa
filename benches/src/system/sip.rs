//! A caller and an answerer that do as little as SIP allows, to set up thousands of calls quickly.
//! Both speak for one generator; the edge between them shows its RTP addresses.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sip_core::msg::Host;
use sip_core::{Header, HeaderName, Message, Method};

use super::Ends;
use super::edge::PREFIX;

/// Set-ups under way at once.
const AT_ONCE: usize = 32;
/// An INVITE without final answer is sent again after so long.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// An offer or answer for PCMU at this address.
pub fn sdp(own: SocketAddr) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n",
        ip = own.ip(),
        port = own.port()
    )
}

/// The port of the first audio stream of a description inside `text`.
pub fn media_port(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("m=audio ")?;
    rest.split(' ').next()?.parse().ok()
}

fn body_port(message: &Message) -> anyhow::Result<u16> {
    let body = message.sdp().context("a message without a session description")?;
    media_port(&String::from_utf8_lossy(&body)).context("no audio stream")
}

/// A request outside or inside a dialog, as text.
pub(crate) struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Request URI.
    pub uri: &'a str,
    /// The caller's own address.
    pub own: SocketAddr,
    /// Value of To, with tag in a dialog.
    pub to: &'a str,
    /// Names the call; also in tag and branch.
    pub call_id: &'a str,
    /// CSeq number.
    pub number: u32,
    /// Session description.
    pub body: &'a str,
}

impl Request<'_> {
    pub(crate) fn text(&self) -> String {
        let Self { method, uri, own, to, call_id, number, body } = self;
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {own};branch=z9hG4bK-{call_id}-{number}-{method};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:+15550000@{own}>;tag=f{call_id}\r\n\
             To: {to}\r\n\
             Call-ID: {call_id}@bench\r\n\
             CSeq: {number} {method}\r\n\
             Contact: <sip:bench@{own}>\r\n\
             {kind}Content-Length: {length}\r\n\r\n{body}",
            length = body.len()
        )
    }
}

/// The dialog that a 2xx makes: remote target and To.
pub(crate) fn dialog_of(answer: &Message) -> anyhow::Result<(String, String)> {
    let contact = answer.contact().context("2xx without Contact")?;
    let to = answer.headers.first(HeaderName::To).context("2xx without To")?;
    Ok((contact.uri.as_str().to_owned(), to.value_str().into_owned()))
}

struct Pending {
    sent_at: Instant,
    invite: String,
}

/// Calls through one edge.
pub struct SipCalls {
    edge: SocketAddr,
    caller: UdpSocket,
    answerer: UdpSocket,
    /// Names this run's calls.
    run: u32,
    pending: BTreeMap<usize, Pending>,
    legs: Vec<[Option<SocketAddr>; 2]>,
}

impl SipCalls {
    /// `answerer` is where the edge's route leads to.
    ///
    /// # Errors
    /// Of the sockets.
    pub fn new(edge: SocketAddr, answerer: UdpSocket) -> anyhow::Result<Self> {
        let caller = UdpSocket::bind("127.0.0.1:0")?;
        for socket in [&caller, &answerer] {
            socket.set_nonblocking(true)?;
            socket2::SockRef::from(socket).set_recv_buffer_size(4 << 20)?;
        }
        let run = std::process::id();
        Ok(Self { edge, caller, answerer, run, pending: BTreeMap::new(), legs: Vec::new() })
    }

    /// Sets up calls 0 to `calls` and returns the edge's addresses of both legs of each.
    ///
    /// # Errors
    /// If a call is refused or not answered in time.
    pub fn connect(
        &mut self,
        calls: usize,
        ends: &Ends,
        limit: Duration,
    ) -> anyhow::Result<Vec<[SocketAddr; 2]>> {
        self.legs = vec![[None; 2]; calls];
        let (mut next, end) = (0, Instant::now() + limit);
        while next < calls || !self.pending.is_empty() {
            while next < calls && self.pending.len() < AT_ONCE {
                self.invite(next, ends)?;
                next += 1;
            }
            self.wait()?;
            while let Some(message) = receive(&self.answerer)? {
                self.on_answerer(&message, ends)?;
            }
            while let Some(message) = receive(&self.caller)? {
                self.on_caller(&message)?;
            }
            self.send_again()?;
            ensure!(
                Instant::now() < end,
                "{} of {calls} calls are not set up within {limit:?}",
                self.legs.iter().filter(|leg| leg.contains(&None)).count()
            );
        }
        let complete = |(call, leg): (usize, &[Option<SocketAddr>; 2])| match leg {
            [Some(a), Some(b)] => Ok([*a, *b]),
            _ => bail!("call {call} is answered without both legs"),
        };
        self.legs.iter().enumerate().map(complete).collect()
    }

    fn wait(&self) -> anyhow::Result<()> {
        use std::os::fd::AsFd as _;
        let mut fds = [
            PollFd::new(self.caller.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.answerer.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::from(50u8)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn call_id(&self, call: usize) -> String {
        format!("{}-{call}", self.run)
    }

    fn invite(&mut self, call: usize, ends: &Ends) -> anyhow::Result<()> {
        let uri = format!("sip:{PREFIX}{call:07}@{}", self.edge);
        let invite = Request {
            method: "INVITE",
            uri: &uri,
            own: self.caller.local_addr()?,
            to: &format!("<{uri}>"),
            call_id: &self.call_id(call),
            number: 1,
            body: &sdp(ends.of(call, 0)),
        }
        .text();
        self.caller.send_to(invite.as_bytes(), self.edge)?;
        self.pending.insert(call, Pending { sent_at: Instant::now(), invite });
        Ok(())
    }

    fn send_again(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        for pending in self.pending.values_mut() {
            if now.duration_since(pending.sent_at) >= AGAIN_AFTER {
                pending.sent_at = now;
                self.caller.send_to(pending.invite.as_bytes(), self.edge)?;
            }
        }
        Ok(())
    }

    fn on_caller(&mut self, message: &Message) -> anyhow::Result<()> {
        let Some(status) = message.status() else {
            bail!("the edge ended a call: {:?}", message.method());
        };
        if status < 200 {
            return Ok(());
        }
        let call_id = message.call_id().context("a response without Call-ID")?;
        let call: usize = call_id
            .strip_suffix("@bench")
            .and_then(|id| id.rsplit('-').next())
            .and_then(|call| call.parse().ok())
            .with_context(|| format!("a response to a call of nobody: {call_id}"))?;
        ensure!(status < 300, "call {call} was refused: {status} {}", message.reason());
        let (target, to) = dialog_of(message)?;
        let ack = Request {
            method: "ACK",
            uri: &target,
            own: self.caller.local_addr()?,
            to: &to,
            call_id: &self.call_id(call),
            number: 1,
            body: "",
        };
        self.caller.send_to(ack.text().as_bytes(), self.edge)?;
        let leg = SocketAddr::new(self.edge.ip(), body_port(message)?);
        self.legs.get_mut(call).context("a call that was not made")?[0] = Some(leg);
        self.pending.remove(&call);
        Ok(())
    }

    fn on_answerer(&mut self, message: &Message, ends: &Ends) -> anyhow::Result<()> {
        match message.method() {
            Some(Method::Invite) => {}
            Some(Method::Ack) => return Ok(()),
            other => bail!("the edge sent {other:?} to the answerer"),
        }
        let uri = message.request_uri().context("an INVITE without URI")?;
        let number = uri.user().and_then(|user| user.strip_prefix(PREFIX));
        let call: usize = number.and_then(|n| n.parse().ok()).context("an unknown number")?;
        let leg = SocketAddr::new(self.edge.ip(), body_port(message)?);
        self.legs.get_mut(call).context("a call that was not made")?[1] = Some(leg);
        let own = self.answerer.local_addr()?;
        let mut answer = Message::response_to(message, 200, "OK", Some(&format!("t{call}")));
        answer.headers.add(HeaderName::Contact, format!("<sip:answer@{own}>"));
        let kind = Header::named("Content-Type", "application/sdp").context("a header")?;
        answer.headers.push(kind);
        answer.body = Bytes::from(sdp(ends.of(call, 1)));
        self.answerer.send_to(&answer.to_bytes(), response_target(message, self.edge))?;
        Ok(())
    }
}

/// Where a response goes: the top Via's address (RFC 3261 §18.2.2), here always an IP address.
fn response_target(request: &Message, otherwise: SocketAddr) -> SocketAddr {
    let Some(via) = request.top_via() else { return otherwise };
    match &via.host {
        Host::Ip(ip) => SocketAddr::new(*ip, via.port.unwrap_or(5060)),
        _ => otherwise,
    }
}

/// The next message, if there is one.
pub(crate) fn receive(socket: &UdpSocket) -> anyhow::Result<Option<Message>> {
    let mut bytes = [0; 4096];
    match socket.recv(&mut bytes) {
        Ok(length) => {
            let bytes = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
            Ok(Some(Message::parse(&bytes).with_context(|| format!("{bytes:?}"))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_sip() {
        let own = "127.0.0.1:5070".parse().unwrap();
        let body = sdp("127.0.0.1:4000".parse().unwrap());
        let (uri, to) = ("sip:+17770000007@127.0.0.1:5060", "<sip:x@y>");
        let text =
            Request { method: "INVITE", uri, own, to, call_id: "9-7", number: 1, body: &body }
                .text();
        let message = Message::parse(&Bytes::from(text)).unwrap();
        assert_eq!(message.method(), Some(Method::Invite));
        assert_eq!(message.call_id().unwrap(), "9-7@bench");
        assert_eq!(body_port(&message).unwrap(), 4000);
        assert!(message.top_via().unwrap().rfc3261_branch().is_some());
    }
}
