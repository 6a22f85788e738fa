//! Offers as devices send them, and what we answer (RFC 3264, RFC 3605, RFC 4733, RFC 5761).

use std::net::SocketAddr;

use sip_core::sdp::{
    CodecSpec, Direction, LocalMedia, NegotiateError, Negotiated, Session, SessionState,
    negotiate_answer, negotiate_offer,
};

fn local() -> LocalMedia {
    LocalMedia {
        addr: "192.0.2.1".parse().expect("address"),
        rtp_port: 4000,
        rtcp_port: 4001,
        rtcp_mux: true,
        codecs: vec![CodecSpec::pcmu(), CodecSpec::pcma()],
        telephone_event: Some(101),
        direction: Direction::SendRecv,
        ptime_ms: 20,
    }
}

fn answer(offer: &str, local: &LocalMedia) -> Result<(String, Negotiated), NegotiateError> {
    let offer = Session::parse(offer.as_bytes()).expect("well formed");
    let mut state = SessionState::new(5);
    let (bytes, agreed) = negotiate_offer(&offer, local, &mut state)?;
    Ok((String::from_utf8(bytes.to_vec()).expect("text"), agreed))
}

const HEAD: &str =
    "v=0\r\no=x 1 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n";

fn agreed(media: &str) -> Negotiated {
    answer(&format!("{HEAD}{media}"), &local()).expect("usable").1
}

fn addr(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("address"))
}

#[test]
fn codec_and_telephone_event_take_the_offers_numbers() {
    let media = "m=audio 5000 RTP/AVP 18 8 0 97\r\na=rtpmap:97 telephone-event/8000\r\na=fmtp:97 0-16\r\na=ptime:30\r\n";
    let (text, agreed) = answer(&format!("{HEAD}{media}"), &local()).expect("usable");
    assert_eq!((agreed.codec.name.as_str(), agreed.codec.payload_type), ("PCMA", 8));
    assert_eq!(agreed.common_codecs.len(), 2);
    assert_eq!((agreed.telephone_event_send, agreed.telephone_event_receive), (Some(97), Some(97)));
    assert_eq!((agreed.ptime_ms, agreed.remote_rtp), (30, addr("198.51.100.7:5000")));
    assert_eq!(agreed.remote_rtcp, addr("198.51.100.7:5001"));
    assert_eq!(
        text,
        "v=0\r\no=- 2 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 8 97\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:97 telephone-event/8000\r\n\
         a=fmtp:97 0-15\r\na=ptime:30\r\na=sendrecv\r\n"
    );
}

#[test]
fn events_at_another_clock_are_not_ours() {
    let media = "m=audio 5000 RTP/AVP 0 97\r\na=rtpmap:97 telephone-event/48000\r\n";
    assert_eq!(agreed(media).telephone_event_send, None);
}

#[test]
fn directions_and_hold() {
    for (line, expect) in [
        ("", Direction::SendRecv),
        ("a=sendonly\r\n", Direction::RecvOnly),
        ("a=recvonly\r\n", Direction::SendOnly),
        ("a=inactive\r\n", Direction::Inactive),
        // The old hold: an address of zeros (RFC 3264 §8.4).
        ("c=IN IP4 0.0.0.0\r\n", Direction::RecvOnly),
        ("c=IN IP4 0.0.0.0\r\na=sendonly\r\n", Direction::RecvOnly),
    ] {
        let agreed = agreed(&format!("m=audio 5000 RTP/AVP 0\r\n{line}"));
        assert_eq!(agreed.direction, expect, "{line}");
        assert_eq!(agreed.remote_rtp.is_none(), line.contains("0.0.0.0"), "{line}");
    }
    let session = format!("{HEAD}a=sendonly\r\nm=audio 5000 RTP/AVP 0\r\n");
    assert_eq!(answer(&session, &local()).expect("usable").1.direction, Direction::RecvOnly);
}

#[test]
fn rtcp_addresses() {
    for (lines, rtcp, mux) in [
        ("", "198.51.100.7:5001", false),
        ("a=rtcp:5077\r\n", "198.51.100.7:5077", false),
        ("a=rtcp:5077 IN IP4 198.51.100.8\r\n", "198.51.100.8:5077", false),
        ("a=rtcp:5077 IN IP4 255.255.255.255\r\n", "198.51.100.7:5077", false),
        ("a=rtcp:5077 IN IP6 ::1\r\n", "198.51.100.7:5077", false),
        ("a=rtcp:0\r\n", "198.51.100.7:5001", false),
        ("a=rtcp-mux\r\na=rtcp:5000\r\n", "198.51.100.7:5000", true),
    ] {
        let agreed = agreed(&format!("m=audio 5000 RTP/AVP 0\r\n{lines}"));
        assert_eq!((agreed.remote_rtcp, agreed.rtcp_mux), (addr(rtcp), mux), "{lines}");
    }
    let without = LocalMedia { rtcp_mux: false, ..local() };
    let text = format!("{HEAD}m=audio 5000 RTP/AVP 0\r\na=rtcp-mux\r\n");
    let (text, agreed) = answer(&text, &without).expect("usable");
    assert!(!agreed.rtcp_mux && !text.contains("rtcp-mux"));
}

#[test]
fn other_sections_are_refused_in_their_place() {
    let media = "m=video 6000/2 RTP/AVP 31\r\na=rtpmap:31 H261/90000\r\n\
                 m=audio 7000 RTP/SAVP 0\r\na=crypto:1 x\r\n\
                 m=audio 5000 RTP/AVP 0\r\na=candidate:1 1 UDP 1 198.51.100.7 5000 typ host\r\n\
                 m=image 6002 udptl t38\r\n";
    let (text, agreed) = answer(&format!("{HEAD}{media}"), &local()).expect("usable");
    assert_eq!(agreed.remote_rtp, addr("198.51.100.7:5000"));
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        lines,
        [
            "m=video 0 RTP/AVP 31",
            "m=audio 0 RTP/SAVP 0",
            "m=audio 4000 RTP/AVP 0",
            "m=image 0 udptl t38"
        ]
    );
    assert!(!text.contains("candidate"));
}

#[test]
fn what_cannot_be_agreed() {
    for (text, expect) in [
        (format!("{HEAD}m=video 5000 RTP/AVP 31\r\n"), NegotiateError::NoAudio),
        (format!("{HEAD}m=audio 0 RTP/AVP 0\r\n"), NegotiateError::NoAudio),
        (HEAD.to_owned(), NegotiateError::NoAudio),
        (format!("{HEAD}m=audio 5000 RTP/AVP 18 3\r\n"), NegotiateError::NoCodec),
        (format!("{HEAD}m=audio 5000 RTP/AVP 300 x\r\n"), NegotiateError::NoCodec),
        ("v=0\r\ns=-\r\nm=audio 5000 RTP/AVP 0\r\n".to_owned(), NegotiateError::Address),
        (
            "v=0\r\nc=IN IP4 host.example\r\nm=audio 5000 RTP/AVP 0\r\n".to_owned(),
            NegotiateError::Address,
        ),
        (
            "v=0\r\nc=IN IP6 2001:db8::1\r\nm=audio 5000 RTP/AVP 0\r\n".to_owned(),
            NegotiateError::Address,
        ),
        (
            "v=0\r\nc=IN IP4 224.2.1.1/127\r\nm=audio 5000 RTP/AVP 0\r\n".to_owned(),
            NegotiateError::Address,
        ),
        (
            "v=0\r\nc=IN IP4 255.255.255.255\r\nm=audio 5000 RTP/AVP 0\r\n".to_owned(),
            NegotiateError::Address,
        ),
        (format!("{HEAD}m=audio 5000 RTP/SAVP 0\r\n"), NegotiateError::NoAudio),
        (format!("{HEAD}m=audio 5000 UDP/TLS/RTP/SAVPF 0\r\n"), NegotiateError::NoAudio),
    ] {
        assert_eq!(answer(&text, &local()).map(|_| ()), Err(expect), "{text}");
    }
}

#[test]
fn the_version_rises_only_on_change_and_sections_stay() {
    let mut state = SessionState::new(10);
    let version = |bytes: &[u8]| {
        let session = Session::parse(bytes).expect("our own writing");
        session.origin_version().map(|(_, version)| version)
    };
    let offer = Session::parse(
        format!("{HEAD}m=video 6000 RTP/AVP 31\r\nm=audio 5000 RTP/AVP 0\r\n").as_bytes(),
    )
    .expect("well formed");
    let (first, _) = negotiate_offer(&offer, &local(), &mut state).expect("usable");
    let (again, _) = negotiate_offer(&offer, &local(), &mut state).expect("usable");
    assert_eq!((version(&first), version(&again)), (Some(1), Some(1)));
    assert_eq!(first, again);
    let held = LocalMedia { direction: Direction::SendOnly, ..local() };
    let later = state.offer(&held);
    assert_eq!(version(&later), Some(2));
    let later = Session::parse(&later).expect("our own writing");
    let ports: Vec<_> = later.media.iter().map(|m| (m.kind.as_str(), m.port)).collect();
    assert_eq!(ports, [("video", 0), ("audio", 4000)]);
}

#[test]
fn an_answer_with_other_dynamic_numbers() {
    let mut state = SessionState::new(1);
    let mut local = local();
    local.codecs.push(CodecSpec {
        payload_type: 96,
        name: "opus".to_owned(),
        clock_rate: 48_000,
        channels: 2,
        fmtp: Some("useinbandfec=1".to_owned()),
    });
    let offer = state.offer(&local);
    let text = String::from_utf8_lossy(&offer).into_owned();
    assert!(text.contains("m=audio 4000 RTP/AVP 0 8 96 101\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n"), "{text}");
    let answer = format!(
        "{HEAD}m=audio 5000 RTP/AVP 111 110\r\na=rtpmap:111 OPUS/48000/2\r\n\
         a=rtpmap:110 telephone-event/8000\r\n"
    );
    let answer = Session::parse(answer.as_bytes()).expect("well formed");
    let agreed = negotiate_answer(&answer, &local, &mut state).expect("agreed");
    assert_eq!((agreed.codec.payload_type, agreed.receive_payload_type), (111, 96));
    assert_eq!(
        (agreed.telephone_event_send, agreed.telephone_event_receive),
        (Some(110), Some(101))
    );
}

#[test]
fn padding_is_passed_over() {
    let padded = format!("{HEAD}\r\n \r\nm=audio 5000 RTP/AVP 0\r\n\t\r\n\0");
    let session = Session::parse(padded.as_bytes()).expect("padding is no line");
    assert_eq!(session.media.len(), 1);
}

#[test]
fn malformed_descriptions_name_their_line() {
    use sip_core::sdp::SdpError;
    for (text, expect) in [
        ("", SdpError::Version),
        ("s=-\r\n", SdpError::Version),
        ("v=1\r\n", SdpError::Version),
        ("v=0\r\nnonsense\r\n", SdpError::Syntax { line: 2 }),
        ("v=0\r\n\r\nm=audio x RTP/AVP 0\r\n", SdpError::Syntax { line: 3 }),
        ("v=0\r\nm=audio 70000 RTP/AVP 0\r\n", SdpError::Syntax { line: 2 }),
        ("v=0\r\nab=c\r\n", SdpError::Syntax { line: 2 }),
    ] {
        assert_eq!(Session::parse(text.as_bytes()), Err(expect), "{text:?}");
    }
    let many = format!("v=0\r\n{}", "m=audio 1 RTP/AVP 0\r\n".repeat(40));
    assert!(matches!(Session::parse(many.as_bytes()), Err(SdpError::TooLarge { .. })));
}
