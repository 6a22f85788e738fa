//! A telephone that answers every call, greets nobody, and answers BYE. The four doors of
//! [`sip_core::SipEndpoint`] around one UDP socket:
//!
//! ```text
//! cargo run -p sip-core --example answer -- 127.0.0.1:5060
//! sipp -sn uac 127.0.0.1:5060 -m 10
//! ```

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sip_core::sdp::{CodecSpec, Direction, LocalMedia, Session, SessionState, negotiate_offer};
use sip_core::{
    Body, DialogHandle, Event, Input, Output, RequestOutcome, SipConfig, SipEndpoint, Transport,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bind = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5060".to_owned());
    let socket = UdpSocket::bind(bind)?;
    let local = socket.local_addr()?;
    let config = SipConfig::new(local.ip().to_string(), local.port(), [7; 32]);
    // A product takes its seed from the system; a demonstration may be repeatable.
    let mut sip = SipEndpoint::new(config, StdRng::seed_from_u64(1));
    let mut buffer = vec![0; 65_536];
    println!("answering on {local}");
    loop {
        while let Some(output) = sip.poll_output() {
            match output {
                Output::Send { to, bytes } => {
                    socket.send_to(&bytes, to.addr)?;
                }
                Output::Event(event) => on_event(&mut sip, local, event),
            }
        }
        let wait = sip.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.unwrap_or(Duration::from_secs(60)).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait))?;
        match socket.recv_from(&mut buffer) {
            Ok((len, source)) => {
                let bytes = Bytes::copy_from_slice(&buffer[..len]);
                let transport = Transport::Udp;
                sip.handle_input(
                    Instant::now(),
                    Input::Datagram { source, local, transport, bytes },
                );
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        sip.handle_timeout(Instant::now());
    }
}

fn on_event(sip: &mut SipEndpoint, local: SocketAddr, event: Event) {
    let now = Instant::now();
    let result = match event {
        Event::Incoming { handle, call } => {
            println!("{handle:?}: {} calls {}", call.from.uri, call.uri);
            answer(sip, now, local, handle, call.sdp.as_deref())
        }
        Event::ReInvite { handle, sdp, .. } => match body(local, handle, sdp.as_deref()) {
            Some(body) => sip.respond_reinvite(now, handle, 200, "", Vec::new(), Some(body)),
            None => sip.respond_reinvite(now, handle, 488, "", Vec::new(), None),
        },
        Event::Info { id, .. } | Event::Request { id, .. } => {
            sip.respond(now, id, 200, "", Vec::new(), None)
        }
        Event::Refer { id, .. } => sip.respond(now, id, 603, "", Vec::new(), None),
        Event::RequestDone { outcome: RequestOutcome::Timeout, .. } => Ok(()),
        Event::Ended { handle, reason, .. } => {
            println!("{handle:?}: {reason:?}");
            Ok(())
        }
        other => {
            println!("{other:?}");
            Ok(())
        }
    };
    if let Err(error) = result {
        println!("{error}");
    }
}

fn answer(
    sip: &mut SipEndpoint,
    now: Instant,
    local: SocketAddr,
    handle: DialogHandle,
    offer: Option<&[u8]>,
) -> Result<(), sip_core::CommandError> {
    sip.provisional(now, handle, 180, "", Vec::new(), None)?;
    match body(local, handle, offer) {
        Some(body) => sip.accept(now, handle, Vec::new(), Some(body)),
        None => sip.reject(now, handle, 488, "", Vec::new()),
    }
}

/// The answer to an offer, or our offer when there is none.
fn body(local: SocketAddr, handle: DialogHandle, offer: Option<&[u8]>) -> Option<Body> {
    let media = LocalMedia {
        addr: local.ip(),
        rtp_port: 4000,
        rtcp_port: 4001,
        rtcp_mux: false,
        codecs: vec![CodecSpec::pcmu(), CodecSpec::pcma()],
        telephone_event: Some(101),
        direction: Direction::SendRecv,
        ptime_ms: 20,
    };
    let mut state = SessionState::new(handle.0);
    let Some(offer) = offer else { return Some(Body::sdp(state.offer(&media))) };
    let offer = Session::parse(offer).ok()?;
    let (answer, agreed) = negotiate_offer(&offer, &media, &mut state).ok()?;
    println!("{handle:?}: {} to {:?}", agreed.codec.name, agreed.remote_rtp);
    Some(Body::sdp(answer))
}
