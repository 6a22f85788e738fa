//! What the value of a key may be.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tree::Value;

type Convert<T> = Box<dyn Fn(&Path, &Value) -> Option<T>>;

/// A set of allowed values, in words and as a conversion.
pub struct Kind<T> {
    allowed: String,
    /// The full check.
    convert: Convert<T>,
    /// Without looking at the machine (does the file exist?), for defaults and examples.
    lenient: Option<Convert<T>>,
    suffix: Option<&'static str>,
    secret: bool,
}

impl<T> Kind<T> {
    fn new(
        allowed: impl Into<String>,
        convert: impl Fn(&Path, &Value) -> Option<T> + 'static,
    ) -> Self {
        Self {
            allowed: allowed.into(),
            convert: Box::new(convert),
            lenient: None,
            suffix: None,
            secret: false,
        }
    }

    /// Never shows the value in a message.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) fn allowed(&self) -> &str {
        &self.allowed
    }

    pub(super) fn is_secret(&self) -> bool {
        self.secret
    }

    pub(super) fn suits(&self, name: &str) -> bool {
        self.suffix.is_none_or(|suffix| name.ends_with(suffix))
    }

    pub(super) fn convert(&self, base: &Path, value: &Value) -> Option<T> {
        (self.convert)(base, value)
    }

    pub(super) fn stand_in(&self, base: &Path, value: &Value) -> Option<T> {
        self.lenient.as_ref().unwrap_or(&self.convert)(base, value)
    }
}

fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Any text of 1 to 1,000 bytes without control characters.
pub fn text() -> Kind<String> {
    parsed("a text of 1 to 1000 bytes without control characters", |text| {
        let good = (1..=1000).contains(&text.len()) && !text.chars().any(char::is_control);
        good.then(|| text.to_owned())
    })
}

/// A text that `parse` takes; `allowed` says which.
pub fn parsed<T>(
    allowed: impl Into<String>,
    parse: impl Fn(&str) -> Option<T> + 'static,
) -> Kind<T> {
    Kind::new(allowed, move |_, value| parse(as_text(value)?))
}

/// A name of a node, region, provider …: lower-case letters, digits and inner hyphens. It becomes
/// part of certificates, metrics and file names.
pub fn name() -> Kind<String> {
    parsed("a name of 1 to 63 letters a-z, digits and hyphens inside", |text| {
        is_name(text).then(|| text.to_owned())
    })
}

/// The rule of [`name`].
pub fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// `ip:port` to listen on; port 0 lets the system choose.
pub fn listen_address() -> Kind<SocketAddr> {
    parsed(
        "ip:port, for example \"0.0.0.0:5060\" or \"[::]:5060\" (port 0: any free one)",
        |text| text.parse().ok(),
    )
}

/// An IP address.
pub fn ip_address() -> Kind<std::net::IpAddr> {
    parsed("an IP address, for example \"192.0.2.7\"", |text| text.parse().ok())
}

/// A SIP URI in which `{number}` stands for the dialled number.
pub fn sip_uri_for_number() -> Kind<String> {
    parsed("a sip: or sips: URI with a host, with {number} for the number", |text| {
        let rest = text.strip_prefix("sip:").or_else(|| text.strip_prefix("sips:"))?;
        let filled = rest.replace("{number}", "0");
        let target = filled.split([';', '?']).next()?;
        let host = target.rsplit('@').next()?;
        // The port may be left out; an address of IPv6 is in brackets.
        let port = host.rsplit_once(':').filter(|_| !host.ends_with(']')).map(|(_, port)| port);
        let good = !host.is_empty()
            && filled.chars().all(|c| c.is_ascii_graphic() && !"{}<>\"".contains(c))
            && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        good.then(|| text.to_owned())
    })
}

/// `host:port` of another daemon; the host may be a name.
pub fn remote_address() -> Kind<String> {
    parsed("host:port, for example \"control.example.net:7443\"", |text| {
        is_remote_address(text).then(|| text.to_owned())
    })
}

fn is_remote_address(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_good = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    host_good && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// A whole number in a range.
pub fn integer(range: RangeInclusive<u64>) -> Kind<u64> {
    Kind::new(within("a whole number", &range), move |_, value| in_range(value, &range))
}

/// A number in a range.
pub fn number(range: RangeInclusive<f64>) -> Kind<f64> {
    Kind::new(within("a number", &range), move |_, value| {
        let number = match value {
            // Configured numbers are far below 2^53.
            #[allow(clippy::cast_precision_loss)]
            Value::Integer(number) => *number as f64,
            Value::Float(number) => *number,
            _ => return None,
        };
        range.contains(&number).then_some(number)
    })
}

/// Milliseconds; the key ends in `_ms`.
pub fn millis(range: RangeInclusive<u64>) -> Kind<Duration> {
    let allowed = within("milliseconds", &range);
    let kind =
        Kind::new(allowed, move |_, value| in_range(value, &range).map(Duration::from_millis));
    Kind { suffix: Some("_ms"), ..kind }
}

/// Seconds; the key ends in `_s`.
pub fn seconds(range: RangeInclusive<u64>) -> Kind<Duration> {
    let allowed = within("seconds", &range);
    let kind = Kind::new(allowed, move |_, value| in_range(value, &range).map(Duration::from_secs));
    Kind { suffix: Some("_s"), ..kind }
}

fn within<T: Display>(what: &str, range: &RangeInclusive<T>) -> String {
    format!("{what} from {} to {}", range.start(), range.end())
}

fn in_range(value: &Value, range: &RangeInclusive<u64>) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(*number).ok().filter(|n| range.contains(n)),
        _ => None,
    }
}

/// `true` or `false`.
pub fn boolean() -> Kind<bool> {
    Kind::new("true or false", |_, value| match value {
        Value::Boolean(on) => Some(*on),
        _ => None,
    })
}

/// One of a few words, each standing for a value.
pub fn one_of<T: Clone + 'static>(choices: &[(&'static str, T)]) -> Kind<T> {
    let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
    let choices = choices.to_vec();
    parsed(format!("one of {}", words.join(", ")), move |text| {
        choices.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone())
    })
}

/// A list of at most `max` values of a kind.
pub fn list<T: 'static>(item: Kind<T>, max: usize) -> Kind<Vec<T>> {
    let allowed = format!("a list of at most {max}, each {}", item.allowed);
    let (suffix, secret) = (item.suffix, item.secret);
    let kind = Kind::new(allowed, move |base, value| match value {
        Value::List(list) if list.len() <= max => {
            list.iter().map(|node| item.convert(base, &node.value)).collect()
        }
        _ => None,
    });
    Kind { suffix, secret, ..kind }
}

/// A path, relative to the folder of the configuration file.
pub fn path() -> Kind<PathBuf> {
    Kind::new("a path", join)
}

/// A path to a file that can be read now.
pub fn readable_file() -> Kind<PathBuf> {
    let kind = Kind::new("the path of a file that can be read", |base, value| {
        let path = join(base, value)?;
        let readable = path.is_file() && std::fs::File::open(&path).is_ok();
        readable.then_some(path)
    });
    Kind { lenient: Some(Box::new(join)), ..kind }
}

/// A folder that exists or can be made, and in which files can be written.
pub fn writable_folder() -> Kind<PathBuf> {
    let kind = Kind::new("the path of a folder that can be written to", |base, value| {
        let path = join(base, value)?;
        std::fs::create_dir_all(&path).ok()?;
        let probe = path.join(".tandem-write-check");
        std::fs::write(&probe, b"").ok()?;
        std::fs::remove_file(&probe).ok()?;
        Some(path)
    });
    Kind { lenient: Some(Box::new(join)), ..kind }
}

fn join(base: &Path, value: &Value) -> Option<PathBuf> {
    let text = as_text(value)?;
    (!text.is_empty() && !text.contains('\0')).then(|| base.join(text))
}

/// The text inside a file of at most 64 KiB, without the line end: how secrets are given.
pub fn secret_from_file() -> Kind<String> {
    let kind =
        Kind::new("the path of a readable file with the secret on one line", |base, value| {
            let path = join(base, value)?;
            if std::fs::metadata(&path).ok()?.len() > 65_536 {
                return None;
            }
            let text = std::fs::read_to_string(path).ok()?;
            let text = text.trim_end_matches(['\r', '\n']);
            (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
        });
    Kind { lenient: Some(Box::new(|_, _| Some(String::new()))), ..kind }
}

/// `http://` or `https://` with a host.
pub fn http_url() -> Kind<String> {
    parsed("a URL that starts with http:// or https://", |text| {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let clean = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        (!host.is_empty() && clean).then(|| text.to_owned())
    })
}
