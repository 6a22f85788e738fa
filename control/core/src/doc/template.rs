//! URI templates, RFC 6570 levels 1 to 3: `{Digits}`, `{+path}`, `{?From,To}`, … in action and
//! media URLs, filled from call state (TEL-06).

use std::fmt::Write as _;

/// Expands `template` with `value_of`. An unknown name expands to nothing (RFC 6570 §3.2.1); an
/// expression that is not of levels 1–3 stays as it is.
pub fn expand<'a>(template: &str, value_of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        result.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        let Some(end) = after.find('}') else {
            result.push_str(&rest[start..]);
            return result;
        };
        let expression = &after[..end];
        match expansion(expression, &value_of) {
            Some(text) => result.push_str(&text),
            None => {
                let _ = write!(result, "{{{expression}}}");
            }
        }
        rest = &after[end + 1..];
    }
    result.push_str(rest);
    result
}

/// RFC 6570 appendix A: first, separator, named, if-empty, reserved allowed.
fn expansion<'a>(expression: &str, value_of: &impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let (first, separator, named, if_empty, reserved) = match expression.chars().next()? {
        '+' => ("", ",", false, "", true),
        '#' => ("#", ",", false, "", true),
        '.' => (".", ".", false, "", false),
        '/' => ("/", "/", false, "", false),
        ';' => (";", ";", true, "", false),
        '?' => ("?", "&", true, "=", false),
        '&' => ("&", "&", true, "=", false),
        _ => ("", ",", false, "", false),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let names = expression.strip_prefix(['+', '#', '.', '/', ';', '?', '&']).unwrap_or(expression);
    let mut result = String::new();
    for name in names.split(',') {
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        let Some(value) = value_of(name) else { continue };
        result.push_str(if result.is_empty() { first } else { separator });
        if named {
            result.push_str(name);
            result.push_str(if value.is_empty() { if_empty } else { "=" });
        }
        encode(value, reserved, &mut result);
    }
    Some(result)
}

fn encode(value: &str, reserved: bool, into: &mut String) {
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || (reserved && b":/?#[]@!$&'()*+,;=".contains(&byte));
        if plain {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tel_06_levels_one_to_three() {
        let value_of = |name: &str| match name {
            "var" => Some("value"),
            "hello" => Some("Hello World!"),
            "path" => Some("/foo/bar"),
            "empty" => Some(""),
            "x" => Some("1024"),
            "y" => Some("768"),
            _ => None,
        };
        // The examples of RFC 6570 §1.2.
        for (template, expected) in [
            ("{var}", "value"),
            ("{hello}", "Hello%20World%21"),
            ("{+hello}", "Hello%20World!"),
            ("{+path}/here", "/foo/bar/here"),
            ("X{#hello}", "X#Hello%20World!"),
            ("map?{x,y}", "map?1024,768"),
            ("{x,hello,y}", "1024,Hello%20World%21,768"),
            ("{#path,x}/here", "#/foo/bar,1024/here"),
            ("X{.x,y}", "X.1024.768"),
            ("{/var,x}/here", "/value/1024/here"),
            ("{;x,y,empty}", ";x=1024;y=768;empty"),
            ("{?x,y,empty}", "?x=1024&y=768&empty="),
            ("?fixed=yes{&x}", "?fixed=yes&x=1024"),
            ("{undef}a{x,undef,y}", "a1024,768"),
            ("open{", "open{"),
            ("{}{var:3}{!x}", "{}{var:3}{!x}"),
            ("é{var}é", "évalueé"),
        ] {
            assert_eq!(expand(template, value_of), expected, "{template}");
        }
    }
}
