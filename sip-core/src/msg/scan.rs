//! Small byte scanners shared by the parsers of header values. All of them know about quoted
//! strings with escapes and about angle brackets, so that a comma or semicolon inside does not end
//! a value.

/// A `token` character (RFC 3261 §25.1).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// Linear white space, including what remains of folding.
pub fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without white space at both ends.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_lws(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_lws(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Index of the first `wanted` byte outside quotes and angle brackets.
pub fn find_outside(bytes: &[u8], wanted: u8) -> Option<usize> {
    let mut index = 0;
    let mut in_angle = false;
    while let Some(&byte) = bytes.get(index) {
        if byte == wanted && !in_angle {
            return Some(index);
        }
        match byte {
            b'"' if !in_angle => index += quoted_len(bytes.get(index..)?)?.saturating_sub(1),
            b'<' => in_angle = true,
            b'>' => in_angle = false,
            _ => {}
        }
        index += 1;
    }
    None
}

/// Length of the quoted string at the start of `bytes`, quotes included; `None` if unterminated.
pub fn quoted_len(bytes: &[u8]) -> Option<usize> {
    let mut index = 1;
    loop {
        match bytes.get(index)? {
            b'\\' => index += 2,
            b'"' => return Some(index + 1),
            _ => index += 1,
        }
    }
}

/// Splits at `separator` outside quotes and angle brackets. Parts are trimmed; empty ones are kept
/// away, because `Contact: a, , b` is tolerated.
pub fn split_outside(bytes: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        loop {
            let current = rest?;
            let part = match find_outside(current, separator) {
                Some(at) => {
                    rest = current.get(at + 1..);
                    current.get(..at).unwrap_or_default()
                }
                None => {
                    rest = None;
                    current
                }
            };
            let part = trim(part);
            if !part.is_empty() {
                return Some(part);
            }
        }
    })
}

/// The content of a quoted string, escapes removed. Text that is not quoted comes back as it is.
pub fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            other => out.push(other),
        }
    }
    out
}

/// A quoted string with the escapes it needs; control characters become spaces.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_quotes_and_brackets_do_not_split() {
        let value = br#""a, \"b" <sip:x,y@h>;q=1, <sip:z@h> ,, c"#;
        let parts: Vec<_> = split_outside(value, b',').collect();
        assert_eq!(parts, [&br#""a, \"b" <sip:x,y@h>;q=1"#[..], b"<sip:z@h>", b"c"]);
    }

    #[test]
    fn quoting_is_reversible() {
        for text in ["plain", r#"with "quotes" and \ back"#, "", "ünï"] {
            assert_eq!(unquote(&quote(text)), text);
        }
        assert_eq!(quoted_len(br#""abc\"#), None);
    }
}
