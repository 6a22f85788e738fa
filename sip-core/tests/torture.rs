//! Messages in the manner of RFC 4475, and what four published parsers stumble over.

use bytes::Bytes;
use sip_core::error::ParseErrorKind;
use sip_core::{HeaderName, Message, Method, ParseError};

fn crlf(text: &str) -> Bytes {
    Bytes::from(text.replace('\n', "\r\n"))
}

fn parse(text: &str) -> Message {
    Message::parse(&crlf(text)).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

/// A request whose given header lines replace or join the usual ones.
fn with(start: &str, extra: &str, body: &str) -> String {
    let mut lines = vec![start.to_owned()];
    let method = start.split(' ').next().unwrap_or_default();
    let usual = [
        ("via", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx1".to_owned()),
        ("from", "From: <sip:a@example.com>;tag=1".to_owned()),
        ("to", "To: <sip:b@example.com>".to_owned()),
        ("call-id", "Call-ID: 1@x".to_owned()),
        ("cseq", format!("CSeq: 1 {method}")),
        ("max-forwards", "Max-Forwards: 70".to_owned()),
    ];
    for (name, line) in usual {
        let given = |l: &str| {
            let key = l.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
            key == name || HeaderName::parse(key.as_bytes()) == HeaderName::parse(name.as_bytes())
        };
        if !extra.lines().any(given) {
            lines.push(line);
        }
    }
    lines.extend(extra.lines().filter(|l| !l.is_empty() && *l != "-").map(str::to_owned));
    format!("{}\n\n{body}", lines.join("\n"))
}

#[test]
fn rfc_4475_3_1_1_1_a_short_tortuous_invite() {
    let message = parse(
        "INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\n\
         TO :\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\n\
         from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\n  ;\n  tag = 98asjd8\n\
         MaX-fOrWaRdS: 0068\n\
         Call-ID: wsinv.ndaksdj@192.0.2.1\n\
         Content-Length   : 150\n\
         cseq: 0009\n  INVITE\n\
         Via  : SIP  /   2.0\n /UDP\n    192.0.2.2;branch=390skdjuw\n\
         s :\n\
         NewFangledHeader:   newfangled value\n continued newfangled value\n\
         UnknownHeaderWithUnusualValue: ;;,,;;,;\n\
         Content-Type: application/sdp\n\
         Route:\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\n\
         v:  SIP  / 2.0  / TCP     spindle.example.com   ;\n  branch  =   z9hG4bK9ikj8  ,\n \
         SIP  /    2.0   / UDP  192.168.255.111   ; branch=\n z9hG4bK30239\n\
         m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\n      newvalue ;\n  \
         secondparam ; q = 0.33\n\n\
         v=0\no=mhandley 29739 7272939 IN IP4 192.0.2.3\ns=-\nc=IN IP4 192.0.2.4\nt=0 0\n\
         m=audio 49217 RTP/AVP 0 12\nm=video 3227 RTP/AVP 31\na=rtpmap:31 LPC\n",
    );
    assert_eq!(
        message.to().and_then(|to| to.tag().map(str::to_owned)).as_deref(),
        Some("1918181833n")
    );
    let from = message.from().expect("From");
    assert_eq!(from.display.as_deref(), Some("J Rosenberg \\\""));
    assert_eq!(from.tag(), Some("98asjd8"));
    assert_eq!(message.number(HeaderName::MaxForwards), Some(68));
    assert_eq!(message.cseq().map(|c| (c.number, c.method)), Some((9, Method::Invite)));
    let vias = message.vias().expect("three Vias");
    let branches: Vec<_> = vias.iter().map(|via| via.branch().unwrap_or_default()).collect();
    assert_eq!(branches, ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]);
    let contact = message.contact().expect("Contact");
    assert_eq!(contact.display.as_deref(), Some("Quoted string \"\""));
    assert_eq!(contact.params.get("q"), Some("0.33"));
    let routes = message.name_addrs(HeaderName::Route).expect("Route");
    assert_eq!(routes[0].uri.param("unknown-no-value"), Some(""));
    let odd = message.headers.named("UnknownHeaderWithUnusualValue").expect("kept");
    assert_eq!(odd.value_str(), ";;,,;;,;");
    assert_eq!(message.body.len(), 150);
    let new = message.headers.named("newfangledheader").expect("kept");
    assert_eq!(new.value_str(), "newfangled value continued newfangled value");
}

#[test]
fn valid_and_odd() {
    // RFC 4475 §3.1.1.2: the wide range of characters.
    let text = with(
        "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0",
        "To: \"BEL:\\\u{7} NUL:\\\u{0} DEL:\\\u{7f}\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>\n\
         extensionHeader-!.%*+_`'~: \u{fe}\u{1d11e}",
        "",
    );
    let message = parse(&text);
    assert!(matches!(message.method(), Some(Method::Other(_))));
    assert!(message.request_uri().is_some());

    // §3.1.1.3: escapes stay escaped.
    let message = parse(&with(
        "INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0",
        "To: sip:%75se%72@example.com",
        "",
    ));
    let uri = message.request_uri().expect("URI");
    assert_eq!(uri.as_str(), "sip:sips%3Auser%40example.com@example.net");
    assert_eq!(uri.user_decoded().as_deref(), Some("sips:user@example.com"));
    assert_eq!(message.to().expect("To").uri.as_str(), "sip:%75se%72@example.com");

    // §3.1.1.6: no LWS between display name and "<".
    let message = parse(&with(
        "OPTIONS sip:user@example.com SIP/2.0",
        "From: caller<sip:caller@example.com>;tag=323",
        "",
    ));
    assert_eq!(message.from().expect("From").display.as_deref(), Some("caller"));

    // §3.1.1.7: long values.
    let long = "x".repeat(9_000);
    let message = parse(&with(
        "INVITE sip:user@example.com SIP/2.0",
        &format!("f: \"{long}\" <sip:a@b>;tag=1\nLongHeader: {long}{long}"),
        "",
    ));
    assert_eq!(message.from().expect("From").display.map(|d| d.len()), Some(9_000));

    // §3.1.1.8: more bytes than Content-Length says.
    let message =
        parse(&with("REGISTER sip:example.com SIP/2.0", "l: 4", "body and a second message"));
    assert_eq!(&message.body[..], b"body");

    // §3.1.1.9: semicolon in the user part; §3.1.1.10: unknown transports.
    let message = parse(&with(
        "OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0",
        "Via: SIP/2.0/UNKNOWN t1;branch=z9hG4bKa, SIP/2.0/TLS t2;branch=z9hG4bKb",
        "",
    ));
    assert_eq!(message.request_uri().expect("URI").user(), Some("user;par=u%40example.net"));
    assert_eq!(message.vias().expect("Vias").len(), 2);

    // §3.1.1.12: unusual reason phrases, and none.
    let reply = "SIP/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e}\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\nTo: <sip:a@b>;tag=2\nCall-ID: 1\nCSeq: 35 INVITE\n\n";
    assert_eq!(parse(reply).reason(), "= 2**3 * 5**2 \u{43d}\u{43e}");
    let bare = reply.replace(" = 2**3 * 5**2 \u{43d}\u{43e}", "");
    assert_eq!(
        (parse(&bare).status(), parse(&bare).reason().into_owned()),
        (Some(200), String::new())
    );

    // IPv6 and tel:.
    let message = parse(&with(
        "INVITE tel:+15550100;phone-context=example.com SIP/2.0",
        "Contact: <sip:a@[2001:db8::10]:5070>, \"B, C\" <sip:b@c>;q=0.5",
        "",
    ));
    assert_eq!(message.request_uri().expect("URI").user(), Some("+15550100"));
    let contacts = message.name_addrs(HeaderName::Contact).expect("two");
    assert_eq!((contacts.len(), contacts[1].display.as_deref()), (2, Some("B, C")));
}

#[test]
fn line_ends_and_keep_alives() {
    let text = with("OPTIONS sip:b@h SIP/2.0", "", "");
    let lf_only = Message::parse(&Bytes::from(text.clone())).expect("LF-only lines");
    assert_eq!(lf_only.method(), Some(Method::Options));
    let trailing = text.replacen("SIP/2.0", "SIP/2.0  ", 1);
    assert_eq!(parse(&trailing).method(), Some(Method::Options), "RFC 4475 §3.1.2.11");
    let led = Message::parse(&crlf(&format!("\n\n\n{text}"))).expect("leading CRLF");
    assert_eq!(led.headers.len(), lf_only.headers.len());
    for keep_alive in [&b"\r\n\r\n"[..], b"\0", b"\n", b""] {
        let error = Message::parse(&Bytes::from_static(keep_alive)).expect_err("no message");
        assert_eq!((error.kind, error.answerable()), (ParseErrorKind::Empty, false));
    }
}

#[test]
fn bytes_that_are_not_utf_8_stay() {
    let mut raw = with("INVITE sip:b@h SIP/2.0", "-", "").replace('\n', "\r\n").into_bytes();
    let at = raw.windows(4).position(|w| w == b"\r\n\r\n").expect("empty line") + 2;
    raw.splice(at..at, b"X-Latin: caf\xe9\r\nSubject: \xff\xfe\r\n".iter().copied());
    let message = Message::parse(&Bytes::from(raw)).expect("legal enough");
    assert_eq!(message.headers.named("x-latin").expect("kept").value_raw(), b"caf\xe9");
    let written = message.to_bytes();
    assert!(written.windows(10).any(|w| w == b": caf\xe9\r\nSu"));
}

fn refuse(text: &str, kind: ParseErrorKind, field: &str, answer: Option<u16>) -> ParseError {
    let error = Message::parse(&crlf(text)).expect_err(text);
    assert_eq!((error.kind, error.field), (kind, field), "{text}");
    assert_eq!(error.answer.as_ref().and_then(|a| a.status()), answer, "{text}");
    error
}

#[test]
fn what_is_malformed_and_whether_it_is_answered() {
    use ParseErrorKind::*;
    let invite = "INVITE sip:b@example.com SIP/2.0";
    for (text, kind, field, answer) in [
        // RFC 4475 §3.1.2.1 to §3.1.2.19 in kind.
        (with(invite, "Via: SIP/2.0 192.0.2.15;;,;,,", ""), Syntax, "Via", Some(400)),
        (with(invite, "Via: SIP/2.0/UDP 192.0.2.15;;,;,,", ""), Syntax, "Via", Some(400)),
        (with(invite, "l: 9999", "v=0"), Truncated, "Content-Length", Some(400)),
        (with(invite, "l: -999", "v=0"), Syntax, "Content-Length", Some(400)),
        (with(invite, "CSeq: 36893488147419103232 INVITE", ""), Syntax, "CSeq", Some(400)),
        (with(invite, "CSeq: 1 OPTIONS", ""), Syntax, "CSeq", Some(400)),
        (with(invite, "Max-Forwards: 300", ""), Syntax, "Max-Forwards", Some(400)),
        (with(invite, "To: \"Mr. J. User <sip:j.user@example.com>", ""), Syntax, "To", Some(400)),
        (with("INVITE <sip:b@example.com> SIP/2.0", "", ""), Syntax, "Request-URI", Some(400)),
        (with("INVITE sip:b@example.com; lr SIP/2.0", "", ""), Syntax, "Request-URI", Some(400)),
        (with("OPTIONS sip:b@example.com SIP/7.0", "", ""), Version, "start line", Some(505)),
        (
            with("INVITE sip:b@example.com  SIP/2.0", "From: <sip:a@b>\nFrom: <sip:c@d>", ""),
            Duplicate,
            "From",
            Some(400),
        ),
        (with(invite, "no colon here", ""), Syntax, "header line", Some(400)),
        (with(invite, "Bad Name: x", ""), Syntax, "header line", Some(400)),
        ("ACK sip:b@h SIP/2.0\nVia: SIP/2.0/UDP h\n\n".to_owned(), Missing, "From", None),
        ("INVITE sip:b@h SIP/2.0\nVia: SIP/2.0/UDP h\n\n".to_owned(), Missing, "From", None),
        ("GET / HTTP/1.1\nHost: x\n\n".to_owned(), Syntax, "start line", None),
        ("hello".to_owned(), Syntax, "start line", None),
        ("SIP/2.0 99 Low\n\n".to_owned(), Syntax, "start line", None),
        ("SIP/2.0 2000 High\n\n".to_owned(), Syntax, "start line", None),
    ] {
        refuse(&text, kind, field, answer);
    }
    let error = refuse(&with(invite, "l: 9999", "v=0"), Truncated, "Content-Length", Some(400));
    let answer = error.answer.expect("answerable");
    assert_eq!(answer.call_id().as_deref(), Some("1@x"));
    assert!(answer.to().is_some_and(|to| to.tag().is_some()));
    // An answer is itself a legal message.
    Message::parse(&answer.to_bytes()).expect("legal");
}

#[test]
fn limits() {
    let many = "X: y\n".repeat(300);
    let invite = with("INVITE sip:b@h SIP/2.0", &many, "");
    refuse(&invite, ParseErrorKind::TooLarge, "headers", Some(513));
    let big = Bytes::from(vec![b'a'; 65_537]);
    assert_eq!(Message::parse(&big).expect_err("large").kind, ParseErrorKind::TooLarge);
}

#[test]
fn what_is_not_understood_is_written_as_it_came() {
    let text = with(
        "INVITE sip:%75ser@example.com;x=%41 SIP/2.0",
        "X-Odd :  spaced   value\n\tand folded\nv: SIP / 2.0 / UDP h ;branch=z9hG4bKq\nm: <sip:a@b>",
        "",
    );
    let bytes = crlf(&text);
    let message = Message::parse(&bytes).expect("legal");
    let written = message.to_bytes();
    let expect = text.replace("\n\n", "\nContent-Length: 0\n\n").replace('\n', "\r\n");
    assert_eq!(String::from_utf8_lossy(&written), expect);
}

#[test]
fn sdp_inside_multipart_is_found() {
    let body = "preamble\n--b1\nContent-Type: text/plain\n\nv=not\n--b1\nContent-Type: application/sdp\n\nv=0\ns=-\n--b1--\n";
    let text =
        with("INVITE sip:b@h SIP/2.0", "Content-Type: multipart/mixed; boundary=\"b1\"", body);
    assert_eq!(parse(&text).sdp().as_deref(), Some(&b"v=0\r\ns=-"[..]));
    let none = with("INVITE sip:b@h SIP/2.0", "Content-Type: multipart/mixed", body);
    assert_eq!(parse(&none).sdp(), None);
    let plain = with("INVITE sip:b@h SIP/2.0", "c: application/SDP;x=y", "v=0\n");
    assert_eq!(parse(&plain).sdp().as_deref(), Some(&b"v=0\r\n"[..]));
}
