//! Pages of a list, newest first. A page is named by a row at its border, so that rows that arrive
//! while somebody turns pages neither repeat nor hide others.

use std::fmt;
use std::str::FromStr;

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageToken {
    /// Rows older than this one.
    After {
        /// `created_ms` of the border row.
        created_ms: i64,
        /// SID of the border row.
        sid: String,
    },
    /// Rows newer than this one (the page before).
    Before {
        /// `created_ms` of the border row.
        created_ms: i64,
        /// SID of the border row.
        sid: String,
    },
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After { created_ms, sid } => write!(f, "PA{sid}_{created_ms}"),
            Self::Before { created_ms, sid } => write!(f, "PB{sid}_{created_ms}"),
        }
    }
}

/// The text is not a page token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a page token")]
pub struct PageTokenError;

impl FromStr for PageToken {
    type Err = PageTokenError;

    fn from_str(text: &str) -> Result<Self, PageTokenError> {
        let (before, rest) = match (text.strip_prefix("PA"), text.strip_prefix("PB")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(PageTokenError),
        };
        let (sid, created) = rest.rsplit_once('_').ok_or(PageTokenError)?;
        let created_ms = created.parse().map_err(|_| PageTokenError)?;
        let sid = sid.to_owned();
        Ok(if before { Self::Before { created_ms, sid } } else { Self::After { created_ms, sid } })
    }
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Most rows.
    pub size: u32,
    /// Number of the page from 0; skips `size * number` rows when there is no token.
    pub number: u32,
    /// Border.
    pub token: Option<PageToken>,
}

impl Page {
    /// The first page.
    pub fn first(size: u32) -> Self {
        Self { size, number: 0, token: None }
    }
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOf<T> {
    /// Rows, newest first.
    pub items: Vec<T>,
    /// Names the following page, if there is one.
    pub next: Option<PageToken>,
    /// Names the page before, if there is one.
    pub previous: Option<PageToken>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_refuse_other_texts() {
        for token in [
            PageToken::After { created_ms: 17, sid: "CA0".into() },
            PageToken::Before { created_ms: -3, sid: "PN_1".into() },
        ] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        for text in ["", "PA", "PAx", "PAx_", "XXx_1", "PAx_99999999999999999999"] {
            assert!(text.parse::<PageToken>().is_err(), "{text}");
        }
    }
}
