//! What must hold for any bytes from outside. Each function panics where it does not.
//!
//! The same functions run under libFuzzer (`targets/`), under the plain mutation runner
//! (`src/bin/fuzz-lite.rs`), and over the committed corpus in `cargo test`.

use bytes::Bytes;
use media_core::container::wav;
use media_core::rtp::packet::{RtpHeader, RtpView, RtpViewMut};
use media_core::rtp::rewrite::{SourceId, StreamRewriter};
use media_core::rtp::rtcp::compound::{Compound, Packet};
use media_core::units::{RtpTime, Ssrc};
use sip_core::msg::HeaderName;
use sip_core::sdp::Session;
use sip_core::{Message, NameAddr, Uri, Via};

/// A named target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 9] = [
    ("sip", sip),
    ("sdp", sdp),
    ("uri", uri),
    ("rtp", rtp),
    ("rtcp", rtcp),
    ("link", link),
    ("document", document),
    ("template", template),
    ("wav", wav),
];

/// A message that is read and written is the same message when read again, and every accessor of
/// every header can be called.
pub fn sip(data: &[u8]) {
    let _ = sip_core::msg::peek::call_id(data);
    let Ok(message) = Message::parse(&Bytes::copy_from_slice(data)) else { return };
    let _ = (message.method(), message.status(), message.request_uri(), message.reason());
    let _ = (message.vias(), message.from(), message.to(), message.contact(), message.call_id());
    let _ = (message.cseq(), message.content_type(), message.reasons(), message.sdp());
    let _ = message.name_addrs(HeaderName::RecordRoute);
    let _ = message.option_tags(HeaderName::Supported);
    if message.is_request() {
        let answer = Message::response_to(&message, 400, "Bad Request", Some("t")).to_bytes();
        assert!(Message::parse(&answer).is_ok(), "our answer cannot be read: {answer:?}");
    }
    let written = message.to_bytes();
    let again = Message::parse(&written)
        .unwrap_or_else(|error| panic!("what we write cannot be read ({error:?}): {written:?}"));
    assert_eq!(again.start, message.start);
    assert_eq!(again.body, message.body);
    assert_eq!(again.to_bytes(), written, "writing twice differs");
}

/// A description that is read and written is the same when read again.
pub fn sdp(data: &[u8]) {
    let Ok(session) = Session::parse(data) else { return };
    let written = session.to_bytes();
    let again = Session::parse(&written)
        .unwrap_or_else(|error| panic!("what we write cannot be read ({error:?}): {written:?}"));
    assert_eq!(again.to_bytes(), written);
}

/// URIs, name-addrs and Vias are read without harm; a URI equals itself.
pub fn uri(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(uri) = Uri::parse(text)
    {
        let _ = (uri.user_decoded(), uri.host(), uri.port(), uri.param("transport"), uri.headers());
        assert!(uri.equivalent(&uri), "{uri:?} differs from itself");
        assert!(Uri::parse(uri.as_str()).is_some(), "{uri:?} cannot be read again");
    }
    if let Some(address) = NameAddr::parse(data) {
        let _ = address.with_tag("t");
    }
    if let Some(via) = Via::parse(data) {
        let _ = (via.branch(), via.rfc3261_branch(), via.sent_by_key());
    }
}

/// Header and view agree, and a rewrite changes no byte behind the header.
pub fn rtp(data: &[u8]) {
    let _ = media_core::rtp::classify(data);
    let header = RtpHeader::parse(data);
    let Ok(view) = RtpView::parse(data) else {
        assert!(header.is_err(), "header without view");
        return;
    };
    let header = header.unwrap_or_else(|error| panic!("view without header: {error:?}"));
    assert_eq!((header.seq, header.payload_bytes()), (view.seq(), view.payload().len()));
    let _ = (view.csrcs().count(), view.extension());
    let mut copy = data.to_vec();
    let payload = view.payload().to_vec();
    let mut stream = StreamRewriter::new(Ssrc(9), 100, RtpTime(1_000), 160);
    let mut changed = RtpViewMut::parse(&mut copy).unwrap_or_else(|e| panic!("{e:?}"));
    if stream.rewrite(&mut changed, SourceId(1), RtpTime(2_000)).is_ok() {
        assert_eq!(changed.payload(), payload, "the payload was changed");
        assert_eq!(RtpView::parse(&copy).map(|view| view.ssrc()), Ok(Ssrc(9)));
    }
}

/// A compound packet is walked to its end.
pub fn rtcp(data: &[u8]) {
    let Ok(compound) = Compound::parse(data) else { return };
    let mut bytes = 0;
    for packet in compound.packets() {
        bytes += 4;
        assert!(bytes <= data.len(), "more packets than bytes");
        match packet {
            Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. } => {
                for block in blocks {
                    let _ = block;
                }
            }
            _ => {}
        }
    }
}

/// A frame of the link is read or refused with a reason; what is read is written and read again.
pub fn link(data: &[u8]) {
    let _ = link_proto::message::RecordingHeader::from_bytes(data);
    match link_proto::codec::decode(data) {
        Ok((region, message)) => {
            let written = link_proto::codec::encode(&region, &message)
                .unwrap_or_else(|error| panic!("what we read cannot be written: {error:?}"));
            let again = link_proto::codec::decode(&written)
                .unwrap_or_else(|error| panic!("what we write cannot be read: {error:?}"));
            assert_eq!(again, (region, message));
        }
        Err(error) => {
            let _ = error.refusal();
        }
    }
}

/// An instruction document, bounded by its size.
pub fn document(data: &[u8]) {
    let _ = control_core::doc::xml::read(data, 64 << 10);
    let _ = control_core::doc::parse::parse(data, 64 << 10);
}

/// A URI template: the first line is the template, the second one a value.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (template, value) = text.split_once('\n').unwrap_or((text, "x"));
    let expanded = control_core::doc::template::expand(template, |name| {
        (name != "missing").then_some(value)
    });
    if !template.contains('{') {
        assert_eq!(expanded, template, "without an expression nothing changes");
    }
}

/// A WAV file: what can be read has no more samples than bytes, and can be written and read again.
pub fn wav(data: &[u8]) {
    let Ok((rate, samples)) = wav::read(data) else { return };
    assert!(samples.len() <= data.len(), "{} samples of {} bytes", samples.len(), data.len());
    let written = wav::write_pcm16(rate, &samples);
    assert_eq!(wav::read(&written), Ok((rate, samples)));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_holds() {
        for (name, target) in super::TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let mut files = 0;
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("corpus of {name}")) {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                files += 1;
            }
            assert!(files > 0, "{name} has no corpus");
        }
    }
}
