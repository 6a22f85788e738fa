//! Say: synthesised speech.

use serde::{Deserialize, Serialize};

use super::loops;
use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::Element;
use crate::error_code::{SAY_EMPTY, SAY_LOOP, SAY_TOO_LONG};

const CHARACTERS_MAX: usize = 4_096;

/// Speech markup that may stand inside.
pub(crate) const MARKUP: &[&str] =
    &["break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "sub", "w"];

/// The verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Say {
    /// What to say, with SSML elements as tags (the speech service reads them).
    pub text: String,
    /// `None` = configured default.
    pub voice: Option<String>,
    /// `None` = configured default.
    pub language: Option<String>,
    /// How often.
    pub times: u32,
}

pub(crate) fn parse(
    element: &Element,
    warnings: &mut Vec<DocError>,
) -> Result<Option<Say>, DocError> {
    let mut attributes = Attributes::new(element, &["voice", "language", "loop"], warnings);
    let times = loops(&mut attributes, SAY_LOOP);
    let text = element.markup().split_whitespace().collect::<Vec<_>>().join(" ");
    if element.text().is_empty() {
        attributes.warn(SAY_EMPTY, "Say without text");
        return Ok(None);
    }
    if text.chars().count() > CHARACTERS_MAX {
        let message = format!("Say with more than {CHARACTERS_MAX} characters");
        return Err(DocError::new(SAY_TOO_LONG, message));
    }
    let given = |name| attributes.text(name).filter(|value| !value.is_empty());
    Ok(Some(Say { text, voice: given("voice"), language: given("language"), times }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::xml;

    #[test]
    fn speech_marks_are_kept_for_the_speech_service() {
        for (document, expected) in [
            ("<Say>a &amp; b</Say>", Some("a & b")),
            (
                "<Say>one<break time='2s'/> two <emphasis>three</emphasis></Say>",
                Some("one<break time=\"2s\"/> two <emphasis>three</emphasis>"),
            ),
            ("<Say><s> </s></Say>", None),
        ] {
            let element = xml::read(document.as_bytes(), None, 1_000).unwrap();
            let said = parse(&element, &mut Vec::new()).unwrap();
            assert_eq!(said.map(|say| say.text).as_deref(), expected, "{document}");
        }
    }
}
