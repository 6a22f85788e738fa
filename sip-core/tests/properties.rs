//! Round trips, no panics on anything, and other people's parsers as oracles.

use bytes::Bytes;
use proptest::prelude::*;
use sip_core::framing::StreamFramer;
use sip_core::sdp::{
    CodecSpec, Direction, LocalMedia, Session, SessionState, negotiate_answer, negotiate_offer,
};
use sip_core::{
    Destination, Header, HeaderName, Input, Message, Method, NameAddr, SipConfig, SipEndpoint,
    Transport, Uri,
};

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9.!%*_+`'~-]{1,12}"
}

fn uri_text() -> impl Strategy<Value = String> {
    prop_oneof![
        ("[a-zA-Z0-9._+-]{1,10}", "[a-z][a-z0-9.]{0,10}[a-z]", proptest::option::of(1u16..))
            .prop_map(|(user, host, port)| match port {
                Some(port) => format!("sip:{user}@{host}:{port}"),
                None => format!("sips:{user}@{host}"),
            }),
        any::<[u16; 8]>()
            .prop_map(|ip| format!("sip:[{}];transport=tcp", std::net::Ipv6Addr::from(ip))),
        "[+][0-9]{3,12}".prop_map(|number| format!("tel:{number}")),
    ]
}

prop_compose! {
    fn name_addr()(
        display in proptest::option::of("[ -~äöü]{0,20}"),
        uri in uri_text(),
        tag in token(),
    ) -> NameAddr {
        let uri = Uri::parse(&uri).expect("made to be legal");
        NameAddr { display, ..NameAddr::new(uri) }.with_tag(&tag)
    }
}

prop_compose! {
    fn message()(
        uri in uri_text(),
        from in name_addr(),
        to in name_addr(),
        call_id in token(),
        cseq in 0u32..1 << 31,
        branch in token(),
        other in proptest::collection::vec((token(), "[^\r\n\u{0}]{0,40}"), 0..6),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        request in any::<bool>(),
        method in proptest::sample::select(vec![
            Method::Invite, Method::Ack, Method::Cancel, Method::Bye, Method::Options, Method::Info,
        ]),
    ) -> Message {
        let uri = Uri::parse(&uri).expect("made to be legal");
        let mut message = Message::request(method.clone(), &uri);
        let headers = &mut message.headers;
        headers.add(HeaderName::Via, format!("SIP/2.0/UDP host:5060;branch=z9hG4bK{branch}"));
        headers.add(HeaderName::From, from.to_string());
        headers.add(HeaderName::To, to.to_string());
        headers.add(HeaderName::CallId, &call_id);
        headers.add(HeaderName::CSeq, format!("{cseq} {method}"));
        for (name, value) in other {
            headers.push(Header::named(&format!("X-{name}"), value).expect("a token"));
        }
        if !request {
            message = Message::response_to(&message, 200, "fine", None);
        }
        message.body = Bytes::from(body);
        message
    }
}

/// Flips, cuts and doubles parts of a legal message.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0u8..5);
    (message(), proptest::collection::vec(edit, 1..8)).prop_map(|(message, edits)| {
        let mut bytes = message.to_bytes().to_vec();
        for (index, value, kind) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = value,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, value),
                3 => drop(bytes.remove(at)),
                _ => {
                    let tail = bytes[at..].to_vec();
                    bytes.extend(tail);
                }
            }
        }
        bytes
    })
}

/// Every accessor, so that none of them panics on what the parser let through.
fn touch(message: &Message) {
    let _ = (message.from(), message.to(), message.cseq(), message.vias(), message.contact());
    let _ = (message.sdp(), message.reasons(), message.content_type(), message.request_uri());
    let _ = message.name_addrs(HeaderName::RecordRoute);
    let _ = message.option_tags(HeaderName::Require);
    for header in &message.headers {
        let _ = (header.spelling(), header.value_str());
    }
    let _ = Message::response_to(message, 400, "", Some("t")).to_bytes();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn writing_and_parsing_are_inverse(message in message()) {
        let bytes = message.to_bytes();
        let parsed = Message::parse(&bytes).expect("our own writing");
        prop_assert_eq!(&parsed.body, &message.body);
        prop_assert_eq!(&parsed.start, &message.start);
        prop_assert_eq!(parsed.from(), message.from());
        prop_assert_eq!(parsed.to(), message.to());
        prop_assert_eq!(parsed.cseq(), message.cseq());
        for (ours, theirs) in message.headers.iter().zip(&parsed.headers) {
            prop_assert_eq!(ours.value(), theirs.value());
        }
        prop_assert_eq!(parsed.to_bytes(), bytes);
    }

    #[test]
    fn mutations_never_panic_and_never_grow(bytes in mutated()) {
        let bytes = Bytes::from(bytes);
        match Message::parse(&bytes) {
            Ok(message) => {
                touch(&message);
                prop_assert!(message.body.len() <= bytes.len());
                // What was read once reads the same after writing.
                let again = Message::parse(&message.to_bytes()).expect("written by us");
                prop_assert_eq!(again.from(), message.from());
                prop_assert_eq!(again.body, message.body);
            }
            Err(error) => {
                if let Some(answer) = error.answer {
                    touch(&answer);
                }
            }
        }
    }

    #[test]
    fn an_endpoint_survives_any_datagram(
        datagrams in proptest::collection::vec(mutated(), 1..6),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        use rand::SeedableRng;
        let config = SipConfig::new("192.0.2.1", 5060, [1; 32]);
        let mut sip = SipEndpoint::new(config, rand::rngs::StdRng::seed_from_u64(1));
        let mut now = std::time::Instant::now();
        let address = |text: &str| text.parse().expect("an address");
        for bytes in datagrams.into_iter().chain([noise]) {
            sip.handle_input(now, Input::Datagram {
                source: address("192.0.2.9:5060"),
                local: address("192.0.2.1:5060"),
                transport: Transport::Udp,
                bytes: bytes.into(),
            });
            while sip.poll_output().is_some() {}
        }
        sip.handle_input(now, Input::SendFailed {
            to: Destination::udp(address("192.0.2.9:5060")),
        });
        // Every state has a deadline: time alone empties the tables.
        while let Some(at) = sip.poll_timeout() {
            now = now.max(at);
            sip.handle_timeout(now);
            while sip.poll_output().is_some() {}
        }
        prop_assert_eq!((sip.dialogs_live(), sip.transactions_live()), (0, 0));
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(messages in proptest::collection::vec(message(), 1..4), step in 1usize..400) {
        let written: Vec<Bytes> = messages.iter().map(Message::to_bytes).collect();
        let mut framer = StreamFramer::new();
        let mut found = Vec::new();
        for chunk in written.concat().chunks(step) {
            framer.push(chunk);
            while let Some(bytes) = framer.next_message().expect("well framed") {
                found.push(bytes);
            }
        }
        prop_assert_eq!(found, written);
    }

    #[test]
    fn uris_and_addresses_never_panic(text in "\\PC{0,60}") {
        if let Some(uri) = Uri::parse(&text) {
            prop_assert_eq!(uri.as_str(), text.as_str());
            let _ = (uri.user_decoded(), uri.param("lr"), uri.headers(), uri.without_headers());
        }
        let _ = NameAddr::parse(text.as_bytes());
        let _ = sip_core::Via::parse(text.as_bytes());
        let _ = sip_core::auth::digest::Challenge::parse(&format!("Digest {text}"));
    }

    #[test]
    fn sdp_lines_survive(
        lines in proptest::collection::vec(("[a-z]", "[^\r\n]{0,30}"), 0..12),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut text = "v=0\r\n".to_owned();
        for (kind, value) in lines.iter().filter(|(kind, _)| kind != "m") {
            text.push_str(&format!("{kind}={value}\r\n"));
        }
        text.push_str("m=audio 4000 RTP/AVP 0 101\r\na=x:y\r\n");
        let session = Session::parse(text.as_bytes()).expect("well formed");
        prop_assert_eq!(&session.to_bytes()[..], text.as_bytes());
        let _ = Session::parse(&noise).map(|session| session.to_bytes());
        let _ = Session::parse(&[b"v=0\n".to_vec(), noise].concat());
    }

    #[test]
    fn offer_and_answer_agree_and_sdp_types_reads_both(
        codecs in proptest::sample::subsequence(vec![0usize, 1], 1..=2),
        theirs in proptest::sample::subsequence(vec![0usize, 1], 1..=2),
        event in proptest::option::of(96u8..127),
        their_event in proptest::option::of(96u8..127),
        direction in 0usize..4,
        their_direction in 0usize..4,
        mux in any::<[bool; 2]>(),
        six in any::<bool>(),
        port in 1024u16..65000,
        ptime in 1u16..7,
    ) {
        let all = [CodecSpec::pcmu(), CodecSpec::pcma()];
        let pick = |list: &[usize]| list.iter().map(|i| all[*i].clone()).collect::<Vec<_>>();
        let directions =
            [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];
        let address = |v4: &str, v6: &str| if six { v6 } else { v4 }.parse().expect("address");
        let caller = LocalMedia {
            addr: address("192.0.2.1", "2001:db8::1"),
            rtp_port: port,
            rtcp_port: port + 1,
            rtcp_mux: mux[0],
            codecs: pick(&codecs),
            telephone_event: event,
            direction: directions[direction],
            ptime_ms: ptime * 10,
        };
        let callee = LocalMedia {
            addr: address("192.0.2.2", "2001:db8::2"),
            rtp_port: port + 2,
            rtcp_port: port + 7,
            rtcp_mux: mux[1],
            codecs: pick(&theirs),
            telephone_event: their_event,
            direction: directions[their_direction],
            ptime_ms: 20,
        };
        let mut caller_state = SessionState::new(7);
        let mut callee_state = SessionState::new(8);
        let offer = caller_state.offer(&caller);
        sdp_types::Session::parse(&offer).expect("sdp-types reads our offer");
        let offer = Session::parse(&offer).expect("our own writing");
        let common = codecs.iter().any(|codec| theirs.contains(codec));
        let answered = negotiate_offer(&offer, &callee, &mut callee_state);
        prop_assert_eq!(answered.is_ok(), common);
        let Ok((answer, at_callee)) = answered else { return Ok(()) };
        sdp_types::Session::parse(&answer).expect("sdp-types reads our answer");
        let answer = Session::parse(&answer).expect("our own writing");
        let at_caller = negotiate_answer(&answer, &caller, &mut caller_state).expect("agreed");
        prop_assert_eq!(&at_caller.codec, &at_callee.codec);
        prop_assert_eq!(at_caller.direction, at_callee.direction.reversed());
        prop_assert_eq!(at_caller.rtcp_mux, mux[0] && mux[1]);
        prop_assert_eq!(at_callee.rtcp_mux, mux[0] && mux[1]);
        prop_assert_eq!(at_caller.telephone_event_send, at_callee.telephone_event_receive);
        prop_assert_eq!(at_callee.telephone_event_send, at_caller.telephone_event_receive);
        prop_assert_eq!(at_caller.telephone_event_send.is_some(), event.is_some() && their_event.is_some());
        prop_assert_eq!(at_callee.remote_rtp.map(|a| a.port()), Some(port));
        prop_assert_eq!(at_caller.remote_rtcp.map(|a| a.port()), Some(if mux[0] && mux[1] { port + 2 } else { port + 7 }));
        prop_assert_eq!(at_callee.ptime_ms, ptime * 10);
    }
}
