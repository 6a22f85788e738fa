//! Identifiers as types. SIDs are two letters and 32 lower-case hex digits.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {prefix} followed by 32 hex digits")]
pub struct SidError {
    /// The two letters that the identifier starts with.
    pub prefix: &'static str,
}

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The two letters that this kind of identifier starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A new random identifier.
            pub fn mint(rng: &mut impl rand::Rng) -> Self {
                Self(rng.random())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = SidError;

            fn from_str(text: &str) -> Result<Self, SidError> {
                let error = SidError { prefix: $prefix };
                let hex = text.strip_prefix($prefix).ok_or(error)?.as_bytes();
                if hex.len() != 32 {
                    return Err(error);
                }
                let mut bytes = [0u8; 16];
                for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
                    let digit = |c: u8| (c as char).to_digit(16).ok_or(error);
                    *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

sid!(
    /// A call in the sense of the REST API, which is one SIP leg. The first leg of a session also
    /// names the session.
    CallSid, "CA");
sid!(
    /// An account.
    AccountSid, "AC");
sid!(
    /// A recording.
    RecordingSid, "RE");
sid!(
    /// An incoming phone number.
    PhoneNumberSid, "PN");
sid!(
    /// An application.
    ApplicationSid, "AP");

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// One daemon: an edge, a media node (an edge of a core region) or a control node.
    NodeId);
name!(
    /// A region, for example `eu` or `core`.
    RegionId);

/// A media operation (play, collect, record, watch) of one session. Unique within the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub u32);

/// One bidirectional media stream inside the trunk between two nodes: a leg, extended to a node
/// that is not its home. Derived from the leg and the node, so nobody has to hand out numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn sid_round_trips_and_refuses_other_texts() {
        let sid = CallSid::mint(&mut rand::rngs::StdRng::seed_from_u64(7));
        assert_eq!(sid.to_string().parse(), Ok(sid));
        for text in
            ["", "CA", "AC00000000000000000000000000000000", "CA0000000000000000000000000000000g"]
        {
            assert!(text.parse::<CallSid>().is_err(), "{text}");
        }
    }
}
