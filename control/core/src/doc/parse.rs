//! From a tree of elements to verbs: which may stand where, and which are not available.

use super::attribute::Attributes;
use super::xml::{self, Element, Node};
use super::{DocError, Document};
use crate::error_code::{ROOT_NOT_RESPONSE, SCHEMA, VERB_UNKNOWN};
use crate::verb::{Verb, dial, gather, hangup, pause, play, record, redirect, reject, say};

/// Verbs of the language that this version does not carry out.
const NOT_AVAILABLE: &[&str] = &[
    "Enqueue",
    "Leave",
    "Refer",
    "Start",
    "Stop",
    "Connect",
    "Echo",
    "Queue",
    "Pay",
    "Prompt",
    "Sms",
    "Message",
    "CallAtTime",
    "Conference",
    "Stream",
    "Siprec",
    "Transcription",
    "Recording",
    // Earlier spelling of Sms.
    "sms",
];

const VERBS: &[&str] =
    &["Say", "Play", "Pause", "Gather", "Record", "Dial", "Redirect", "Reject", "Hangup"];

/// Whether an element is a verb, of this version or not.
fn is_verb(name: &str) -> bool {
    name == "Collect" || VERBS.contains(&name) || NOT_AVAILABLE.contains(&name)
}

/// Elements inside a verb that takes text only, `but` for these: a verb in there is illegal nesting,
/// anything else is worth a warning.
///
/// # Errors
/// Illegal nesting.
pub(crate) fn check_nested(
    element: &Element,
    but: &[&str],
    warnings: &mut Vec<DocError>,
) -> Result<(), DocError> {
    for child in element.elements() {
        let message = format!("{} is not allowed inside {}", child.name, element.name);
        if is_verb(&child.name) {
            return Err(DocError::new(SCHEMA, message));
        }
        if but.contains(&child.name.as_str()) {
            check_nested(child, but, warnings)?;
        } else {
            warnings.push(DocError::new(SCHEMA, message));
        }
    }
    Ok(())
}

/// Reads a document.
///
/// `charset` is the parameter of the content type, if it has one.
///
/// # Errors
/// What keeps it from being run, with the code for the fallback.
pub fn parse(body: &[u8], charset: Option<&str>, bytes_max: usize) -> Result<Document, DocError> {
    let root = xml::read(body, charset, bytes_max)?;
    if root.name != "Response" {
        let message = format!("root element is {}", root.name);
        return Err(DocError::new(ROOT_NOT_RESPONSE, message));
    }
    let mut document = Document::default();
    Attributes::new(&root, &[], &mut document.warnings);
    for child in &root.children {
        match child {
            Node::Element(element) => {
                let verb = verb(element, &mut document.warnings)?;
                document.verbs.extend(verb);
            }
            Node::Text(text) if text.trim().is_empty() => {}
            Node::Text(_) => {
                document.warnings.push(DocError::new(SCHEMA, "text between verbs is ignored"));
            }
        }
    }
    Ok(document)
}

/// One verb; `None` if it does nothing and that is only worth a warning.
fn verb(element: &Element, warnings: &mut Vec<DocError>) -> Result<Option<Verb>, DocError> {
    match element.name.as_str() {
        "Say" => check_nested(element, say::MARKUP, warnings)?,
        "Reject" | "Hangup" => check_nested(element, &["Parameter"], warnings)?,
        "Play" | "Pause" | "Record" | "Redirect" => check_nested(element, &[], warnings)?,
        _ => {}
    }
    Ok(match element.name.as_str() {
        "Say" => say::parse(element, warnings)?.map(Verb::Say),
        "Play" => play::parse(element, warnings)?.map(Verb::Play),
        "Pause" => Some(Verb::Pause(pause::parse(element, warnings))),
        "Gather" | "Collect" => Some(Verb::Gather(gather::parse(element, warnings)?)),
        "Record" => Some(Verb::Record(record::parse(element, warnings))),
        "Dial" => Some(Verb::Dial(dial::parse(element, warnings)?)),
        "Redirect" => Some(Verb::Redirect(redirect::parse(element, warnings))),
        "Reject" => Some(Verb::Reject(reject::parse(element, warnings))),
        "Hangup" => Some(hangup::parse(element, warnings)),
        name if NOT_AVAILABLE.contains(&name) => {
            return Err(DocError::new(VERB_UNKNOWN, format!("{name} is not available")));
        }
        name => {
            let meant = VERBS.iter().find(|verb| verb.eq_ignore_ascii_case(name));
            let hint = meant.map(|verb| format!("; it is written {verb}")).unwrap_or_default();
            return Err(DocError::new(SCHEMA, format!("{name} is not a verb{hint}")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(inner: &str) -> String {
        match parse(format!("<Response>{inner}</Response>").as_bytes(), None, 64 * 1024) {
            Ok(document) => {
                let verbs: Vec<_> = document.verbs.iter().map(Verb::name).collect();
                let codes: Vec<_> = document.warnings.iter().map(|w| w.code.to_string()).collect();
                format!("{}|{}", verbs.join(" "), codes.join(" "))
            }
            Err(error) => error.code.to_string(),
        }
    }

    #[test]
    fn tel_05_verbs_limits_and_codes() {
        for (inner, expected) in [
            ("", "|"),
            ("<Say>hi</Say><Play>a.wav</Play><Pause/><Hangup/>", "Say Play Pause Hangup|"),
            ("<Collect numDigits='1'><Say>x</Say></Collect>", "Gather|"),
            ("<Say/>", "|13520"),
            ("<Say loop='x'>a</Say>", "Say|13510"),
            ("<Say loop='-1'>a</Say>", "Say|13510"),
            ("<Say colour='red'>a</Say>", "Say|12200"),
            ("<Play/>", "|11100"),
            ("<Play digits='12wW#*AD'/>", "Play|"),
            ("<Play digits='12x'/>", "|13430"),
            ("<Play loop='1001'>a.wav</Play>", "Play|13410"),
            ("<Pause length='0'/>", "Pause|13910"),
            ("<Pause length='abc'/>", "Pause|13910"),
            ("<Gather timeout='x'/>", "Gather|13313"),
            ("<Gather finishOnKey='z'/>", "Gather|13314"),
            ("<Gather numDigits='0'/>", "Gather|13321"),
            ("<Gather method='PUT'/>", "Gather|13312"),
            ("<Gather input='speech'/>", "13335"),
            ("<Gather input='dtmf speech'/>", "Gather|13335"),
            ("<Gather><Dial>1</Dial></Gather>", "13323"),
            ("<Gather><Play digits='1'/></Gather>", "13430"),
            ("<Record maxLength='0'/>", "Record|13617"),
            ("<Record timeout='x' method='PUT' finishOnKey='z'/>", "Record|13612 13611 13613"),
            ("<Dial timeout='4'>+15551230001</Dial>", "Dial|13212"),
            ("<Dial hangupOnStar='maybe'>+15551230001</Dial>", "Dial|13213"),
            ("<Dial hangupOnKey='#9'>+15551230001</Dial>", "Dial|"),
            ("<Dial hangupOnKey='x'>+15551230001</Dial>", "Dial|13213"),
            ("<Dial><Number>+1555</Number><Sip>sip:a@b</Sip></Dial>", "Dial|"),
            ("<Dial><Sip>nonsense</Sip></Dial>", "Dial|13224"),
            ("<Dial><Say>x</Say></Dial>", "13215"),
            ("<Dial><Conference>x</Conference></Dial>", "13750"),
            ("<Dial><Number url='http://h/'>1</Number></Dial>", "Dial|"),
            ("<Dial timeout='700' timeLimit='999999'>1</Dial>", "Dial|13212 13216"),
            ("<Dial ringTone='xx'>1</Dial>", "Dial|12200"),
            ("<Dial ringTone='US-OLD' recordingTrack='inbound' record='true'>1</Dial>", "Dial|"),
            ("<Dial recordingTrack='left'>1</Dial>", "Dial|13218"),
            ("<Dial><Number><Say>x</Say></Number></Dial>", "12200"),
            ("<Dial><Sip><Number>1</Number></Sip></Dial>", "13215"),
            ("<Redirect>next.xml</Redirect>", "Redirect|"),
            ("<Reject reason='busy'/>", "Reject|"),
            ("<Reject reason='tired'/>", "Reject|12200"),
            ("<Enqueue>q</Enqueue>", "13750"),
            ("<Nonsense/>", "12200"),
            ("<say>a</say>", "12200"),
            ("<sms address='1'>a</sms>", "13750"),
            ("<Say>a<Play>b.wav</Play></Say>", "12200"),
            ("<Say>a<prosody rate='slow'><Dial/></prosody></Say>", "12200"),
            ("<Say>a<audio src='b.wav'/></Say>", "Say|12200"),
            ("<Say>a<break time='1s'/><s><w>b</w></s></Say>", "Say|"),
            ("<Play>a.wav<Pause/></Play>", "12200"),
            ("<Redirect><Say>a</Say></Redirect>", "12200"),
            ("<Hangup><Parameter name='a' value='b'/></Hangup>", "Hangup|"),
            ("<Gather><Say>a<Gather/></Say></Gather>", "12200"),
            ("words", "|12200"),
        ] {
            assert_eq!(check(inner), expected, "{inner}");
        }
        assert_eq!(parse(b"<Html/>", None, 100).unwrap_err().code, 12102);
        let many = "<Number>1</Number>".repeat(11);
        assert_eq!(check(&format!("<Dial>{many}</Dial>")), "Dial|13233");
    }
}
