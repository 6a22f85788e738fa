//! Bytes of a document to text: byte order mark, then the charset of the content type, then the XML
//! declaration, then UTF-8 (RFC 7303 §3, XML 1.0 appendix F).

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    Utf8,
    /// ISO 8859-1 is read as its superset, as browsers do.
    Windows1252,
    Utf16 {
        big: bool,
    },
}

/// The text of a body. `charset` is the parameter of its content type, if it has one.
///
/// # Errors
/// In words: bytes that the encoding does not allow, or an encoding that is not known.
pub fn decode(bytes: &[u8], charset: Option<&str>) -> Result<String, String> {
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => return read(rest, Charset::Utf8),
        [0xfe, 0xff, rest @ ..] => return read(rest, Charset::Utf16 { big: true }),
        [0xff, 0xfe, rest @ ..] => return read(rest, Charset::Utf16 { big: false }),
        // An XML document begins with a character of ASCII.
        [0, first, ..] if *first != 0 => return read(bytes, Charset::Utf16 { big: true }),
        [first, 0, ..] if *first != 0 => return read(bytes, Charset::Utf16 { big: false }),
        _ => {}
    }
    let declared = charset.map(str::to_owned).or_else(|| declaration(bytes));
    let known = match declared {
        None => Charset::Utf8,
        Some(name) => named(&name).ok_or_else(|| format!("encoding {name:?} is not known"))?,
    };
    match known {
        // Programs write "utf-16" from habit; the bytes show that it is not.
        Charset::Utf16 { .. } => read(bytes, Charset::Utf8),
        known => read(bytes, known),
    }
}

fn named(name: &str) -> Option<Charset> {
    Some(match name.trim().to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" | "us-ascii" | "ascii" => Charset::Utf8,
        "iso-8859-1" | "iso_8859-1" | "iso8859-1" | "latin1" | "latin-1" | "windows-1252"
        | "cp1252" => Charset::Windows1252,
        "utf-16" | "utf16" | "utf-16le" => Charset::Utf16 { big: false },
        "utf-16be" => Charset::Utf16 { big: true },
        _ => return None,
    })
}

/// `encoding` of the XML declaration.
fn declaration(bytes: &[u8]) -> Option<String> {
    let head = bytes.get(..bytes.len().min(200))?;
    let rest = head.strip_prefix(b"<?xml")?;
    let end = rest.windows(2).position(|pair| pair == b"?>")?;
    let text = std::str::from_utf8(rest.get(..end)?).ok()?;
    let (_, value) = text.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value.get(1..)?.split(quote).next().map(str::to_owned)
}

fn read(bytes: &[u8], charset: Charset) -> Result<String, String> {
    match charset {
        Charset::Utf8 => std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|error| format!("byte {}: not UTF-8", error.valid_up_to())),
        Charset::Windows1252 => Ok(bytes.iter().map(|byte| windows_1252(*byte)).collect()),
        Charset::Utf16 { big } => {
            let unit = |pair: &[u8]| match *pair {
                [a, b] if big => u16::from_be_bytes([a, b]),
                [a, b] => u16::from_le_bytes([a, b]),
                // Half a unit is no character.
                _ => 0xd800,
            };
            char::decode_utf16(bytes.chunks(2).map(unit))
                .collect::<Result<String, _>>()
                .map_err(|_| "not UTF-16".to_owned())
        }
    }
}

/// Bytes 0x80 to 0x9f of Windows-1252; the five that it does not assign stay control characters.
const UPPER: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9f => UPPER.get(usize::from(byte - 0x80)).copied().unwrap_or('?'),
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tel_04_documents_come_in_many_encodings() {
        let utf16 = |text: &str, big: bool| -> Vec<u8> {
            let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
            text.encode_utf16().flat_map(bytes).collect()
        };
        let marked = |mark: &[u8], rest: &[u8]| [mark, rest].concat();
        let declared = |name: &str, rest: &[u8]| {
            [format!("<?xml version='1.0' encoding='{name}'?>").as_bytes(), rest].concat()
        };
        let end = |text: Result<String, String>| {
            text.map(|text| text.rsplit("?>").next().unwrap_or_default().to_owned())
        };
        for (bytes, charset, expected) in [
            ("<é/>".as_bytes().to_vec(), None, "<é/>"),
            (marked(b"\xef\xbb\xbf", "<é/>".as_bytes()), Some("iso-8859-1"), "<é/>"),
            (b"<\xe9/>".to_vec(), Some("ISO-8859-1"), "<é/>"),
            (declared("iso-8859-1", b"<\xe9/>"), None, "<é/>"),
            (declared("windows-1252", b"<\x80/>"), None, "<€/>"),
            (declared("utf-8", b"<\xe9/>"), Some("latin1"), "<é/>"),
            (declared("utf-16", "<é/>".as_bytes()), None, "<é/>"),
            (utf16("<é/>", true), None, "<é/>"),
            (utf16("<é/>", false), Some("utf-16"), "<é/>"),
            (marked(b"\xfe\xff", &utf16("<é𝄞/>", true)), None, "<é𝄞/>"),
            (marked(b"\xff\xfe", &utf16("<é/>", false)), None, "<é/>"),
        ] {
            assert_eq!(end(decode(&bytes, charset)).as_deref(), Ok(expected), "{bytes:?}");
        }
        for (bytes, charset) in [
            (b"<\xe9/>".to_vec(), None),
            (declared("koi8-r", b"<a/>"), None),
            (b"\xff\xfe<\x00a".to_vec(), None),
            (marked(b"\xfe\xff", b"\xd8\x00"), None),
        ] {
            assert!(decode(&bytes, charset).is_err(), "{bytes:?}");
        }
    }
}
