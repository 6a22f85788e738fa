//! What a response is, by its MIME type (TEL-04).

use super::parse::parse;
use super::{DocError, Document};
use crate::error_code::{BODY_EMPTY, CONTENT_TYPE};
use crate::verb::{Play, PlayContent, Say, Verb};

/// Turns a response body into a document. `url` is where it came from: audio is played from there.
///
/// # Errors
/// The code that the fallback is told.
pub fn interpret(
    content_type: Option<&str>,
    body: &[u8],
    url: &str,
    bytes_max: usize,
) -> Result<Document, DocError> {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    let charset = charset_of(content_type.unwrap_or_default());
    let charset = charset.as_deref();
    let blank = body.iter().all(u8::is_ascii_whitespace);
    if blank {
        return Err(DocError::new(BODY_EMPTY, "the response has no body"));
    }
    match essence.as_str() {
        "text/xml" | "application/xml" | "text/html" => parse(body, charset, bytes_max),
        "" if is_markup(body) => parse(body, charset, bytes_max),
        "text/plain" if is_markup(body) => parse(body, charset, bytes_max),
        "text/plain" => spoken(body, charset, bytes_max),
        audio if is_audio(audio) => {
            let play = Play { content: PlayContent::Url(url.to_owned()), times: 1 };
            Ok(Document { verbs: vec![Verb::Play(play)], warnings: Vec::new() })
        }
        other => Err(DocError::new(CONTENT_TYPE, format!("content type {other:?}"))),
    }
}

/// Whether the first character that shows is an angle bracket, in whatever encoding.
fn is_markup(body: &[u8]) -> bool {
    let head = body.get(..body.len().min(64)).unwrap_or_default();
    let mark = |byte: &&u8| !matches!(byte, 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
    let mut shown = head.iter().filter(mark).filter(|byte| !byte.is_ascii_whitespace());
    shown.next() == Some(&b'<')
}

/// The `charset` parameter.
fn charset_of(content_type: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        let fits = name.trim().eq_ignore_ascii_case("charset") && !value.is_empty();
        fits.then(|| value.to_owned())
    })
}

fn is_audio(essence: &str) -> bool {
    essence.strip_prefix("audio/").is_some_and(|kind| {
        matches!(
            kind,
            "mpeg"
                | "mp3"
                | "wav"
                | "wave"
                | "x-wav"
                | "aiff"
                | "x-aifc"
                | "x-aiff"
                | "x-gsm"
                | "gsm"
                | "ulaw"
                | "basic"
                | "ogg"
                | "flac"
        )
    })
}

fn spoken(body: &[u8], charset: Option<&str>, bytes_max: usize) -> Result<Document, DocError> {
    if body.len() > bytes_max {
        let message = format!("more than {bytes_max} bytes");
        return Err(DocError::new(crate::error_code::BODY_TOO_LARGE, message));
    }
    // Better a strange word than silence.
    let text = super::charset::decode(body, charset)
        .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    let text = text.trim().to_owned();
    let say = Say { text, voice: None, language: None, times: 1 };
    Ok(Document { verbs: vec![Verb::Say(say)], warnings: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tel_04_the_type_decides() {
        let xml: &[u8] = b"<Response><Hangup/></Response>";
        let check = |kind: &str, body: &[u8]| {
            let kind = (!kind.is_empty()).then_some(kind);
            match interpret(kind, body, "http://h/a", 1000) {
                Ok(document) => document.verbs.iter().map(Verb::name).collect::<Vec<_>>().join(" "),
                Err(error) => error.code.to_string(),
            }
        };
        for (kind, body, expected) in [
            ("text/xml; charset=utf-8", xml, "Hangup"),
            ("Application/XML", xml, "Hangup"),
            ("text/html", xml, "Hangup"),
            ("", xml, "Hangup"),
            ("text/plain", xml, "Hangup"),
            ("text/plain", b"Hello there", "Say"),
            ("text/plain", b"<Response>", "12100"),
            ("text/xml; charset=iso-8859-1", b"<Response><Say>\xe9</Say></Response>", "Say"),
            ("text/xml", b"<Response><Say>\xe9</Say></Response>", "12100"),
            ("text/plain; charset=\"latin1\"", b"\xe9t\xe9", "Say"),
            ("", b"\xef\xbb\xbf<Response/>", ""),
            ("audio/mpeg", b"ID3", "Play"),
            ("audio/x-wav", b"RIFF", "Play"),
            ("application/json", b"{}", "12300"),
            ("video/mp4", b"x", "12300"),
            ("text/xml", b"  \n", "11770"),
            ("text/xml", b"", "11770"),
            ("", b"Hello", "12300"),
        ] {
            assert_eq!(check(kind, body), expected, "{kind} {body:?}");
        }
    }
}
