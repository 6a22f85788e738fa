//! A phone: a SIP endpoint with a small script.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::StdRng;
use sip_core::{
    Body, Destination, DialogHandle, Event, Header, Input, InviteParams, NameAddr, Output,
    SipConfig, SipEndpoint, Transport, Uri,
};

use super::EDGE;

/// What a phone does with a call that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Silent,
    Ring,
    EarlyMedia,
    Answer,
    Refuse(u16),
}

pub struct Phone {
    pub address: SocketAddr,
    pub sip: SipEndpoint,
    pub manner: Manner,
    /// Payload types in its session descriptions.
    pub formats: &'static str,
    /// Leave the session description out of its INVITE.
    pub offerless: bool,
    /// Offer with this instead of the usual one.
    pub first_offer: Option<Body>,
    pub events: Vec<Event>,
    /// Its present call.
    pub call: Option<DialogHandle>,
}

pub fn sdp(address: SocketAddr, formats: &str, direction: &str) -> Body {
    Body::sdp(format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio 7000 RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\na={direction}\r\n",
        ip = address.ip()
    ))
}

fn headers() -> Vec<Header> {
    Vec::new()
}

impl Phone {
    pub fn new(address: SocketAddr, rng: StdRng) -> Self {
        let config = SipConfig::new(address.ip().to_string(), address.port(), [9; 32]);
        Self {
            address,
            sip: SipEndpoint::new(config, rng),
            manner: Manner::Answer,
            formats: "0 8 101",
            offerless: false,
            first_offer: None,
            events: Vec::new(),
            call: None,
        }
    }

    pub fn body(&self) -> Body {
        sdp(self.address, self.formats, "sendrecv")
    }

    /// Calls a number through the edge.
    pub fn dial(&mut self, now: Instant, number: &str, headers: Vec<Header>) {
        let uri = Uri::parse(&format!("sip:{number}@{EDGE}")).expect("a URI");
        let from = NameAddr::parse(b"\"Alice A\" <sip:+4930111@10.0.1.1>").expect("a From");
        let target = Destination::udp(EDGE.parse().expect("an address"));
        let mut params = InviteParams::new(target, uri.clone(), from, NameAddr::new(uri));
        params.headers = headers;
        let body = self.first_offer.clone().unwrap_or_else(|| self.body());
        params.body = (!self.offerless).then_some(body);
        self.call = Some(self.sip.invite(now, params).expect("an INVITE"));
    }

    pub fn hang_up(&mut self, now: Instant) {
        if let Some(call) = self.call {
            let _ = self.sip.hang_up(now, call, 480, headers());
        }
    }

    pub fn answer(&mut self, now: Instant) {
        if let Some(call) = self.call {
            let body = Some(self.body());
            let _ = self.sip.accept(now, call, headers(), body);
        }
    }

    pub fn reinvite(&mut self, now: Instant, direction: &str) {
        let body = sdp(self.address, self.formats, direction);
        let call = self.call.expect("a call");
        self.sip.reinvite(now, call, headers(), Some(body)).expect("a re-INVITE");
    }

    pub fn receive(&mut self, now: Instant, source: SocketAddr, bytes: Bytes) {
        let (local, transport) = (self.address, Transport::Udp);
        self.sip.handle_input(now, Input::Datagram { source, local, transport, bytes });
    }

    /// Acts on events; returns what is to be sent.
    pub fn pump(&mut self, now: Instant) -> Vec<(SocketAddr, SocketAddr, Bytes)> {
        let mut out = Vec::new();
        while let Some(output) = self.sip.poll_output() {
            match output {
                Output::Send { to, bytes } => out.push((self.address, to.addr, bytes)),
                Output::Event(event) => self.on_event(now, event),
            }
        }
        out
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match &event {
            Event::Incoming { handle, .. } => {
                self.call = Some(*handle);
                let body = Some(self.body());
                let ring = |status, sip: &mut SipEndpoint, body| {
                    let _ = sip.provisional(now, *handle, status, "", headers(), body);
                };
                match self.manner {
                    Manner::Silent => {}
                    Manner::Ring => ring(180, &mut self.sip, None),
                    Manner::EarlyMedia => ring(183, &mut self.sip, body),
                    Manner::Answer => {
                        ring(180, &mut self.sip, None);
                        let _ = self.sip.accept(now, *handle, headers(), body);
                    }
                    Manner::Refuse(status) => {
                        let _ = self.sip.reject(now, *handle, status, "", headers());
                    }
                }
            }
            Event::Answered { handle, .. } if self.offerless => {
                let _ = self.sip.ack(now, *handle, self.body());
            }
            Event::ReInvite { handle, .. } => {
                let body = Some(self.body());
                let _ = self.sip.respond_reinvite(now, *handle, 200, "", headers(), body);
            }
            _ => {}
        }
        self.events.push(event);
    }

    /// Status of the final failure, if there was one.
    pub fn failed(&self) -> Option<u16> {
        self.events.iter().find_map(|event| match event {
            Event::Failed { status, .. } => Some(*status),
            _ => None,
        })
    }

    pub fn answered(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Answered { .. }))
    }

    /// The body of the final answer to its call.
    pub fn answer_body(&self) -> String {
        self.events
            .iter()
            .find_map(|event| match event {
                Event::Answered { sdp, .. } => sdp.clone(),
                _ => None,
            })
            .map(|sdp| String::from_utf8_lossy(&sdp).into_owned())
            .unwrap_or_default()
    }

    /// Reason headers of the BYE or CANCEL that ended its call; `None` if it has not ended so.
    pub fn ended_with(&self) -> Option<String> {
        self.events.iter().find_map(|event| match event {
            Event::Ended { reason: sip_core::EndReason::RemoteBye { reasons }, .. }
            | Event::Canceled { reasons, .. } => {
                Some(reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            _ => None,
        })
    }
}
