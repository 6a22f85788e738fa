//! Link messages to bytes and back: one CBOR map (RFC 8949) per frame, bounded in size.
//!
//! The four-byte big-endian length in front of a frame belongs to the stream and is written by the
//! shell; see [`FRAME_BYTES_MAX`].

use ciborium::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::envelope::{Envelope, PROTOCOL_VERSION, SUPPORTED_FEATURES};
use crate::ids::RegionId;
use crate::message::{About, Message, Refused};

/// Largest frame that is written or accepted, in bytes.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// How deep CBOR values may nest.
const DEPTH_MAX: usize = 32;

/// Why a frame could not be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Larger than [`FRAME_BYTES_MAX`].
    #[error("frame of {0} bytes is above the limit of {FRAME_BYTES_MAX}")]
    TooLarge(usize),
    /// Not CBOR, or not an envelope.
    #[error("not a link envelope: {0}")]
    NotAnEnvelope(String),
    /// The envelope is sound but its body cannot be used; answer with [`DecodeError::refusal`].
    #[error("{action}: {why}")]
    Unusable {
        /// The envelope's action.
        action: String,
        /// What it is about, if that much can be read.
        about: Option<About>,
        /// Features it requires that this build lacks.
        unmet: Vec<String>,
        /// In words.
        why: String,
    },
}

impl DecodeError {
    /// The message that tells the sender, if there is a sender to be told about an action.
    pub fn refusal(&self) -> Option<Message> {
        match self {
            // A refusal is never answered by a refusal: two builds could go on for ever.
            Self::Unusable { action, .. } if action == "refused" => None,
            Self::Unusable { action, about, unmet, why } => Some(Message::Refused(Refused {
                action: action.clone(),
                about: *about,
                unmet: unmet.clone(),
                why: why.clone(),
            })),
            Self::TooLarge(_) | Self::NotAnEnvelope(_) => None,
        }
    }
}

/// The frame could not be written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("message cannot be framed: {0}")]
pub struct EncodeError(String);

/// Writes one frame (without the length in front).
///
/// # Errors
/// If the message is larger than [`FRAME_BYTES_MAX`].
pub fn encode(region: &RegionId, message: &Message) -> Result<Vec<u8>, EncodeError> {
    let (action, required, body) = split(message)?;
    let envelope = Envelope {
        version: PROTOCOL_VERSION,
        region: region.clone(),
        action: action.to_owned(),
        features: required.iter().map(|name| (*name).to_owned()).collect(),
        supported: supported_once(message),
        required: required.iter().map(|name| (*name).to_owned()).collect(),
        body,
    };
    let mut bytes = Vec::with_capacity(256);
    ciborium::into_writer(&envelope, &mut bytes).map_err(|e| EncodeError(e.to_string()))?;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(EncodeError(format!("{} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// Reads one frame: the sender's region and the message.
///
/// # Errors
/// See [`DecodeError`]; an unmet `required` is refused before the body is looked at.
pub fn decode(bytes: &[u8]) -> Result<(RegionId, Message), DecodeError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    let envelope: Envelope = ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH_MAX)
        .map_err(|e| DecodeError::NotAnEnvelope(e.to_string()))?;
    let unmet = envelope.unmet();
    let Envelope { region, action, body, .. } = envelope;
    let about = about(&body);
    if !unmet.is_empty() {
        let why = format!("this node does not support {}", unmet.join(", "));
        return Err(DecodeError::Unusable { action, about, unmet, why });
    }
    let message = join(&action, body).map_err(|why| DecodeError::Unusable {
        action,
        about,
        unmet: Vec::new(),
        why,
    })?;
    Ok((region, message))
}

/// The numbering of an event or command whose body may be of a later version.
fn about(body: &Value) -> Option<About> {
    let field = |name: &str| {
        let fields = body.as_map()?.iter();
        fields.filter(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value).next()
    };
    let number = |name| u64::try_from(field(name)?.as_integer()?).ok();
    let session = field("session")?.deserialized().ok()?;
    let epoch = number("epoch").unwrap_or(0);
    Some(About { session, number: number("sequence").or_else(|| number("id"))?, epoch })
}

/// The list of what we understand travels with the first message of each side only.
fn supported_once(message: &Message) -> Vec<String> {
    match message {
        Message::Hello(_) | Message::Welcome(_) => {
            SUPPORTED_FEATURES.iter().map(|name| (*name).to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

fn split(message: &Message) -> Result<(&'static str, &'static [&'static str], Value), EncodeError> {
    fn body(body: &impl Serialize) -> Result<Value, EncodeError> {
        Value::serialized(body).map_err(|e| EncodeError(e.to_string()))
    }
    Ok(match message {
        Message::Hello(m) => ("hello", &[], body(m)?),
        Message::Welcome(m) => ("welcome", &[], body(m)?),
        Message::Reconcile(m) => ("reconcile", &["reconcile/1"], body(m)?),
        Message::Orphans(m) => ("orphans", &["reconcile/1"], body(m)?),
        Message::Event(m) => ("event", &["call/1"], body(m)?),
        Message::EventAck(m) => ("event-ack", &["call/1"], body(m)?),
        Message::Command(m) => {
            let media = matches!(m.command, crate::call::CallCommand::Media(_));
            ("command", if media { &["call/1", "media/1"] } else { &["call/1"] }, body(m)?)
        }
        Message::CommandAck(m) => ("command-ack", &["call/1"], body(m)?),
        Message::Tables(m) => ("tables", &["table/1"], body(m)?),
        Message::Load(m) => ("load", &[], body(m)?),
        Message::Refused(m) => ("refused", &[], body(m)?),
    })
}

fn join(action: &str, body: Value) -> Result<Message, String> {
    fn body_as<T: DeserializeOwned>(body: Value) -> Result<T, String> {
        body.deserialized().map_err(|e| e.to_string())
    }
    Ok(match action {
        "hello" => Message::Hello(body_as(body)?),
        "welcome" => Message::Welcome(body_as(body)?),
        "reconcile" => Message::Reconcile(body_as(body)?),
        "orphans" => Message::Orphans(body_as(body)?),
        "event" => Message::Event(body_as(body)?),
        "event-ack" => Message::EventAck(body_as(body)?),
        "command" => Message::Command(body_as(body)?),
        "command-ack" => Message::CommandAck(body_as(body)?),
        "tables" => Message::Tables(body_as(body)?),
        "load" => Message::Load(body_as(body)?),
        "refused" => Message::Refused(body_as(body)?),
        _ => return Err("unknown action".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{CallCommand, CallEvent, Offered};
    use crate::ids::{CallSid, ChannelId, OpId};
    use crate::media::{AudioCodec, LinkPath, MediaCommand, MediaEvent, PlayEnd, Port};
    use crate::message::{CommandMessage, EventMessage};
    use proptest::prelude::*;

    fn sid(n: u8) -> CallSid {
        CallSid([n; 16])
    }

    fn samples() -> Vec<Message> {
        let offered = Offered {
            from: "+15550001".into(),
            to: "+15550002".into(),
            caller_name: Some("Ann \u{1f600}".into()),
            forwarded_from: None,
            provider: "carrier".into(),
            sip_call_id: "a@b".into(),
            source: "127.0.0.1:5060".into(),
            sip_domain: "example.com".into(),
            headers: vec![("X-A".into(), "1".into())],
            codecs: vec![AudioCodec::Pcma, AudioCodec::Pcmu],
        };
        let link = MediaCommand::Link {
            from: Port::Leg(sid(1)),
            to: Port::Channel(ChannelId(9)),
            path: LinkPath::Transcode,
        };
        let event = |sequence, event| {
            Message::Event(EventMessage {
                session: sid(1),
                sequence,
                leg: sid(2),
                at_unix_ms: 5,
                event,
            })
        };
        vec![
            event(1, CallEvent::Offered(offered)),
            event(
                2,
                CallEvent::Media(MediaEvent::PlayDone { op: OpId(3), end: PlayEnd::Finished }),
            ),
            Message::Command(CommandMessage {
                session: sid(1),
                id: 4,
                epoch: 1,
                leg: sid(1),
                command: CallCommand::Media(link),
            }),
        ]
    }

    #[test]
    fn messages_round_trip() {
        for message in samples() {
            let bytes = encode(&RegionId::from("eu"), &message).unwrap();
            assert_eq!(decode(&bytes), Ok((RegionId::from("eu"), message)));
        }
    }

    #[test]
    fn lat_09_unmet_required_is_refused_by_name_and_unknown_fields_are_ignored() {
        let bytes = encode(&RegionId::from("eu"), &samples()[0]).unwrap();
        let mut envelope: Envelope = ciborium::from_reader(bytes.as_slice()).unwrap();
        // A newer release adds a field that we do not know, at both levels.
        envelope.body.as_map_mut().unwrap().push((Value::from("colour"), Value::from("blue")));
        let mut outer = Value::serialized(&envelope).unwrap();
        outer.as_map_mut().unwrap().push((Value::from("mood"), Value::from(3)));
        let mut newer = Vec::new();
        ciborium::into_writer(&outer, &mut newer).unwrap();
        assert_eq!(decode(&newer).unwrap().1, samples()[0]);

        envelope.required.push("telepathy/2".into());
        let mut bytes = Vec::new();
        ciborium::into_writer(&envelope, &mut bytes).unwrap();
        let error = decode(&bytes).unwrap_err();
        let Some(Message::Refused(refused)) = error.refusal() else { panic!("{error}") };
        assert_eq!(refused.unmet, ["telepathy/2"]);
        assert_eq!(refused.action, "event");
        assert_eq!(refused.about, Some(About { session: sid(1), number: 1, epoch: 0 }));
    }

    #[test]
    fn an_unknown_action_is_answered_and_a_refusal_is_not() {
        for (action, answered) in [("teleport", true), ("refused", false)] {
            let envelope = Envelope {
                version: 9,
                region: RegionId::from("eu"),
                action: action.into(),
                features: vec![],
                supported: vec![],
                required: vec![],
                body: Value::from("?"),
            };
            let mut bytes = Vec::new();
            ciborium::into_writer(&envelope, &mut bytes).unwrap();
            assert_eq!(decode(&bytes).unwrap_err().refusal().is_some(), answered, "{action}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn decoding_mutated_frames_never_panics(
            which in 0usize..3, at in 0usize..400, value in any::<u8>(), cut in 0usize..400,
        ) {
            let mut bytes = encode(&RegionId::from("eu"), &samples()[which]).unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(bytes.len() - cut % bytes.len());
            let _ = decode(&bytes);
        }
    }
}
