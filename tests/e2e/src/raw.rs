//! SIP by hand: a UDP socket, for messages that no proper phone sends and for reading headers that
//! phones do not report.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A socket on loopback.
pub struct Raw {
    socket: UdpSocket,
}

impl Raw {
    /// On an address of loopback, any port.
    ///
    /// # Errors
    /// Of the system.
    pub fn bind(ip: &str) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((ip, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(Self { socket })
    }

    /// Its address.
    ///
    /// # Errors
    /// Of the system.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Of the system.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) -> anyhow::Result<()> {
        self.socket.send_to(bytes, to)?;
        Ok(())
    }

    /// The next datagram within a second, with its sender.
    pub fn receive(&self) -> Option<(String, SocketAddr)> {
        let mut buffer = [0; 65_535];
        let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
        Some((String::from_utf8_lossy(buffer.get(..length)?).into_owned(), from))
    }

    /// The next final response; provisional ones are passed over.
    pub fn final_response(&self) -> Option<String> {
        loop {
            let (text, _) = self.receive()?;
            if text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1") {
                return Some(text);
            }
        }
    }

    /// What comes until nothing has come for so many milliseconds.
    ///
    /// # Errors
    /// Of the system.
    pub fn received_within(&self, quiet_ms: u64) -> anyhow::Result<Vec<String>> {
        self.socket.set_read_timeout(Some(Duration::from_millis(quiet_ms)))?;
        let texts = std::iter::from_fn(|| self.receive()).map(|(text, _)| text).collect();
        self.socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(texts)
    }

    /// Status codes that come within a second after the last one.
    pub fn statuses(&self) -> Vec<u16> {
        let mut statuses = Vec::new();
        while let Some((text, _)) = self.receive() {
            let status = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
            statuses.extend(status.and_then(|status| status.parse::<u16>().ok()));
        }
        statuses
    }

    /// A well-formed request with an SDP offer.
    ///
    /// # Errors
    /// Of the system.
    pub fn invite(&self, uri: &str, call_id: &str, more: &str) -> anyhow::Result<String> {
        let at = self.address()?;
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n",
            ip = at.ip(),
            port = at.port() & !1
        );
        Ok(format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{call_id};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+15559001@{at}>;tag=f{call_id}\r\nTo: <{uri}>\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:raw@{at}>\r\n{more}\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        ))
    }

    /// The ACK for a refusal of [`Self::invite`].
    ///
    /// # Errors
    /// Of the system.
    pub fn ack(&self, uri: &str, call_id: &str, response: &str) -> anyhow::Result<String> {
        let at = self.address()?;
        let to = response.lines().find(|line| line.starts_with("To:")).unwrap_or("To: <sip:x@x>");
        Ok(format!(
            "ACK {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{call_id};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+15559001@{at}>;tag=f{call_id}\r\n{to}\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
        ))
    }
}

/// A header of a SIP message by its name.
pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
